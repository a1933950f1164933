"""Figure 2: PMA over the snapshots of an annealing run against the annealing snapshots themselves, two MoE sizes."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import measure_text, scores_text, window_text
from drawing.description import Figure, Level, Line, Panel, figure
from drawing.parts import ZERO, gain_title, line, main_scores
from drawing.scores import pick, saved_over, scores
from records import Study
from sizes import Size, by_size

_CONSTANT = {"annealed_moe_main": "moe_main", "annealed_moe_3b_30b": "moe_3b_30b"}


def _values(table: pd.DataFrame, size: Size, task: str, metric: str, title: str) -> Panel:
    here = {"task": task, "metric": metric}
    annealing, merged = (pick(table, run=size.runs[0], method=method, **here) for method in ("last", "sma"))
    constant = pick(table, run=_CONSTANT[size.runs[0]], method="last", **here)
    lines = (
        line(annealing, "tokens", "value", "annealing snapshot", style.ORANGE, marker="^"),
        line(merged, "tokens", "value", "PMA over annealing snapshots", style.BLUE, marker="s"),
        line(constant, "tokens", "value", "constant learning rate, last snapshot", style.GREY),
    )
    end = Level(float(annealing["value"].iloc[-1]), "end of annealing", style.ORANGE, "--", 1.0)
    return Panel(title, "", style.METRICS[metric].label, lines, (end,), tokens=True)


def _saved(table: pd.DataFrame, size: Size, task: str, metric: str, title: str) -> Panel:
    here = {"run": size.runs[0], "task": task, "metric": metric}
    annealing, merged = (pick(table, method=method, **here) for method in ("last", "sma"))
    over_end = saved_over(merged, annealing.iloc[-1:])
    lines: tuple[Line, ...] = (
        line(merged, "tokens", "gain", "over the annealing snapshot", style.BLUE, marker="s"),
        line(over_end, "tokens", "gain", "over the end of annealing", style.ORANGE, marker="^", dash="--"),
    )
    label = style.METRICS[metric].gain
    return Panel(title, "training tokens", label, lines, (ZERO,), tokens=True, legend="best")


def describe(study: Study) -> Figure:
    """A column a size: held-out text, what PMA saves on it, and the average of the axes."""
    table = scores(study, "figure_2")
    models = by_size(study, _CONSTANT).values()
    (text, text_metric, text_name), (axes, axes_metric, axes_name) = main_scores(study)
    rows = [
        [_values(table, size, text, text_metric, f"{size.label}\n{text_name}") for size in models],
        [_saved(table, size, text, text_metric, gain_title(text_name)) for size in models],
        [_values(table, size, axes, axes_metric, axes_name) for size in models],
        [_saved(table, size, axes, axes_metric, gain_title(axes_name)) for size in models],
    ]
    return figure(
        "Figure 2: PMA during annealing",
        rows,
        (9, 10),
        "Annealing: the learning rate falls to 0 along a cosine.",
        window_text(table),
        "The windows of the first points reach back before annealing began.",
        measure_text(study),
        scores_text(study, table),
        "Axes of scores do not start at 0. The paper (1.3B/13B, 10B/100B, 15B/150B): early in annealing PMA is about "
        "as good as the end of annealing.",
        see="Where the blue gain lies above zero, merging the annealing snapshots beats the newest of them; where the "
        "orange one does, it beats the end of annealing before annealing has ended.",
        lead=rows[1],
    )
