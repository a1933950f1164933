"""Figure 3: after a fork of the main run, constant learning rate, annealing, and PMA over the constant branch."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
import style
from drawing.captions import measure_text, model_text, scores_text, window_text
from drawing.description import Figure, Panel, figure
from drawing.parts import ZERO, gain_title, line, main_scores
from drawing.scores import HELDOUT_BITS, measure, pick, saved_over, scores
from formats import quantity
from records import Study


class _Branches(NamedTuple):
    """Rows of scores over tokens."""

    constant: pd.DataFrame
    annealed: pd.DataFrame
    merged: pd.DataFrame


def _branches(table: pd.DataFrame, task: str, metric: str) -> _Branches:
    here = {"task": task, "metric": metric}
    constant, merged = (pick(table, run="moe_main", method=method, **here) for method in ("last", "sma"))
    annealed = pick(table, run="annealed_moe_main", method="last", **here)
    return _Branches(constant, pd.concat([constant.iloc[:1], annealed]), merged)  # it starts at the fork


def _values(table: pd.DataFrame, task: str, metric: str, title: str) -> Panel:
    of = _branches(table, task, metric)
    lines = (
        line(of.constant, "tokens", "value", "constant learning rate", style.GREY),
        line(of.annealed, "tokens", "value", "annealing", style.ORANGE, marker="^"),
        line(of.merged, "tokens", "value", "PMA over constant", style.BLUE, marker="s"),
    )
    return Panel(title, "training tokens", style.METRICS[metric].label, lines, tokens=True)


def _gains(table: pd.DataFrame, task: str, metric: str, title: str) -> Panel:
    of = _branches(table, task, metric)
    annealed = saved_over(of.annealed.iloc[1:], of.constant)
    lines = (
        line(annealed, "tokens", "gain", "annealing", style.ORANGE, marker="^"),
        line(of.merged, "tokens", "gain", "PMA over constant", style.BLUE, marker="s"),
    )
    label = style.METRICS[metric].gain
    return Panel(f"{gain_title(title)}, over constant", "training tokens", label, lines, (ZERO,), tokens=True)


def front_panel(study: Study) -> Panel:
    """Held-out text, in bits per byte: what the README shows.

    Intervals are of the difference to the constant branch: what all branches of a run share does not blur them.
    """
    of = _branches(scores(study, "figure_3"), **HELDOUT_BITS)
    lines = [line(of.constant, "tokens", "value", "constant learning rate", style.GREY, errors=False)]
    for rows, label, color, marker in (
        (of.annealed, "annealing", style.ORANGE, "^"),
        (of.merged, "PMA over constant", style.BLUE, "s"),
    ):
        rows = saved_over(rows, of.constant)
        rows = rows.assign(error=rows["gain_error"])
        lines.append(line(rows, "tokens", "value", label, color, marker=marker))
    return Panel("held-out text", "training tokens", style.METRICS["bits_per_byte"].label, tuple(lines), tokens=True)


def describe(study: Study) -> Figure:
    """Held-out text and the average of the axes, what is saved over the constant branch, and the single axes."""
    table = scores(study, "figure_3")
    main = main_scores(study)
    rows = [[_values(table, *score) for score in main], [_gains(table, *score) for score in main]]
    rows.append([_values(table, task, measure(study), f"{task} (for {paper})") for task, paper in style.AXES.items()])
    return figure(
        "Figure 3: constant learning rate, annealing, and PMA after a fork",
        rows,
        (9, 8.4),
        model_text(study),
        f"At {quantity(table['tokens'].min())} training tokens the run goes on twice: at its constant learning rate, "
        "and annealed, the rate falling to 0 along a cosine.",
        window_text(table),
        measure_text(study),
        scores_text(study, table),
        "Axes of scores do not start at 0. The paper (1.3B/13B, fork at 1.4T, 250B tokens more): PMA is first above "
        "both, at the end on a par with annealing.",
        see="Compare blue, the merge of the constant run, with orange, the annealed run: where they meet, merging "
        "gives what annealing gives and trains nothing for it.",
        lead=[rows[0][0], rows[1][0]],
    )
