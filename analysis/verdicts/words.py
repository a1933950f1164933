"""Names of tests in plain words: real sizes and what a run does, instead of the names of runs."""

from __future__ import annotations

import re
from collections.abc import Callable

from records import Study
from sizes import sizes

# What a name says that is no size of a model, the longer ones first.
_WORDS = (
    ("moe_main, Hessian at annealed_moe_main", "snapshots at constant rate, Hessian at the end of annealing"),
    ("annealed_moe_main, Hessian at annealed_moe_main", "annealed snapshots, Hessian at the end of annealing"),
    ("moe_main, Hessian at mean", "snapshots at constant rate, Hessian at their mean"),
    ("continued_pma_half_end", "half the rate, higher end"),
    ("continued_pma_half", "half the rate"),
    ("continued_pma", "same rate"),
    ("sft_pma_double", "a merge at twice the rate"),
    ("sft_pma_half", "a merge at half the rate"),
    ("sft_pma", "a merge at the same rate"),
    ("spike_pma", "the restart from the mean"),
    ("spike_last", "the restart from the last good snapshot"),
    ("spike collapses", "The run collapses"),
    ("spike", "the run"),
    ("baseline over PMA-init", "baseline over the start from a merge"),
    ("PMA early against", "merge early in annealing against"),
    ("PMA against", "merge against"),
    ("plane of principal", "plane of principal directions"),
    ("plane of weights", "plane of two weights"),
    ("ema_0.1", "EMA(0.1)"),
    ("ema_0.2", "EMA(0.2)"),
    ("sma", "SMA"),
    ("wma", "WMA"),
)
_COUNT = r"(?: \([\d.]+M\))?"  # of parameters, which the size's own name says


def plain_words(study: Study) -> Callable[[str], str]:
    """A function that puts plain words for the names of runs and methods of one scale.

    `gain, moe_main (0.576M)` becomes `gain, 576k MoE`.
    """
    words = dict(_WORDS)
    words |= {run: size.name for size in sizes(study) for run in size.runs if run not in words}
    names = sorted(words, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b{_COUNT}")
    return lambda text: pattern.sub(lambda match: words[match[1]], text)
