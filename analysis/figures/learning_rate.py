"""The learning-rate study that the paper leaves open: the gain of merging against the peak learning rate."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import measure_text, model_text, scores_text, window_text
from drawing.description import Figure, Panel, figure
from drawing.numbers import settings_of
from drawing.parts import ZERO, gain_title, line, main_scores
from drawing.scores import counted_seeds, pick, scores
from formats import quantity, rate
from records import Study
from verdicts.evidence.gains import rates_that_train

SMALLEST = "dense_411m"


def _column(table: pd.DataFrame, task: str, metric: str, title: str) -> tuple[Panel, Panel]:
    """The scores of the last and the merged snapshots over the rate, and the gain."""
    values, gains = [], []
    points = sorted(table["tokens"].unique())
    looks = ({"dash": "--", "fill": "white"}, {"dash": "-"})
    for tokens, look in zip(points, looks, strict=True):
        here = {"tokens": tokens, "task": task, "metric": metric}
        last, merged = (pick(table, method=method, **here).sort_values("lr") for method in ("last", "sma"))
        after = f"after {quantity(tokens)} tokens"
        values.append(line(last, "lr", "value", f"last snapshot {after}", style.GREY, log=True, **look))
        values.append(line(merged, "lr", "value", f"PMA {after}", style.BLUE, log=True, **{"marker": "s", **look}))
        gains.append(line(merged, "lr", "gain", f"gain {after}", style.BLUE, log=True, **{"marker": "s", **look}))
    drawn, ticks = style.METRICS[metric], {float(lr): rate(lr) for lr in sorted(table["lr"].unique())}
    axis = {"xticks": ticks, "log_base": 10}
    return (
        Panel(title, "", drawn.label, tuple(values), **axis),
        Panel(gain_title(title), "peak learning rate (constant)", drawn.gain, tuple(gains), levels=(ZERO,), **axis),
    )


def describe(study: Study) -> Figure:
    """Scores of the last and the merged snapshots, and the gain; on held-out text and the average of the axes."""
    table = scores(study, "learning_rate")
    table["lr"] = table["run"].map({run: study.config(run)["schedule"]["peak_lr"] for run in table["run"].unique()})
    heldout, average = (_column(table, *score) for score in main_scores(study))
    within = settings_of("C17", "a")["within"]
    counted = counted_seeds(seed for seeds in table["values"] for seed in seeds)
    trained = [study.config(run)["schedule"]["peak_lr"] for run in rates_that_train(study, counted, within)]
    return figure(
        "Gain of merging against the learning rate",
        [[heldout[0], average[0]], [heldout[1], average[1]]],
        (9, 6),
        model_text(study, SMALLEST),
        f"It is trained on the same tokens at each rate. Its loss at the end lies within {within:g} nats of the best "
        f"rate's at {', '.join(map(rate, sorted(trained)))}.",
        window_text(table),
        measure_text(study),
        scores_text(study, table),
        "The upper axes do not start at 0. The paper believes that a higher rate gains more, and measures none of it.",
        see="A gain that rises to the right says that merging helps more at a higher learning rate; solid is the later "
        "point of training.",
        lead=heldout,
    )
