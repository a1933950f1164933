"""What the figures share: reading records and curves, gains and their errors, bars, captions.

Everywhere: value and gain are means over seeds, a gain is positive where merging helps, accuracy is in per cent.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pma.files import MANIFEST, read_manifest
from pma.records import SIGNAL_TO_NOISE_MINIMUM, read_records, signal_to_noise_table

HERE = Path(__file__).resolve().parent
WIDTH = 9.0  # inches, at most; readable at half a page
# Okabe-Ito, readable with colour-vision deficiency; grey is the last snapshot everywhere, blue the merge.
GREY, BLUE, ORANGE, GREEN, PINK, RED, SKY = COLORS = (
    "#8C8C8C", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9",
)  # fmt: skip
plt.rcParams.update(
    {
        "font.size": 8.5,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.5,
        "lines.markersize": 4,
        "errorbar.capsize": 2,
    }
)

# The proxy suite's axes and the benchmarks whose place they take.
AXES = {"code": "HumanEval", "reasoning": "BBH", "knowledge": "MMLU", "math": "GSM8K"}


@dataclass(frozen=True)
class Metric:
    """How a metric of the records is drawn."""

    label: str
    gain: str
    number: str  # format of a value
    factor: float  # from the records to what is drawn
    sign: int  # +1: higher is better


METRICS = {
    "acc": Metric("accuracy (%), higher is better", "gain (points)", ".1f", 100, 1),
    "bits_per_byte": Metric("bits per byte, lower is better", "gain (bits per byte saved)", ".3f", 1, -1),
}


@dataclass(frozen=True)
class Source:
    """Where a figure reads from: RUNS/SCALE, or RUNS/SCALE/published."""

    folder: Path

    @property
    def scale(self) -> str:
        """Name of the scale."""
        return self.folder.parent.name if self.folder.name == "published" else self.folder.name

    def file(self, experiment: str, name: str) -> Path:
        """A file of an experiment or a run.

        Raises:
            ValueError: when it is not there.
        """
        path = self.folder / experiment / name
        if not path.is_file():
            raise ValueError(f"{path}: not there; python -m pma.reproduce scale={self.scale} experiment=NAME makes it")
        return path

    def records(self, experiment: str) -> pd.DataFrame:
        """Records of an experiment."""
        return read_records(self.file(experiment, "records.csv"))

    def items(self, experiment: str) -> pd.DataFrame:
        """Values of single items, in a list column `values`."""
        return pd.read_parquet(self.file(experiment, "items.parquet"))

    def seeds(self, run: str) -> list[int]:
        """Seeds that a run was trained with."""
        prefix = f"{run}-seed"
        return sorted(int(p.name.removeprefix(prefix)) for p in self.folder.glob(f"{prefix}*"))

    def curve(self, run: str, seed: int = 0) -> pd.DataFrame:
        """Training curve: metrics.jsonl with a column `step`."""
        lines = self.file(f"{run}-seed{seed}", "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        curve = pd.DataFrame(map(json.loads, lines))
        return curve.assign(step=curve["tokens"] // self.config(run, seed)["scale"]["batch_tokens"])

    def config(self, run: str, seed: int = 0) -> dict[str, Any]:
        """Resolved config of a run."""
        return yaml.safe_load(self.file(f"{run}-seed{seed}", "config.yaml").read_text(encoding="utf-8"))

    def sizes(self, runs: Iterable[str]) -> dict[str, str]:
        """Labels of runs by their size, smallest first: total parameters and the paper's size they stand for."""
        totals = {run: read_manifest(self.file(f"{run}-seed0", MANIFEST).parent)["parameters"]["total"] for run in runs}
        order = sorted(totals, key=totals.__getitem__)
        return {run: f"{quantity(totals[run])}\n({self.config(run)['model']['stands_for']})" for run in order}


