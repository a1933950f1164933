"""B6: the gain of a merge all along the main run."""

from __future__ import annotations

import style
from drawing.captions import measure_text, model_text, scores_text, window_text
from drawing.description import Figure, Panel, figure
from drawing.parts import ZERO, gain_title, line, main_scores
from drawing.scores import pick, scores
from records import Study


def describe(study: Study) -> Figure:
    """The gain over tokens, on held-out text and on the axes."""
    table = scores(study, "steady_gain")
    panels = []
    for task, metric, name in main_scores(study):
        merged = pick(table, task=task, metric=metric, method="sma")
        gain = line(merged, "tokens", "gain", "", style.BLUE)
        look = {"levels": (ZERO,), "tokens": True}
        panels.append(Panel(gain_title(name), "training tokens", style.METRICS[metric].gain, (gain,), **look))
    return figure(
        "The gain of a merge along a run at constant rate",
        [panels],
        (9, 3.8),
        model_text(study),
        window_text(table),
        "The gain is over the last snapshot at the same tokens.",
        measure_text(study),
        scores_text(study, table),
        legend=False,
        see="A level line means that merging always saves the same; a rising one, that it pays more later.",
        lead=panels[:1],
    )
