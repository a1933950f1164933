"""B2: averages of one run at equal tokens, schedule-free AdamW and annealing."""

from __future__ import annotations

import style
from drawing.arms import describe_arms
from drawing.description import Figure
from records import Study

ARMS = {
    "sma": ("equal weights (SMA, LAWA)", style.BLUE),
    "cosine": ("weights of a cosine decay", style.SKY),
    "1-sqrt": ("weights of a 1-sqrt decay (WSM)", style.PINK),
    "online_ema": ("average of every step (EMA)", style.RED),
    "schedule_free": ("schedule-free AdamW", style.ORANGE),
    "annealed": ("annealed", style.GREEN),
}


def describe(study: Study) -> Figure:
    """Six arms over four budgets."""
    return describe_arms(
        study,
        "averages",
        "Averages at equal tokens, schedule-free AdamW and annealing",
        ARMS,
        "Each arm's setting (window, alpha, rate, length of the decay) is the best of four on another seed, by "
        "held-out text.",
        see="The higher a line, the better the model at the same number of tokens.",
    )
