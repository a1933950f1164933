"""B1: constant rate with merging, against a cosine and a decay made for each budget."""

from __future__ import annotations

import style
from drawing.arms import describe_arms
from drawing.description import Figure
from records import Study

ARMS = {
    "sma": ("constant rate, merged", style.BLUE),
    "cosine_schedule": ("cosine made for the budget", style.ORANGE),
    "annealed": ("constant rate, annealed for the budget", style.GREEN),
}


def describe(study: Study) -> Figure:
    """Three arms over four budgets."""
    return describe_arms(
        study,
        "anytime",
        "Constant rate with merging, against a cosine made for each budget",
        ARMS,
        "One constant run serves all budgets; each cosine is trained from scratch, and each decay forked off the "
        "constant run, to end at its budget. Settings: the best of those tried on another seed, by held-out text.",
        see="Where blue lies on orange, one run at constant rate is worth as many cosines as there are budgets.",
    )
