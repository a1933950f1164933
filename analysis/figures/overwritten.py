"""B8: live weights overwritten by their merge, against merging aside."""

from __future__ import annotations

import style
from drawing.captions import BITS, HELDOUT, model_text, pma_text, scores_text
from drawing.description import Figure, Panel, figure
from drawing.numbers import MEASURES, mean_points, of_every_seed
from drawing.parts import ZERO
from drawing.scores import scores
from formats import quantity
from records import Study
from verdicts.evidence.beyond import gain_aside_by_point, overwritten

_POINTS = (50, 100, 150, 200)  # V


def describe(study: Study) -> Figure:
    """What both ways save over the last snapshot of the run that is left alone, along the run."""
    unit = study.config("moe_main")["scale"]["merge_interval"]
    tokens = [point * unit for point in _POINTS]
    panels = []
    for measure, name in MEASURES.items():
        aside = of_every_seed(study, "overwritten", gain_aside_by_point, measure, at=_POINTS)
        live = of_every_seed(study, "overwritten", overwritten, measure, other="last", at=_POINTS)
        lines = (
            mean_points(aside, tokens, "merged aside", style.BLUE, 0.1 * unit * 10),
            mean_points(live, tokens, "live weights overwritten every 10 V", style.ORANGE, 0.1 * unit * 10),
        )
        look = {"levels": (ZERO,), "xticks": {place: quantity(place) for place in tokens}}
        panels.append(Panel(name, "training tokens", style.METRICS["bits_per_byte"].gain, lines, **look))
    return figure(
        "Overwriting the live weights with their merge, against merging aside",
        [panels],
        (9, 4),
        model_text(study),
        pma_text([(10, unit)]),
        "Overwritten: the run itself goes on from the merge, with the optimizer's state as it was. A gain is over the "
        "last snapshot, at the same tokens, of the run that is left alone.",
        f"{HELDOUT} Axes: {BITS}.",
        scores_text(study, scores(study, "overwritten")),
        see="Where orange lies below blue, a run loses by going on from its own merge.",
        lead=panels[:1],
    )
