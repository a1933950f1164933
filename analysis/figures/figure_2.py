"""Figure 2: PMA over the snapshots of an annealing run against the annealing snapshots themselves, three MoE sizes."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import measure_text, scores_text, window_text
from drawing.description import Figure, Level, Panel, figure
from drawing.parts import line
from drawing.scores import measure, pick, scores
from records import Study
from sizes import Size, by_size


def _panel(table: pd.DataFrame, size: Size, task: str, metric: str, name: str) -> Panel:
    here = {"run": size.runs[0], "task": task, "metric": metric}
    annealing, merged = (pick(table, method=method, **here) for method in ("last", "sma"))
    # The error of a comparison is the paired one, so it stands at the merge.
    paired = merged.assign(error=merged["gain_error"])
    end = float(annealing["value"].iloc[-1])
    return Panel(
        f"{size.label}\n{name}",
        "training tokens",
        style.METRICS[metric].label,
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
    models = by_size(study, table["run"].unique())
    rows = []
    tasks = (("average", measure(study), "average of the four axes"), ("heldout", "bits_per_byte", "held-out text"))
    for task, metric, name in tasks:
        rows.append([_panel(table, size, task, metric, name) for size in models.values()])
    return figure(
        "Figure 2: PMA during annealing",
        rows,
        (9, 5.4),
        "Annealing: the learning rate falls to 0 along a cosine.",
        window_text(table),
        "The windows of the first points reach back before annealing began.",
        measure_text(study),
        scores_text(study, table, "drawn at PMA, that of its paired difference to the annealing snapshot"),
        "Axes do not start at 0. The paper (1.3B/13B, 10B/100B, 15B/150B): early in annealing PMA is about as good as "
        "the end of annealing.",
        see="Where blue lies below orange, merging the annealing snapshots beats the newest of them; where blue lies "
        "below the dashed line, it beats the end of annealing before annealing has ended.",
        lead=rows[0],
    )
