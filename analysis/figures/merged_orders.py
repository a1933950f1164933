"""B5: three decays with different orders of the data, merged."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import BITS, HELDOUT, model_text, scores_text
from drawing.description import Figure, Panel, figure
from drawing.numbers import MEASURES, mean_points, of_every_seed
from drawing.parts import ZERO
from drawing.scores import scores
from records import Study
from verdicts.evidence.beyond import merged_orders

_OVER = {"mean": "their mean score", "best": "the best of them"}


def describe(study: Study) -> Figure:
    """What the merge of three ends saves over their mean score, and over the best of them."""
    panels = []
    for measure, name in MEASURES.items():
        columns = [of_every_seed(study, "merged_orders", merged_orders, measure, over=over) for over in _OVER]
        points = mean_points(pd.concat(columns, axis=1), range(2), "", style.BLUE, 0.4, dash="", marker="s")
        look = {"levels": (ZERO,), "xticks": dict(enumerate(_OVER.values()))}
        panels.append(
            Panel(name, "merge of three decays, over", style.METRICS["bits_per_byte"].gain, (points,), **look)
        )
    return figure(
        "The mean of three decays that differ in the order of their data",
        [panels],
        (9, 3.8),
        model_text(study),
        "Three forks of the main run with its optimizer state, annealed over as many tokens along the same "
        "cosine, each with the data in another order. Merged: the unweighted mean of the three ends.",
        f"{HELDOUT} Axes: {BITS}.",
        scores_text(study, scores(study, "merged_orders")),
        legend=False,
        see="Above zero on the right, three decays merged are better than the best of them alone.",
        lead=panels[:1],
    )
