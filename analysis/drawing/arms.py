"""Arms of one comparison at equal tokens: what each saves over the constant run's last snapshot (B1, B2)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import style
from formats import quantity
from records import Study
from verdicts.evidence.beyond import BUDGETS, arm_over

from drawing.captions import BITS, HELDOUT, model_text, pma_text, scores_text
from drawing.description import Figure, Panel, figure
from drawing.numbers import MEASURES, mean_points, of_every_seed
from drawing.parts import ZERO
from drawing.scores import scores

_SPREAD = 0.05  # of the dots at a place, natural logarithm of tokens


def describe_arms(
    study: Study, experiment: str, title: str, arms: Mapping[str, tuple[str, str]], *sentences: str, see: str
) -> Figure:
    """A panel for held-out text and one for the axes, a line an arm over the budgets.

    Args:
        arms: label and colour by the name that `arm_score` knows.
        sentences: of the caption, after the model's.
    """
    unit = study.config("moe_main")["scale"]["merge_interval"]
    tokens = [budget * unit for budget in BUDGETS]
    panels = []
    for measure, name in MEASURES.items():
        lines = []
        for arm, (label, color) in arms.items():
            evidence = partial(arm_over, experiment=experiment, arm=arm, other="last", at=BUDGETS)
            numbers = of_every_seed(study, experiment, evidence, measure)
            lines.append(mean_points(numbers, tokens, label, color, _SPREAD, log=True))
        ticks = {place: quantity(place) for place in tokens}
        look = {"levels": (ZERO,), "xticks": ticks, "log_base": 2}
        panels.append(Panel(name, "training tokens", style.METRICS["bits_per_byte"].gain, tuple(lines), **look))
    return figure(
        title,
        [panels],
        (9, 4),
        model_text(study),
        pma_text([]),
        *sentences,
        "A gain is over the last snapshot of the constant run at the same tokens.",
        f"{HELDOUT} Axes: {BITS}.",
        scores_text(study, scores(study, experiment)),
        see=see,
        lead=panels[:1],
    )
