"""What the Gram matrix of a window says: distances, directions, snapshots that stand apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

FEWEST = 4  # snapshots that an outlier can be told of
OUTLIER = 5.0  # times the median distance to the window's mean; the ends of a straight trajectory are at 2
_DIGITS = 6


def _rounded(value: Any) -> Any:
    if isinstance(value, (list, np.ndarray)):
        return [_rounded(v) for v in value]
    return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None


def _norms(gram: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """L2 norms of sum_i c_i x_i for each row c of `coefficients`; `gram` is of x_0 and of x_i - x_0."""
    c = np.array(coefficients, dtype=float)
    c[:, 0] = coefficients.sum(axis=1)
    return np.sqrt(np.maximum(np.einsum("ki,ij,kj->k", c, gram, c), 0))


def distances_to_mean(gram: np.ndarray) -> np.ndarray:
    """(snapshots,): L2 distance of each snapshot to the plain mean of all."""
    n = len(gram)
    return _norms(gram, np.eye(n) - 1 / n)


def outliers(gram: np.ndarray) -> dict[int, float]:
    """Snapshots far from the window's mean, with how many times the median distance of the others they are away.

    The mean and the median are taken without the snapshot in question, so that one wild snapshot does not hide itself.
    A snapshot whose distances are too large for the sums of a Gram matrix is infinitely far away.

    Args:
        gram: (snapshots, snapshots), of x_0 and of x_i - x_0.
    """
    n = len(gram)
    if n < FEWEST:
        return {}
    if not np.isfinite(gram).all():
        wild = [i for i in range(1, n) if not np.isfinite(gram[i, i])]
        return dict.fromkeys([0] if len(wild) == n - 1 or not wild else wild, float("inf"))
    far = {}
    for i in range(n):
        others = [j for j in range(n) if j != i]
        mean = np.zeros(n)
        mean[others] = 1 / (n - 1)
        away = _norms(gram, np.eye(n) - mean)
        usual = np.median(away[others])
        if away[i] > OUTLIER * usual:
            far[i] = float(away[i] / usual) if usual else float("inf")
    return far


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def update_cosines(gram: np.ndarray) -> list[float]:
    """Cosine between each update and the one before it.

    Args:
        gram: (snapshots, snapshots), of x_0 and of x_i - x_0.
    """
    unit = np.eye(len(gram))
    c = unit[1:] - unit[:-1]
    c[:, 0] = 0  # an update's coefficients sum to 0
    products = c @ gram @ c.T
    lengths = np.sqrt(np.maximum(products.diagonal(), 0))
    return [products[i, i + 1] / (lengths[i] * lengths[i + 1]) for i in range(len(c) - 1)]


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def diagnostics(grams: Mapping[str, np.ndarray], counts: Mapping[str, int]) -> dict[str, Any]:
    """Numbers that describe a window of snapshots, oldest first, JSON-ready, to 6 digits.

    Returns:
        norms: L2 norm of each snapshot's floating tensors.
        distances: L2 distance of each pair, (snapshots, snapshots).
        update_cosines: cosine between each update and the one before it.
        mean_norm_ratio: norm of the plain mean over norm of the newest.
        layer_variance: mean over snapshots and elements of the squared deviation from the mean, by layer.
    """
    gram = sum(grams.values())
    n = len(gram)
    unit = np.eye(n)
    pairs = (unit[:, None] - unit[None]).reshape(-1, n)
    norms = _norms(gram, unit)
    mean = _norms(gram, np.full((1, n), 1 / n))[0]
    variance = {k: (distances_to_mean(g) ** 2).sum() / n / counts[k] for k, g in sorted(grams.items()) if counts[k]}
    return {
        "norms": _rounded(norms),
        "distances": _rounded(_norms(gram, pairs).reshape(n, n)),
        "update_cosines": _rounded(update_cosines(gram)),
        "mean_norm_ratio": _rounded(mean / norms[-1]) if norms[-1] else None,
        "layer_variance": {k: _rounded(v) for k, v in variance.items()},
    }
