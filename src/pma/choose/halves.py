"""Scores on two halves of the documents: one half chooses, the other says what was gained.

Documents come in axes: the tasks that were asked for, or one text. A score is the mean over axes of the mean over the
documents of each.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from statistics import NormalDist

FEWEST = 10  # documents of an axis
_Z = NormalDist().inv_cdf(0.975)

Values = Sequence[Sequence[float]]  # of each document, by axis


def score(values: Values) -> float:
    """The mean over axes of the mean over documents."""
    return statistics.fmean(statistics.fmean(axis) for axis in values)


def paired_gain(values: Values, over: Values, sizes: Values, higher: bool) -> tuple[float, float]:
    """How much better the first is than the second, and half the 95 % interval of that.

    The two are compared document by document (ratio estimator, Cochran, Sampling Techniques, 6.4).

    Args:
        sizes: bytes of each document where long ones weigh more, else 1.
        higher: whether a higher value is better.
    """
    gains, variances = [], []
    for a, b, size in zip(values, over, sizes, strict=True):
        better = [(x - y) if higher else (y - x) for x, y in zip(a, b, strict=True)]
        n, mean_size = len(size), statistics.fmean(size)
        gain = statistics.fmean(better)
        squares = sum((d - gain * s / mean_size) ** 2 for d, s in zip(better, size, strict=True))
        gains.append(gain)
        variances.append(squares / (n - 1) / n)
    return statistics.fmean(gains), _Z * math.sqrt(sum(variances)) / len(gains)
