"""Section 4.3: the gain of merging against the interval V between snapshots, by size of the model."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import PAPER, measure_text, pma_text, scores_text
from drawing.description import INK, Figure, Line, Panel, figure
from drawing.parts import ZERO, line
from drawing.scores import measure, pick, scores
from formats import quantity
from records import Study
from sizes import Size, by_size

KINDS = {"moe": "MoE", "dense": "dense"}


def _panel(table: pd.DataFrame, models: dict[str, Size], task: str, metric: str, kind: str) -> Panel:
    """One line a size, its best interval marked by a star."""
    lines, ticks = [], {}
    for i, (run, size) in enumerate(models.items()):
        merged = pick(table, run=run, task=task, metric=metric, method="sma").sort_values("interval")
        color = style.color(i + 1)
        lines.append(line(merged, "interval", "gain", size.label, color, errors=True))
        best = merged.loc[[merged["gain"].idxmax()]]
        place = best["interval"].to_numpy(dtype=float), best["gain"].to_numpy()
        lines.append(Line("", color, *place, dash="", marker="*", size=13, edge=INK))
        ticks |= {float(interval): quantity(interval) for interval in merged["interval"]}
    name = {"average": "four axes", "heldout": "held-out text"}[task]
    return Panel(
        f"{kind}: gain, {name}",
        "interval V (tokens)" if task == "heldout" else "",
        style.METRICS[metric].gain,
        tuple(lines),
        levels=(ZERO,),
        xticks=ticks,
        log_base=2,
        legend="best" if task == "average" else "",
    )


def describe(study: Study) -> Figure:
    """A column for MoE, one for dense; the average of the axes, and held-out text."""
    table = scores(study, "interval_by_size")
    by_kind = {}
    for kind in KINDS:
        runs = [run for run in table["run"].unique() if study.config(run)["model"]["kind"] == kind]
        by_kind[kind] = by_size(study, runs)
    upper = [_panel(table, by_kind[kind], "average", measure(study), title) for kind, title in KINDS.items()]
    lower = [_panel(table, by_kind[kind], "heldout", "bits_per_byte", title) for kind, title in KINDS.items()]
    paper = pd.read_csv(PAPER / "interval_by_size.csv")
    best = ", ".join(f"{row.interval_billions:g}B ({row.stands_for})" for row in paper.itertuples())
    return figure(
        "Section 4.3: the gain over the last snapshot against the interval V, by size",
        [upper, lower],
        (9, 6),
        pma_text([]),
        f"N = {pick(table, method='sma')['n'].iloc[0]}; stars: the best V of each model.",
        measure_text(study),
        scores_text(study, table),
        f"The paper's best V, in tokens: about {best}.",
        legend=False,
        see="Each line is a model size and each star its best interval V: the paper says that the stars move right as "
        "the model grows.",
        lead=upper,
    )
