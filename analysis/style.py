"""What the figures share: reading records, seeds and error bars, grouped bars, the paper's numbers underneath."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pma.records import SIGNAL_TO_NOISE_MINIMUM, read_records, signal_to_noise_table

HERE = Path(__file__).resolve().parent
# Okabe-Ito, readable with colour-vision deficiency; the last checkpoint is grey everywhere.
COLORS = ["#999999", "#0072B2", "#E69F00", "#009E73", "#CC79A7"]


@dataclass(frozen=True)
class Metric:
    """One of the suite's averages, as a column of panels."""

    task: str
    metric: str
    name: str
    axis: str
    gain: str
    number: str  # format of a value
    factor: float  # from the records to what is drawn
    higher_is_better: bool


_BITS = {"gain": "bits per byte saved", "number": ".3f", "factor": 1, "higher_is_better": False}
_BITS_AXIS = "bits per byte\nlower is better"
METRICS = (
    Metric("average", "acc", "accuracy of the four axes", "accuracy (%)\nhigher is better", "points", ".1f", 100, True),
    Metric("average", "bits_per_byte", "bits per byte of the right answer, four axes", _BITS_AXIS, **_BITS),
    Metric("heldout", "bits_per_byte", "bits per byte of held-out text, all domains", _BITS_AXIS, **_BITS),
)


def run_figure(name: str, draw: Callable[[pd.DataFrame], Figure]) -> None:
    """Command line of a figure: read the records of --scale, draw, save as .png and .pdf."""
    parser = argparse.ArgumentParser(description=f"Draw {name} from its records.")
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--runs-dir", type=Path, default=HERE.parent / "runs")
    parser.add_argument("--out-dir", type=Path, default=HERE / "out")
    options = parser.parse_args()
    table = read_records(options.runs_dir / options.scale / name / "records.csv")
    figure = draw(table)
    out = options.out_dir / options.scale
    out.mkdir(parents=True, exist_ok=True)
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", None)):
        aside = out / f".{name}.partial{suffix}"
        figure.savefig(aside, dpi=160, bbox_inches="tight", metadata=metadata)
        os.replace(aside, out / f"{name}{suffix}")
    print(f"{name}: {out / f'{name}.png'} and .pdf")


def tokens_label(tokens: int) -> str:
    """Token count with three significant digits and a unit."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if tokens >= size:
            return f"{tokens / size:.3g}{unit}"
    return str(tokens)


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean value over seeds, by (tokens, setting); the error is the standard error over seeds, or, with one seed,
    the standard error over items."""
    grouped = table.groupby(["tokens", "setting"])
    result = grouped.agg(value=("value", "mean"), items=("stderr", "mean"), seeds=("seed", "nunique"))
    result["error"] = (grouped["value"].sem()).where(result["seeds"] > 1, result["items"])
    return result.reset_index()


def error_text(table: pd.DataFrame) -> str:
    """What the error bars are, for the caption."""
    seeds = table["seed"].nunique()
    return f"standard error over {seeds} seeds" if seeds > 1 else "standard error over the items, one seed"


def signal_to_noise_of(table: pd.DataFrame) -> dict[Metric, float]:
    """Signal to noise of each metric that a figure may show."""
    ratios = signal_to_noise_table(table).set_index(["task", "metric"])["signal_to_noise"]
    return {metric: ratios.get((metric.task, metric.metric), float("nan")) for metric in METRICS}


def moving(table: pd.DataFrame) -> list[Metric]:
    """The metrics that move at this scale; the others are not shown as results, and the caption says so.

    Raises:
        ValueError: when none does.
    """
    found = [metric for metric, ratio in signal_to_noise_of(table).items() if ratio >= SIGNAL_TO_NOISE_MINIMUM]
    if not found:
        raise ValueError("no metric moves at this scale: there is nothing to draw; train longer or larger")
    return found


def _values(table: pd.DataFrame, settings: list[str], metric: Metric, gain: bool) -> pd.DataFrame:
    """A metric by point and setting; as a gain over `last` (positive is better) if asked for."""
    chosen = (table["task"] == metric.task) & (table["metric"] == metric.metric) & table["setting"].isin(settings)
    rows = table[chosen].copy()
    if gain:
        at = rows["seed"].astype(str) + " " + rows["tokens"].astype(str)
        last = rows["setting"] == "last"
        difference = rows["value"] - at.map(rows[last].set_axis(at[last])["value"])
        rows["value"] = difference if metric.higher_is_better else -difference
        rows = rows[~last]
    means = over_seeds(rows)
    if gain:
        # The items are the same for both, so their standard errors do not add up to that of a difference.
        means.loc[means["seeds"] == 1, "error"] = float("nan")
    means[["value", "error"]] *= metric.factor
    return means


