"""B3: merging inside decays of three lengths."""

from __future__ import annotations

import style
from drawing.captions import BITS, HELDOUT, model_text, pma_text, scores_text
from drawing.description import Figure, Panel, figure
from drawing.numbers import MEASURES, mean_points, of_every_seed
from drawing.parts import ZERO
from drawing.scores import scores
from formats import quantity
from records import Study
from verdicts.evidence.beyond import DECAYS, gain_inside_decay

_SPREAD = 0.12  # of the dots at a place, natural logarithm of tokens


def describe(study: Study) -> Figure:
    """What merging inside a decay saves over its end, by the length of the decay."""
    unit = study.config("moe_main")["scale"]["merge_interval"]
    lengths = [length * unit for length in DECAYS]
    panels = []
    for measure, name in MEASURES.items():
        numbers = of_every_seed(study, "averaged_decay", gain_inside_decay, measure)
        points = mean_points(numbers, lengths, "", style.BLUE, _SPREAD, log=True)
        look = {"levels": (ZERO,), "xticks": {at: quantity(at) for at in lengths}, "log_base": 2}
        gain = style.METRICS["bits_per_byte"].gain
        panels.append(Panel(name, "length of the decay, tokens", gain, (points,), **look))
    return figure(
        "Merging inside the decay, for decays of three lengths",
        [panels],
        (9, 3.8),
        model_text(study),
        pma_text([]),
        "Forks of the main run at five positions, annealed to zero along a cosine. The gain is that of the merge of "
        "one part of the decay's snapshots over the decay's end, in the mean over the forks.",
        f"{HELDOUT} Axes: {BITS}.",
        scores_text(study, scores(study, "averaged_decay")),
        legend=False,
        see="Above zero, merging adds to annealing; a falling line says that it adds less to a longer one.",
        lead=panels[:1],
    )
