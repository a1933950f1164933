"""Figure 3: after a fork of the main run, constant learning rate, annealing, and PMA over the constant branch."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import measure_text, model_text, scores_text, window_text
from drawing.description import Figure, Panel, figure
from drawing.parts import line
from drawing.scores import measure, pick, scores
from formats import quantity
from records import Study


def _panel(table: pd.DataFrame, task: str, metric: str, title: str) -> Panel:
    here = {"task": task, "metric": metric}
    constant, merged = (pick(table, run="moe_main", method=method, **here) for method in ("last", "sma"))
    annealed = pick(table, run="annealed_moe_main", method="last", **here)
    annealed = pd.concat([constant.iloc[:1], annealed])  # it starts at the fork
    paired = merged.assign(error=merged["gain_error"])
    return Panel(
        title,
        "training tokens",
        style.METRICS[metric].label,
        (
            line(constant, "tokens", "value", "constant learning rate", style.GREY),
            line(annealed, "tokens", "value", "annealing", style.ORANGE, marker="^"),
            line(paired, "tokens", "value", "PMA over constant", style.BLUE, errors=True, marker="s"),
        ),
        tokens=True,
    )


def average(study: Study) -> Panel:
    """The average of the four axes, in bits per byte: what the README shows."""
    return _panel(scores(study, "figure_3"), "average", "bits_per_byte", "average of the four axes")


def describe(study: Study) -> Figure:
    """Four axes, their average and held-out text over tokens."""
    table = scores(study, "figure_3")
    metric = measure(study)
    panels = [_panel(table, task, metric, f"{task} (for {paper})") for task, paper in style.AXES.items()]
    panels.append(_panel(table, "average", metric, "average of the four axes"))
    panels.append(_panel(table, "heldout", "bits_per_byte", "held-out text"))
    return figure(
        "Figure 3: constant learning rate, annealing, and PMA after a fork",
        [panels[:3], panels[3:]],
        (9, 5.4),
        model_text(study),
        f"At {quantity(table['tokens'].min())} training tokens the run goes on twice: at its constant learning rate, "
        "and annealed, the rate falling to 0 along a cosine.",
        window_text(table),
        measure_text(study),
        scores_text(study, table, "drawn at PMA, that of its paired difference to the constant branch"),
        "Axes do not start at 0. The paper (1.3B/13B, fork at 1.4T, 250B tokens more): PMA is first above both, at the "
        "end on a par with annealing.",
        see="Compare blue, the merge of the constant run, with orange, the annealed run: where they meet, merging "
        "gives what annealing gives and trains nothing for it.",
        lead=panels[4:],
    )
