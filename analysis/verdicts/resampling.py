"""Bootstrap resamples that are the same numbers each time, and what is read off them.

A statistic is an array of 1 + draws numbers: first its value on the data, then on every resample. Functions of such
arrays are statistics again, so that differences, trends, spreads and best choices need no code of their own here
(scipy.stats.bootstrap draws each comparison anew and knows neither seeds above items nor what two comparisons share).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

Statistic = NDArray[np.float64]
_DIGITS = 9  # below these, differences are rounding: equal scores must tie on every machine


def _rng(seed: int, key: str) -> np.random.Generator:
    # By key, not by order of calls: what is resampled for one claim does not hang on which others are run.
    return np.random.default_rng([seed, zlib.crc32(key.encode())])


def weights(count: int, draws: int, seed: int, key: str) -> Statistic:
    """(1 + draws, count): how much each of `count` units counts, rows summing to 1; the first row is uniform."""
    drawn = _rng(seed, key).multinomial(count, np.full(count, 1 / count), size=draws) / count
    return np.vstack([np.full(count, 1 / count), drawn])


def over_blocks(of: Callable[[NDArray[np.int64]], Statistic], steps: int, draws: int, seed: int, key: str) -> Statistic:
    """A statistic of a curve of `steps` under moving-block resamples (Kuensch 1989), blocks of steps^(1/3).

    `of` takes indices (1 + draws, steps), whose first row is the curve as it is. Few blocks understate the spread, so
    it is widened by sqrt(steps / (steps - block)) and by the t quantile of (blocks - 1) over the normal one: a window
    of 8 steps would else reject a true null in a fifth of cases.
    """
    block = max(1, round(steps ** (1 / 3)))
    starts = _rng(seed, key).integers(0, steps - block + 1, size=(draws, -(-steps // block)))
    drawn = (starts[:, :, None] + np.arange(block)).reshape(draws, -1)[:, :steps]
    values = of(np.vstack([np.arange(steps), drawn]))
    factor = np.sqrt(steps / (steps - block)) * t.ppf(0.975, max(1, steps / block - 1)) / norm.ppf(0.975)
    return values[0] + factor * (values - values[0])


def interval(statistic: Statistic, alpha: float) -> tuple[float, float]:
    """Percentile interval of level 1 - alpha."""
    low, high = np.quantile(statistic[1:], [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def p_value(statistic: Statistic) -> float:
    """Two-sided bootstrap p-value of 0: twice the smaller share of draws on either side (Efron and Tibshirani 1993,
    15.4), 1 added to count and draws so that it is never 0."""
    drawn = np.round(statistic[1:], _DIGITS)
    smaller = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(drawn) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given (Holm 1979); scipy has the false discovery rate only."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def trend(x: Sequence[float], y: Sequence[Statistic]) -> Statistic:
    """Change of y from the smallest to the largest x along a least-squares line."""
    centred = np.asarray(x, dtype=float) - np.mean(x)
    slope = np.tensordot(centred / (centred @ centred), np.stack(y), axes=1)
    return slope * (max(x) - min(x))
