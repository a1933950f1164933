"""Section 4.3: the gain of merging against the interval V between snapshots, by size of the model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import style
from drawing.captions import PAPER, measure_text, pma_text, scores_text
from drawing.description import INK, Figure, Line, Panel, figure
from drawing.numbers import mean_points, of_every_seed, regret_panels, settings_of
from drawing.parts import ZERO, gain_title, line, main_scores
from drawing.scores import pick, scores
from formats import quantity
from records import Study
from sizes import Size, by_size
from verdicts.evidence import regret_over_sizes
from verdicts.evidence.gains import best_intervals

KINDS = {"moe": "MoE", "dense": "dense"}


def _panel(table: pd.DataFrame, models: dict[str, Size], kind: str, task: str, metric: str, name: str) -> Panel:
    """One line a size, its best interval marked by a star."""
    lines, ticks = [], {}
    for i, (run, size) in enumerate(models.items()):
        merged = pick(table, run=run, task=task, metric=metric, method="sma").sort_values("interval")
        color = style.color(i + 1)
        lines.append(line(merged, "interval", "gain", size.label, color, log=True))
        best = merged.loc[[merged["gain"].idxmax()]]
        place = best["interval"].to_numpy(dtype=float), best["gain"].to_numpy()
        lines.append(Line("", color, *place, dash="", marker="*", size=13, edge=INK))
        ticks |= {float(interval): quantity(interval) for interval in merged["interval"]}
    return Panel(
        f"{kind}: {gain_title(name)}",
        "interval V (tokens)",
        style.METRICS[metric].gain,
        tuple(lines),
        levels=(ZERO,),
        xticks=ticks,
        log_base=2,
        legend="best" if task == "heldout" else "",
    )


def _apart(lines: list[Line]) -> list[float]:
    """Sizes whose names fit beside each other on the axis."""
    sizes = np.sort(np.concatenate([series.x for series in lines]))
    room = (sizes[-1] / sizes[0]) ** 0.1
    kept = [sizes[0]]
    for size in sizes[1:]:
        if size > room * kept[-1]:
            kept.append(size)
    return kept


def _best(study: Study, by_kind: dict[str, dict[str, Size]]) -> Panel:
    """The best V by size, from a parabola through the gains, in doublings of V."""
    lines, n = [], settings_of("C9", "a")["n"]
    for kind, color, marker in (("moe", style.BLUE, "o"), ("dense", style.ORANGE, "s")):
        best = of_every_seed(study, "interval_by_size", best_intervals, kind=kind, n=n)[list(by_kind[kind])]
        total = [size.total for size in by_kind[kind].values()]
        lines.append(mean_points(best, total, KINDS[kind], color, 0.1, log=True, marker=marker))
    ticks = {float(total): quantity(total) for total in _apart(lines)}
    names = {-1.0: "V / 2", 0.0: "V", 1.0: "2 V", 2.0: "4 V"}
    look = {"xticks": ticks, "yticks": names, "log_base": 10, "legend": "best"}
    return Panel("best V, held-out text", "total parameters", "", tuple(lines), **look)


def describe(study: Study) -> Figure:
    """Gains of MoE and dense sizes on held-out text and the axes; the best V, and what choosing it elsewhere costs."""
    table = scores(study, "interval_by_size")
    by_kind = {}
    for kind in KINDS:
        runs = [run for run in table["run"].unique() if study.config(run)["model"]["kind"] == kind]
        by_kind[kind] = by_size(study, runs)
    upper, lower = (
        [_panel(table, by_kind[kind], title, *score) for kind, title in KINDS.items()] for score in main_scores(study)
    )
    best = _best(study, by_kind)
    regret = regret_panels(
        study, "interval_by_size", regret_over_sizes, "V chosen on the smallest size, used on the larger"
    )
    unit = quantity(study.config("moe_main")["scale"]["merge_interval"])
    paper = pd.read_csv(PAPER / "interval_by_size.csv")
    of_paper = ", ".join(f"{row.interval_billions:g}B ({row.stands_for})" for row in paper.itertuples())
    return figure(
        "Section 4.3: the gain over the last snapshot against the interval V, by size",
        [upper, [best, *regret], lower],
        (9, 8.6),
        pma_text([]),
        f"N = {pick(table, method='sma')['n'].iloc[0]}; stars: the best of four V for each model's mean. Best V: the "
        f"top of a parabola through each run's four scores, in units of the main run's V, {unit} tokens."
        + (" Regret: what the chosen V scores below the best one, mean over the six larger sizes." if regret else ""),
        measure_text(study),
        scores_text(study, table),
        f"The paper's best V, in tokens: about {of_paper}.",
        legend=False,
        see="Each line is a model size and each star its best interval V: the paper says that the stars move right as "
        "the model grows.",
        lead=[*upper, best],
    )
