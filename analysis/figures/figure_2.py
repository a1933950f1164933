"""Figure 2: PMA over the snapshots of an annealing run against the annealing snapshots themselves, three MoE sizes."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import measure_text, scores_text, sizes, window_text
from drawing.description import Figure, Level, Panel, figure
from drawing.parts import line
from drawing.scores import measure, pick, scores
from records import Study


def _panel(table: pd.DataFrame, run: str, task: str, metric: str, title: str, ylabel: str) -> Panel:
    here = {"run": run, "task": task, "metric": metric}
    annealing, merged = (pick(table, method=method, **here) for method in ("last", "sma"))
    # The error of a comparison is the paired one, so it stands at the merge.
    paired = merged.assign(error=merged["gain_error"])
    end = float(annealing["value"].iloc[-1])
    return Panel(
        title,
        "training tokens",
        ylabel,
        (
            line(annealing, "tokens", "value", "annealing snapshot", style.ORANGE),
            line(paired, "tokens", "value", "PMA over annealing snapshots", style.BLUE, errors=True, marker="s"),
        ),
        levels=(Level(end, "end of annealing", style.ORANGE, "--", 1.0),),
        tokens=True,
    )


def describe(study: Study) -> Figure:
    """A column a size: the average of the axes, and held-out text."""
    table = scores(study, "figure_2")
    labels = sizes(study, table["run"].unique())
    rows = []
    for task, metric, name in (("average", measure(study), "four axes"), ("heldout", "bits_per_byte", "held-out text")):
        first = f"{name}\n{style.METRICS[metric].label}"
        rows.append(
            [
                _panel(table, run, task, metric, size.replace("\n", " "), first if i == 0 else "")
                for i, (run, size) in enumerate(labels.items())
            ]
        )
    return figure(
        "Figure 2: PMA during annealing",
        rows,
        (9, 5.2),
        window_text(table),
        "Early windows reach back before the fork.",
        scores_text(study, table),
        "Those at PMA are of its difference to the annealing snapshot.",
        measure_text(study),
        "Axes do not start at 0. The paper (1.3B/13B, 10B/100B, 15B/150B): early in annealing PMA is about as good as "
        "the end of annealing.",
        see="Where blue lies below orange, merging the annealing snapshots beats the newest of them; where blue lies "
        "below the dashed line, it beats the end of annealing before annealing has ended.",
        lead=rows[0],
    )
