"""B4: fine-tuning from the last snapshot and from the merge, against fine-tuning from the annealed end."""

from __future__ import annotations

import style
from drawing.captions import BITS, items_text, model_text, pma_text, runs_text
from drawing.description import Figure, Panel, figure
from drawing.numbers import mean_points, of_every_seed
from drawing.parts import ZERO
from drawing.scores import scores
from records import Study
from verdicts.evidence.tuned import tuned_over_annealed

_STARTS = {"sft_baseline": "last snapshot", "sft_pma": "merge"}


def describe(study: Study) -> Figure:
    """What two starts save over the annealed one, after fine-tuning."""
    numbers = of_every_seed(study, "tuned_after_annealing", tuned_over_annealed, "tasks", runs=list(_STARTS))
    points = mean_points(numbers, range(len(_STARTS)), "", style.BLUE, 0.4, dash="", marker="s")
    look = {"levels": (ZERO,), "xticks": dict(enumerate(_STARTS.values()))}
    panel = Panel("right answers", "fine-tuned from", style.METRICS["bits_per_byte"].gain, (points,), **look)
    table = scores(study, "tuned_after_annealing")
    seeds = {seed for values in table["values"] for seed in values}
    return figure(
        "Fine-tuning from a run that was not annealed, over fine-tuning from the annealed end",
        [[panel]],
        (5, 3.8),
        model_text(study),
        pma_text([]),
        "All three starts stand at the same tokens and are fine-tuned in the same way; the gain is the mean over the "
        f"six columns of Table 1: {BITS}.",
        f"{items_text(study, table)} {runs_text(seeds)}",
        legend=False,
        see="Above zero, a model is better fine-tuned if it was not annealed before.",
    )
