"""The paper's own numbers (analysis/paper) beside ours on the same axes: gains in per cent of the last score.

The paper scores accuracy on benchmarks, we mostly bits per byte: only relative to the last checkpoint's own score do
both fit on one axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import style
from drawing.captions import PAPER
from drawing.description import INK, Bars, Block, Line, Panel
from drawing.parts import ZERO
from drawing.scores import HELDOUT_BITS, measure, pick, scores
from records import Study
from sizes import by_size

from page.legend import OF_PAPER

TITLE = "ours beside the paper's"
_PAPER_V = 8  # billions of tokens
_GAIN = "gain, % of the last score"
_STANDS_FOR = {paper: axis for axis, paper in style.AXES.items()}


def _diamonds(name: str, x: Sequence[float], y: Sequence[float], fill: str = "white", dash: str = "") -> Line:
    """The paper's numbers of one setting."""
    places = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    return Line(OF_PAPER + name, INK, *places, dash=dash, marker="D", size=6, fill=fill, edge=INK)


def _our_points(study: Study, name: str, points: Sequence[int]) -> dict[int, int]:
    """The number of our point of training that is nearest, in V, to each of the paper's (billions of tokens)."""
    records = study.records(name)
    tokens = sorted(records.loc[records["method"] != "last", "tokens"].unique())
    ours = np.array(tokens) / study.config("moe_main")["scale"]["merge_interval"]
    return {point: int(np.abs(ours - point / _PAPER_V).argmin()) for point in points}


def _by_point(study: Study, name: str, block: Block, table: pd.DataFrame) -> Panel:
    """Settings at points of training (Figures 4 and 5): ours as bars, from the first column of the block."""
    value, gain = block.rows[0][0], block.rows[1][0]
    last = next(bars for bars in value.series if bars.label == "last")
    middle = table.assign(value=(table["low"] + table["high"]) / 2)
    wide = middle.pivot(index="setting", columns="tokens_billions", values="value")
    wide = 100 * (wide / wide.loc["last"] - 1)
    # Figure 4 names all points; Figure 5 has numbers at the first and the last of them.
    at = _our_points(study, name, sorted(pd.read_csv(PAPER / "figure_4.csv")["tokens_billions"].unique()))
    series: list[Bars | Line] = []
    for bars in gain.series:
        relative, error = (100 * numbers / np.abs(last.y) for numbers in (bars.y, bars.error))
        series.append(Bars(bars.label, bars.color, bars.x, relative, error, width=bars.width))
        known = wide.loc[bars.label].dropna()
        series.append(_diamonds(bars.label, bars.x[[at[point] for point in known.index]], known.to_numpy()))
    of_paper = {place: point for point, place in at.items()}
    ticks = {x: f"{ours}\n({of_paper[int(x)]}B)" if int(x) in of_paper else ours for x, ours in gain.xticks.items()}
    return Panel(TITLE, "training tokens: ours (the paper's)", _GAIN, tuple(series), (ZERO,), ticks)


def _by_size(study: Study, name: str, table: pd.DataFrame) -> Panel:
    """Sizes (Figures 1 and 9): the axes that stand for the benchmarks whose numbers the paper prints."""
    ours = scores(study, name)
    models = by_size(study, ours["run"].unique())
    labels = {run: size.tick for run, size in models.items()}
    places = [size.stands_for for size in models.values()]
    tasks = {benchmark: _STANDS_FOR[benchmark] for benchmark in dict.fromkeys(table["benchmark"])}
    # Bits per byte as in the figure, and accuracy, which is what the paper scores, where it moves.
    drawn = [(benchmark, task, "bits_per_byte") for benchmark, task in tasks.items()]
    drawn += [(benchmark, task, "acc") for benchmark, task in tasks.items() if measure(study, [task]) == "acc"]
    series: list[Bars | Line] = []
    width = 0.8 / len(drawn)
    for i, (benchmark, task, metric) in enumerate(sorted(drawn)):
        rows = pick(ours, task=task, metric=metric, method="sma").drop_duplicates("run").set_index("run").loc[[*labels]]
        before = rows["value"] - style.METRICS[metric].sign * rows["gain"]  # the last snapshot's
        shift = (i - (len(drawn) - 1) / 2) * width
        relative, error = (100 * (rows[column] / before).to_numpy() for column in ("gain", "gain_error"))
        unit = "accuracy" if metric == "acc" else "bits per byte"
        x = np.arange(len(labels)) + shift
        series.append(
            Bars(f"{task} (for {benchmark}), {unit}", style.color(1 + i), x, relative, error, width=0.92 * width)
        )
        of_paper = table[table["benchmark"] == benchmark]
        at = [places.index(size) + shift for size in of_paper["stands_for"]]
        if (benchmark, task, "acc") not in drawn or metric == "acc":
            series.append(_diamonds(benchmark, at, (100 * (of_paper["pma"] / of_paper["last"] - 1)).to_list()))
    return Panel(TITLE, "total parameters", _GAIN, tuple(series), (ZERO,), dict(enumerate(labels.values())))


def _best_intervals(study: Study, table: pd.DataFrame) -> Panel:
    """The best V by size, both relative to the smallest model: tokens and sizes differ a thousandfold."""
    ours = pick(scores(study, "interval_by_size"), method="sma", **HELDOUT_BITS)
    kinds = {run: study.config(run)["model"]["kind"] for run in ours["run"].unique()}
    lines = []
    for kind, label, color in (("moe", "MoE", style.BLUE), ("dense", "dense", style.ORANGE)):
        rows = ours[ours["run"].map(kinds) == kind]
        best = rows.loc[rows.groupby("run")["gain"].idxmax()]
        best = best.assign(total=best["run"].map(study.parameters)).sort_values("total")
        x, y = best["total"] / best["total"].iloc[0], np.log2(best["interval"] / best["interval"].iloc[0])
        lines.append(Line(label, color, x.to_numpy(), y.to_numpy(), marker="o" if kind == "moe" else "s", size=5))
    total = table["stands_for"].str.extract(r"([\d.]+)B$")[0].astype(float)
    best_v = np.log2(table["interval_billions"] / table["interval_billions"].iloc[0])
    lines.append(_diamonds("best V", total / total.iloc[0], best_v, dash="--"))
    ticks = {float(2**power): f"{2**power}x" for power in range(5)}
    label = "doublings of the best V"
    return Panel(TITLE, "total parameters over the smallest model's", label, tuple(lines), xticks=ticks, log_base=2)


def beside(study: Study, name: str, block: Block) -> list[Panel]:
    """The paper's numbers and ours of one block of a figure on the same axes; empty where the paper prints none."""
    panels = []
    for path in sorted(PAPER.glob(f"{name}*.csv")):
        table = pd.read_csv(path)
        if {"last", "pma"} <= set(table):
            panels.append(_by_size(study, name, table))
        elif "interval_billions" in table:
            panels.append(_best_intervals(study, table))
        elif "setting" in table:
            drawn = {bars.label for bars in block.rows[0][0].series}
            panels += [_by_point(study, name, block, table)] if drawn == set(table["setting"]) else []
    return panels
