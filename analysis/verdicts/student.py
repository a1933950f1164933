"""Student's t over seeds: mean, intervals and p-values of one number that each run gives, and Holm's correction.

With n numbers x of mean m and standard deviation s (divisor n - 1), T = m / (s / sqrt(n)) follows Student's t of n - 1
degrees of freedom where the true mean is 0 (Student 1908). Below two numbers there is no scatter: all but n and mean
are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

_DIGITS = 9  # below these, differences are rounding: equal scores must tie on every machine


@dataclass(frozen=True)
class Student:
    """What the numbers of n seeds say: their mean, and how sure it is."""

    n: int
    mean: float
    sd: float  # between seeds, divisor n - 1

    @classmethod
    def of(cls, values: ArrayLike) -> Student:
        """Of one number a seed, rounded to 9 digits; n = 0 has no mean either."""
        x = np.asarray(values, dtype=float).round(_DIGITS)
        if len(x) == 0:
            return cls(0, math.nan, math.nan)
        # Numbers that are all the same have no scatter, however their mean is rounded.
        sd = math.nan if len(x) == 1 else 0.0 if np.all(x == x[0]) else float(x.std(ddof=1))
        return cls(len(x), float(x.mean()), sd)

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """Interval of the mean: m -+ t(1 - alpha/2; n - 1) s / sqrt(n). It covers the true mean with 1 - alpha."""
        return self._around(alpha, 1 / self.n if self.n else math.nan)

    def prediction(self, alpha: float = 0.05, seeds: int = 1) -> tuple[float, float]:
        """Interval of one new seed, or of the mean of some: m -+ t(1 - alpha/2; n - 1) s sqrt(1/seeds + 1/n).

        A run with a seed not among the n falls into it with 1 - alpha (Hahn and Meeker 1991, section 4.2).
        """
        return self._around(alpha, 1 / seeds + 1 / self.n if self.n else math.nan)

    def _around(self, alpha: float, variance: float) -> tuple[float, float]:
        half = float(t.ppf(1 - alpha / 2, self.n - 1)) * self.sd * math.sqrt(variance) if self.n > 1 else math.nan
        return self.mean - half, self.mean + half

    @property
    def p_above(self) -> float:
        """One-sided p-value of "the true mean is above 0": P(T' >= T). Without scatter 0 for a mean above 0, else 1."""
        return self._p(self.mean)

    @property
    def p_below(self) -> float:
        """One-sided p-value of "the true mean is below 0": P(T' <= T). Without scatter 0 for a mean below 0, else 1."""
        return self._p(-self.mean)

    def _p(self, mean: float) -> float:
        if self.n < 2:
            return math.nan
        if self.sd == 0:
            return 0.0 if mean > 0 else 1.0
        return float(t.sf(mean / (self.sd / math.sqrt(self.n)), self.n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given: the k-th smallest of m times m - k + 1, never falling, at most 1.

    Holm (1979): with them, the chance that any of m true nulls is rejected stays below the level. scipy has the false
    discovery rate only.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()
