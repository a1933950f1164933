"""Weights of the snapshots in a merge, as pure functions, oldest first.

sma, wma, ema: arXiv 2505.12082, section 3. Decay-shaped weights and the decay that weights amount to: WSM, arXiv
2507.17634: with w_j the factor on the updates between snapshots j - 1 and j (j = 1 .. k), the merge's weights are
c_0 = 1 - w_1, c_j = w_j - w_{j+1}, c_k = w_k, and back w_j = c_j + ... + c_k. Exact on the recorded updates: what
training would have done after smaller steps it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

# Factor on the learning rate at the fraction x of the decay, from 1 at 0 to 0 at 1.
SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "1-sqrt": lambda x: 1 - math.sqrt(x),
}
METHODS = ("sma", "wma", "ema", *SHAPES)


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
        ValueError: when they are not `n` finite numbers.
    """
    if len(weights) != n:
        raise ValueError(f"weights: {len(weights)} given for {n} snapshots; give one for each, oldest first")
    if not all(math.isfinite(weight) for weight in weights):
        raise ValueError(f"weights {list(weights)}: not all are finite; give a number for each snapshot")
    return [float(weight) for weight in weights]


def decay(shape: Callable[[float], float], tokens: Sequence[float]) -> list[float]:
    """Weights that amount to a learning-rate decay over the window (WSM, arXiv 2507.17634).

    Args:
        shape: factor on the learning rate at the fraction x of the decay, falling from 1 at x = 0 to 0 at x = 1.
        tokens: position of each snapshot, ascending, evenly spaced or not. The decay begins at the first one and would
            end one mean interval after the last, so that an even spacing gives linear decay the weights of SMA.

    Raises:
        ValueError: when the positions are not finite or do not ascend, or the shape rises.
    """
    if not all(math.isfinite(position) for position in tokens):
        raise ValueError(f"positions {list(tokens)}: not all are finite; give tokens or steps in ascending order")
    steps = [b - a for a, b in zip(tokens, tokens[1:], strict=False)]
    if any(step <= 0 for step in steps):
        raise ValueError(f"positions {list(tokens)}: give them in ascending order, each once")
    span = sum(steps) * len(tokens) / max(1, len(steps))
    factors = [1.0] + [float(shape((t - tokens[0]) / span)) for t in tokens[1:]]
    if any(b > a + 1e-12 for a, b in zip(factors, factors[1:], strict=False)):
        raise ValueError("this schedule rises within the window; only a falling one is a weighted mean")
    return [a - b for a, b in zip(factors, [*factors[1:], 0.0], strict=True)]


def equivalent_decay(weights: Sequence[float]) -> list[float]:
    """Factor on the learning rate between each snapshot and the next one that a merge amounts to (WSM).

    Of `len(weights) - 1` intervals, oldest first; in parts of the sum of all weights.
    """
    return [sum(weights[j:]) / sum(weights) for j in range(1, len(weights))]


def method_weights(
    method: str, n: int, alpha: float | None = None, tokens: Sequence[float] | None = None
) -> list[float]:
    """Weights of a named method for `n` snapshots.

    Args:
        tokens: positions of the snapshots, for the shapes of a decay; null: evenly spaced.

    Raises:
        ValueError: for an unknown method, n below 1, or an alpha that is missing or belongs to no EMA.
    """
    if n < 1:
        raise ValueError(f"n={n}: give at least 1 snapshot")
    if (alpha is not None) != (method == "ema"):
        raise ValueError(f"method={method} alpha={alpha}: alpha goes with method=ema, and only with it (alpha=0.2)")
    if alpha is not None:
        return ema(n, alpha)
    if method in SHAPES:
        return decay(SHAPES[method], range(n) if tokens is None else tokens)
    if method in METHODS:
        return {"sma": sma, "wma": wma}[method](n)
    raise ValueError(f"method={method}: choose one of {', '.join(METHODS)}")