def grouped_bars(ax: Axes, means: pd.DataFrame, settings: list[str], number: str) -> None:
    """Bars of `means`, one group a point of training, one bar a setting, each with its value (format `number`)."""
    points = sorted(means["tokens"].unique())
    width = 0.8 / len(settings)
    low, high = float("inf"), float("-inf")
    for index, setting in enumerate(settings):
        bars = means[means["setting"] == setting].set_index("tokens").reindex(points)
        if bars["value"].isna().all():
            continue
        x = [i + (index - (len(settings) - 1) / 2) * width for i in range(len(points))]
        value, error = bars["value"], bars["error"]
        ax.bar(
            x, value, width * 0.92, yerr=error, label=setting, color=COLORS[index], error_kw={"lw": 0.9, "capsize": 2}
        )
        for position, height, up in zip(x, value, error.fillna(0), strict=True):
            below = height < 0
            end, shift, align = (height - up, -3, "top") if below else (height + up, 3, "bottom")
            ax.annotate(
                format(height, number), (position, end), (0, shift), textcoords="offset points", ha="center", va=align,
                fontsize=7, rotation=90,
            )  # fmt: skip
        low, high = min(low, (value - error.fillna(0)).min()), max(high, (value + error.fillna(0)).max())
    room = 0.36 * (high - low)
    ax.set_ylim(low - (1.2 if low < 0 else 0.5) * room, high + room)
    ax.set_xticks(range(len(points)), [tokens_label(tokens) for tokens in points])
    ax.set_xlabel("training tokens", fontsize=8.5)
    ax.spines[["top", "right"]].set_visible(False)


def bar_rows(axes: np.ndarray, table: pd.DataFrame, settings: list[str], title: str) -> None:
    """Two rows of panels of records with a column `setting` (missing: not a bar), a column for each metric that moves:
    the values, and under them the gain over the last snapshot."""
    ratios = signal_to_noise_of(table)
    for metric, (top, bottom) in zip(moving(table), axes.T, strict=True):
        top.set_title(f"{metric.name}\n(signal to noise {ratios[metric]:.0f})", fontsize=8.5, loc="right")
        top.set_ylabel(metric.axis, fontsize=8.5)
        grouped_bars(top, _values(table, settings, metric, gain=False), settings, metric.number)
        bottom.set_ylabel(f"gain over last\n({metric.gain})", fontsize=8.5)
        grouped_bars(bottom, _values(table, settings, metric, gain=True), settings, "+" + metric.number)
        bottom.axhline(0, color="black", lw=0.8)
    axes[0, 0].set_title(title + "\n", fontsize=9.5, loc="left", fontweight="bold")
    handles = [Patch(color=color, label=setting) for color, setting in zip(COLORS, settings, strict=False)]
    axes[0, 0].legend(handles=handles, ncols=3, fontsize=8, frameon=False, loc="upper right")


def paper_table(ax: Axes, name: str, settings: list[str]) -> None:
    """The paper's own numbers as a small table."""
    paper = pd.read_csv(HERE / "paper" / f"{name}.csv")
    tokens = sorted(paper["tokens_billions"].unique())

    def cell(setting: str, point: int) -> str:
        found = paper[(paper["setting"] == setting) & (paper["tokens_billions"] == point)]
        if found.empty:
            return "–"
        low, high = found.iloc[0][["low", "high"]]
        return f"{low:g}" if low == high else f"{low:g}–{high:g}"

    ax.axis("off")
    table = ax.table(
        cellText=[[cell(setting, point) for setting in settings] for point in tokens],
        rowLabels=[f"{point}B tokens" for point in tokens],
        colLabels=settings,
        loc="center",
        cellLoc="center",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    ax.set_title(
        "The paper's numbers (1.3B/13B, its own benchmark average; read off its labels, places inferred)", fontsize=8.5
    )


def caption(figure: Figure, table: pd.DataFrame, text: str) -> None:
    """Caption under the figure: where the records come from, `text`, what the error bars are, what does not move."""
    first = table.iloc[0]
    lines = [
        f"Scale {first['scale']}, run {first['run']}, suite {first['suite']}: unweighted means over the axes code, "
        f"reasoning, knowledge and math, and over the held-out domains. {text}",
        f"Error bars: {error_text(table)}; gains have them over several seeds only. Upper axes do not start at 0. "
        "Signal to noise: rise over training against scatter over the last snapshots.",
    ]
    shown = moving(table)
    lines += [
        f"Not shown: {metric.name} does not move at this scale (signal to noise {ratio:.1f}, below "
        f"{SIGNAL_TO_NOISE_MINIMUM:g})."
        for metric, ratio in signal_to_noise_of(table).items()
        if metric not in shown
    ]
    figure.text(0.01, -0.01, "\n".join(lines), fontsize=8, va="top")


def new_figure(height_ratios: list[float], columns: int, height: float) -> tuple[Figure, np.ndarray]:
    """A figure of rows of panels, 13 inches wide; axes of shape (rows, columns). The last row is for tables: its axes
    are taken out, see `table_axes`."""
    size = {"figsize": (13, height), "height_ratios": height_ratios, "layout": "constrained"}
    figure, axes = plt.subplots(len(height_ratios), columns, squeeze=False, **size)
    for ax in axes[-1]:
        ax.remove()
    return figure, axes


def table_axes(figure: Figure, axes: np.ndarray, count: int) -> list[Axes]:
    """`count` axes side by side in the last row."""
    row = axes[-1, 0].get_subplotspec().get_gridspec()[len(axes) - 1, :].subgridspec(1, count)
    return [figure.add_subplot(row[0, i]) for i in range(count)]