def save_all(figure: Figure, out: Path, name: str) -> None:
    """Publish a figure as OUT/NAME.png and .pdf."""
    out.mkdir(parents=True, exist_ok=True)
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", None)):
        aside = out / f".{name}.partial{suffix}"
        figure.savefig(aside, dpi=160, bbox_inches="tight", metadata=metadata)
        os.replace(aside, out / f"{name}{suffix}")
    plt.close(figure)
    print(f"{name}: {out / f'{name}.png'} and .pdf")


def rate(number: float) -> str:
    """A learning rate."""
    return f"{number:.2g}".replace("e-0", "e-")


def quantity(number: float) -> str:
    """A count with three significant digits and a unit."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


# What a score belongs to; seeds are averaged over, and gains are within a seed.
_AT = ["run", "seed", "tokens", "suite", "task", "metric"]
_SETTING = ["method", "n", "interval"]


def paired_errors(items: pd.DataFrame) -> pd.DataFrame:
    """Standard error of each merge's gain over the last snapshot, a mean of paired differences over the items; of an
    average of tasks from theirs, which share no items. Column `paired`."""
    last = items[items["method"] == "last"].drop(columns=_SETTING)
    both = items[items["method"] != "last"].merge(last, on=_AT, suffixes=("", "_last"))
    pairs = zip(both["values"], both["values_last"], strict=True)
    variance = [float(np.var(np.subtract(a, b), ddof=1) / len(a)) for a, b in pairs]
    single = both[_AT + _SETTING].assign(variance=variance)
    of = {**dict.fromkeys(AXES, "average"), **{t: "heldout" for t in single["task"] if t.startswith("heldout_")}}
    mean = single.assign(task=single["task"].map(of)).dropna().groupby(_AT + _SETTING)["variance"]
    averages = (mean.sum() / mean.size() ** 2).reset_index()
    every = pd.concat([single, averages])
    return every.assign(paired=np.sqrt(every.pop("variance")))


def scores(source: Source, experiment: str) -> pd.DataFrame:
    """Records of an experiment, averaged over seeds: value, error, gain, gain_error, seeds.

    Errors are standard errors over seeds where there are at least 2; otherwise of a value over items, and of a gain
    the paired one over items.
    """
    table = source.records(experiment)
    factor = table["metric"].map({name: metric.factor for name, metric in METRICS.items()})
    sign = table["metric"].map({name: metric.sign for name, metric in METRICS.items()})
    last = table.loc[table["method"] == "last", [*_AT, "value"]].drop_duplicates(_AT)
    table = table.merge(last.rename(columns={"value": "last"}), on=_AT, how="left")
    table["gain"] = sign * (table["value"] - table["last"])
    table = table.merge(paired_errors(source.items(experiment)), on=_AT + _SETTING, how="left")
    table[["value", "stderr", "gain", "paired"]] = table[["value", "stderr", "gain", "paired"]].mul(factor, axis=0)
    grouped = table.groupby([key for key in _AT if key != "seed"] + _SETTING)
    means = grouped.agg(
        value=("value", "mean"), error=("value", "sem"), items=("stderr", "mean"),
        gain=("gain", "mean"), gain_error=("gain", "sem"), paired=("paired", "mean"), seeds=("seed", "nunique"),
    ).reset_index()  # fmt: skip
    several = means["seeds"] > 1
    means["error"] = means["error"].where(several, means.pop("items"))
    means["gain_error"] = means["gain_error"].where(several, means.pop("paired"))
    return means.assign(experiment=experiment)


def pick(table: pd.DataFrame, **conditions: Any) -> pd.DataFrame:
    """Rows that fulfil `column=value`, in the order of tokens.

    Raises:
        ValueError: when there are none: a part of the experiment is missing.
    """
    chosen = table
    for column, value in conditions.items():
        chosen = chosen[chosen[column] == value]
    if chosen.empty:
        wanted = ", ".join(f"{column}={value}" for column, value in conditions.items())
        raise ValueError(f"no records with {wanted}: a part of it is missing, reproduce the experiment again")
    return chosen.sort_values("tokens")


def signal_to_noise(source: Source) -> dict[tuple[str, str], float]:
    """Signal to noise by (task, metric), from the main run's snapshots of Figure 4 (or 5, the same): one rule for all
    figures. Empty where neither was recorded."""
    for experiment in ("figure_4", "figure_5"):
        if (source.folder / experiment / "records.csv").is_file():
            ratios = signal_to_noise_table(source.records(experiment))
            return ratios.set_index(["task", "metric"])["signal_to_noise"].to_dict()
    return {}


def measure(source: Source, tasks: Iterable[str] = AXES) -> str:
    """What to draw of tasks: acc where the accuracy of every one of them moves at this scale, else bits_per_byte."""
    ratios = signal_to_noise(source)
    return "acc" if all(ratios.get((t, "acc"), 0) >= SIGNAL_TO_NOISE_MINIMUM for t in tasks) else "bits_per_byte"


def measure_text(source: Source, tasks: Iterable[str] = AXES) -> str:
    """Why that is drawn, for the caption."""
    ratios = signal_to_noise(source)
    if not ratios:
        return "Accuracy is not drawn: Figure 4's records, which tell whether it moves at this scale, are not here."
    found = {task: ratios.get((task, "acc"), np.nan) for task in tasks}
    said = ", ".join(f"{task} {ratio:.1f}" if np.isfinite(ratio) else f"{task} none" for task, ratio in found.items())
    drawn = "so it is drawn" if measure(source, tasks) == "acc" else "so bits per byte of the right answer are drawn"
    rule = f"rise over training against scatter over the last snapshots of Figure 4; {SIGNAL_TO_NOISE_MINIMUM:g} wanted"
    return f"Signal to noise of accuracy ({rule}): {said}; {drawn}."


def bars(
    ax: Axes, table: pd.DataFrame, by: str, groups: dict[Any, str], settings: dict[str, str], metric: Metric,
    column: str = "value",
) -> None:  # fmt: skip
    """Grouped bars of `column` (value | gain) of a table with a column `setting`: a group for each value of `by`, a bar
    for each setting, whose colour `settings` gives; each with its number. The axis starts near the lowest bar."""
    error_column = {"value": "error", "gain": "gain_error"}[column]
    number = metric.number if column == "value" else "+" + metric.number
    settings = {s: color for s, color in settings.items() if column == "value" or color != GREY}
    width = 0.84 / len(settings)
    low, high = np.inf, -np.inf
    for index, (setting, color) in enumerate(settings.items()):
        rows = table[table["setting"] == setting].set_index(by).reindex(list(groups))
        x = np.arange(len(groups)) + (index - (len(settings) - 1) / 2) * width
        height, error = rows[column].to_numpy(), rows[error_column].fillna(0).to_numpy()
        ax.bar(x, height, 0.92 * width, yerr=error, color=color, label=setting, error_kw={"lw": 0.8})
        for position, value, up in zip(x, height, error, strict=True):
            if np.isfinite(value):
                below = column == "gain" and value < 0
                end, shift, align = (value - up, -3, "top") if below else (value + up, 3, "bottom")
                style = {"ha": "center", "va": align, "fontsize": 6.5, "rotation": 90}
                ax.annotate(format(value, number), (position, end), (0, shift), textcoords="offset points", **style)
        low, high = np.nanmin([low, *(height - error)]), np.nanmax([high, *(height + error)])
    if column == "gain":
        low, high = min(low, 0), max(high, 0)
        ax.axhline(0, color="black", lw=0.8)
    room = 0.45 * (high - low) or 0.1 * abs(high) or 1.0
    ax.set_ylim(low - room * (1 if low < 0 else 0 if column == "gain" else 0.4), high + room * (high > 0))
    ax.set_xticks(range(len(groups)), groups.values(), fontsize=7.5)


def errorbars(ax: Axes, rows: pd.DataFrame, x: str, column: str, **style: Any) -> None:
    """A line of `column` (value | gain) with its error bars."""
    error = rows[{"value": "error", "gain": "gain_error"}[column]]
    ax.errorbar(rows[x], rows[column], yerr=error, elinewidth=0.8, **{"marker": "o", **style})


def token_axis(ax: Axes, label: str = "training tokens") -> None:
    """Tokens on the x axis."""
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(lambda value, _: quantity(value))
    ax.set_xlabel(label)


def legend_above(figure: Figure, ax: Axes) -> None:
    """One legend for the figure, in a row over its panels, from the artists of `ax`."""
    handles, labels = ax.get_legend_handles_labels()
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0}
    figure.legend(handles, labels, ncols=len(labels), columnspacing=1.4, **place)


def window_text(table: pd.DataFrame) -> str:
    """N and V of the merges of a table."""
    merged = table[table["method"] != "last"][["n", "interval"]].drop_duplicates().sort_values(["n", "interval"])
    said = (f"N = {n}, V = {quantity(v)} tokens" for n, v in merged.itertuples(index=False))
    return f"PMA: unweighted mean of N snapshots V apart ({'; '.join(said)})."


def items_text(source: Source, table: pd.DataFrame) -> str:
    """Scale, items and seeds of a table of `scores`, for the caption."""
    first = source.items(table["experiment"].iloc[0]).drop_duplicates(["suite", "task"])
    first = first[first["task"].isin(table["task"])]
    count = first.assign(items=first["values"].map(len))
    axes, documents = count[~count["task"].str.startswith("heldout_")], count[count["task"].str.startswith("heldout_")]
    low, high = axes["items"].min(), axes["items"].max()
    said = [f"Scale {source.scale}; {low if low == high else f'{low} to {high}'} items an axis"]
    if len(documents):
        said.append(f"{documents['items'].sum()} held-out documents of {len(documents)} domains")
    seeds = table.groupby("run")["seeds"].max()
    many = ", ".join(f"{run} {count}" for run, count in seeds[seeds > 1].items())
    said.append("1 seed" if not many else f"seeds: {many}" + ("" if (seeds > 1).all() else ", others 1"))
    return f"{', '.join(said)}."


def scores_text(source: Source, table: pd.DataFrame) -> str:
    """Scale, items, seeds and error bars of a table of `scores`, for the caption."""
    over = "over seeds where there are several, else " if table["seeds"].max() > 1 else ""
    errors = f"Error bars: standard errors, {over}over items (of a gain: of the paired difference)."
    return f"{items_text(source, table)} {errors}"


def paper_text(name: str) -> str:
    """The paper's own pairs (analysis/paper), for the caption."""
    paper = pd.read_csv(HERE / "paper" / f"{name}.csv")
    pairs = (f"{p.benchmark} {p.last:g} → {p.pma:g} ({p.stands_for})" for p in paper.itertuples())
    return f"The paper, last → PMA: {', '.join(pairs)}."


