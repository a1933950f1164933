"""B9: the gain of a merge at four batch sizes, and what curvature predicts."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import BITS, HELDOUT, model_text, pma_text, scores_text
from drawing.description import Figure, Panel, figure
from drawing.numbers import MEASURES, mean_points, of_every_seed
from drawing.parts import ZERO
from drawing.scores import scores
from formats import quantity
from records import Study
from verdicts.evidence.beyond import BATCHES, gain_by_batch, gains_of_runs

_N = 5


def describe(study: Study) -> Figure:
    """The gain over the batch size, on text and axes; the predicted one beside the measured one in nats."""
    batch = study.config("dense_411m")["scale"]["batch_tokens"]
    sizes = [batch * factor for factor in BATCHES.values()]
    look = {"levels": (ZERO,), "xticks": {size: quantity(size) for size in sizes}, "log_base": 2}
    panels = []
    for measure, name in MEASURES.items():
        numbers = of_every_seed(study, "batch_size", gain_by_batch, measure)
        points = mean_points(numbers, sizes, "", style.BLUE, 0.05, log=True)
        panels.append(Panel(name, "batch, tokens", style.METRICS["bits_per_byte"].gain, (points,), **look))
    seeds = sorted(study.measurement("batch_size", "curvature_losses")["seed"].unique())
    gains = {seed: gains_of_runs(study, seed, _N, "batch_size") for seed in seeds}
    lines = [
        mean_points(
            pd.DataFrame({s: of_seed[i] for s, of_seed in gains.items()}).T, sizes, label, color, 0.05, log=True
        )
        for i, (label, color) in enumerate((("predicted by curvature", style.GREY), ("measured", style.BLUE)))
    ]
    panels.append(
        Panel(
            "held-out loss, as predicted", "batch, tokens", "gain (nats a token)", tuple(lines), legend="best", **look
        )
    )
    interval = 2 * study.config("dense_411m")["scale"]["merge_interval"]
    return figure(
        "The gain of a merge against the batch size",
        [panels],
        (12, 4),
        model_text(study, "dense_411m"),
        pma_text([(_N, interval)]),
        "Runs of the same length in tokens, each batch at its own learning rate. Predicted: by the second-order "
        "expansion (Eq. 15), with the Hessian of held-out cross-entropy at the window's mean; the gain measured beside "
        "it is of the same text.",
        f"{HELDOUT} Axes: {BITS}.",
        scores_text(study, scores(study, "batch_size")),
        see="Where the lines fall to the right, merging gives less the larger the batch, as if it were one itself.",
        lead=panels[:1],
    )
