"""Weights of the snapshots in a merge, as pure functions. Oldest first; formulas of arXiv 2505.12082, section 3."""

from __future__ import annotations

from collections.abc import Sequence

METHODS = ("sma", "wma", "ema")


def sma(n: int) -> list[float]:
    """Simple moving average: 1 / n each."""
    return [1.0 / n] * n


def wma(n: int) -> list[float]:
    """Weighted moving average: i / (1 + ... + n) for the i-th oldest."""
    return [2.0 * i / (n * (n + 1)) for i in range(1, n + 1)]


def ema(n: int, alpha: float) -> list[float]:
    """Exponential moving average by the paper's recursion avg_1 = M_1, avg_i = alpha M_i + (1 - alpha) avg_{i-1}.

    Unrolled: (1 - alpha)^(n - 1) for the oldest, alpha (1 - alpha)^(n - i) for the i-th; the sum is 1.

    Raises:
        ValueError: when alpha is outside (0, 1].
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha={alpha}: give a number above 0 and at most 1; the paper uses 0.1 and 0.2")
    return [(1 - alpha) ** (n - 1)] + [alpha * (1 - alpha) ** (n - i) for i in range(2, n + 1)]


def explicit(weights: Sequence[float], n: int) -> list[float]:
    """Weights as given, for `n` snapshots.

    Raises:
        ValueError: when their number is not `n`.
    """
    if len(weights) != n:
        raise ValueError(f"weights: {len(weights)} given for {n} snapshots; give one for each, oldest first")
    return [float(weight) for weight in weights]


def method_weights(method: str, n: int, alpha: float | None = None) -> list[float]:
    """Weights of a named method for `n` snapshots.

    Raises:
        ValueError: for an unknown method, n below 1, or an alpha that is missing or belongs to no EMA.
    """
    if n < 1:
        raise ValueError(f"n={n}: give at least 1 snapshot")
    if (alpha is not None) != (method == "ema"):
        raise ValueError(f"method={method} alpha={alpha}: alpha goes with method=ema, and only with it (alpha=0.2)")
    if method == "ema":
        return ema(n, alpha)
    if method in METHODS:
        return {"sma": sma, "wma": wma}[method](n)
    raise ValueError(f"method={method}: choose one of {', '.join(METHODS)}")