def paper_table(ax: Axes, name: str, settings: Iterable[str]) -> None:
    """The paper's own numbers by point and setting as a small table."""
    paper = pd.read_csv(HERE / "paper" / f"{name}.csv")
    points, settings = sorted(paper["tokens_billions"].unique()), list(settings)

    def cell(setting: str, point: int) -> str:
        found = paper[(paper["setting"] == setting) & (paper["tokens_billions"] == point)]
        if found.empty:
            return "–"
        low, high = found.iloc[0][["low", "high"]]
        return f"{low:g}" if low == high else f"{low:g}–{high:g}"

    ax.axis("off")
    cells = [[cell(setting, point) for setting in settings] for point in points]
    rows = [f"{point}B" for point in points]
    table = ax.table(cells, rowLabels=rows, colLabels=settings, loc="center", cellLoc="center")
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    ax.set_title("the paper (1.3B/13B, its benchmark average; places inferred)", fontsize=7.5)


def title(figure: Figure, text: str) -> None:
    """Title over the figure, and over its legend if that is there already."""
    inches = 0.3 if figure.legends else 0.05
    figure.text(0.01, 1 + inches / figure.get_figheight(), text, fontsize=10.5, va="bottom")


def caption(figure: Figure, *sentences: str) -> None:
    """Caption under the figure."""
    text = textwrap.fill(" ".join(sentences), round(17.5 * figure.get_figwidth()))
    figure.text(0.01, -0.01, text, fontsize=7.5, va="top")
