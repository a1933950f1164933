"""Names of tests in plain words: real sizes and what a run does, instead of the names of runs."""

from __future__ import annotations

import re
from collections.abc import Callable

from records import Study
from sizes import sizes

# What a name says that is no size of a model, the longer ones first.
_WORDS = (
    ("moe_main, Hessian at annealed_moe_main", "Hessian at annealing's end"),
    ("annealed_moe_main, Hessian at annealed_moe_main", "annealed snapshots, Hessian at annealing's end"),
    ("moe_main, Hessian at mean", "Hessian at the snapshots' mean"),
    ("continued_pma_half_end", "half the rate, higher end"),
    ("continued_pma_half", "half the rate"),
    ("continued_pma", "same rate"),
    ("baseline minus sft_pma_double after fine-tuning", "baseline minus merge, twice the rate"),
    ("baseline minus sft_pma_half after fine-tuning", "baseline minus merge, half the rate"),
    ("baseline minus sft_pma after fine-tuning", "baseline minus merge, same rate"),
    ("end of spike_pma, below the level before the collapse", "final loss of the restart, below the old level"),
    ("highest loss of spike_pma after the point of collapse, above the level", "highest loss of it, above that level"),
    ("end of spike_last, below the level before the collapse", "final loss without a merge, below the old level"),
    (
        "highest loss of spike_last after the point of collapse, above the level",
        "highest loss without a merge, above it",
    ),
    ("spike collapses", "The run collapses"),
    ("spike", "the run"),
    ("baseline over PMA-init", "baseline over merge"),
    ("PMA early against the end of annealing", "early merge against annealing's end"),
    ("PMA against", "merge against"),
    ("share of snapshots farther", "snapshots farther"),
    ("plane of principal", "principal plane"),
    ("plane of weights", "plane of two weights"),
    ("ema_0.1", "EMA(0.1)"),
    ("ema_0.2", "EMA(0.2)"),
    ("sma", "SMA"),
    ("wma", "WMA"),
)
Words = Callable[[str], str]  # a text in plain words

_COUNT = r"(?: \([\d.]+M\))?"  # of parameters, which the size's own name says


def plain_words(study: Study) -> Words:
    """A function that puts plain words for the names of runs and methods of one scale.

    `gain, moe_main (0.576M)` becomes `gain, 576k MoE`.
    """
    words = dict(_WORDS)
    words |= {run: size.name for size in sizes(study) for run in size.runs if run not in words}
    names = sorted(words, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b{_COUNT}")
    return lambda text: pattern.sub(lambda match: words[match[1]], text)
