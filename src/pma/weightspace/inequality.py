"""Eq. 15 of arXiv 2505.12082 as arithmetic on a k x k matrix of d_i'H d_j; see curvature.py for how that is measured.

Imports neither torch nor transformers, so that figures and claims can use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Matrix: TypeAlias = NDArray[np.float64]


def hessian_terms(terms: pd.DataFrame, window: Sequence[int] | None = None) -> Matrix:
    """The matrix of d_i'H d_j (k, k), nats a token, from the rows of `curvature.measure` for one reference.

    Args:
        window: tokens of the snapshots to take, in this order; None takes all, oldest first.
    """
    matrix = terms[terms["term"] == "hessian"].pivot(index="i", columns="j", values="value")
    return matrix.to_numpy() if window is None else matrix.loc[list(window), list(window)].to_numpy()


def sides(matrix: Matrix) -> tuple[float, float]:
    """Left and right side of Eq. 15: sum_{i != j} d_i'H d_j, and (k - 1) sum_i d_i'H d_i."""
    diagonal = float(matrix.trace())
    return float(matrix.sum()) - diagonal, (len(matrix) - 1) * diagonal


def predicted_gain(matrix: Matrix) -> float:
    """What the second-order expansion says averaging saves: (right - left) / (2 k^2), nats a token."""
    cross, bound = sides(matrix)
    return (bound - cross) / (2 * len(matrix) ** 2)


def measured_gain(losses: pd.DataFrame, window: Sequence[int]) -> float:
    """Mean loss of a window's snapshots minus that of their mean, nats a token, from `curvature.measure`'s losses."""
    singles = losses[losses["what"] == "snapshot"].set_index("tokens")["value"].loc[list(window)]
    merged = losses[(losses["what"] == "merged") & (losses["n"] == len(window)) & (losses["tokens"] == max(window))]
    merged = merged[merged["interval"] == abs(window[1] - window[0])]
    return float(singles.mean() - merged["value"].iloc[0])


def windows(losses: pd.DataFrame) -> list[list[int]]:
    """The windows whose means were measured, each as the tokens of its snapshots, newest first."""
    merged = losses[losses["what"] == "merged"]
    return [
        [tokens - i * interval for i in range(n)]
        for n, interval, tokens in merged[["n", "interval", "tokens"]].itertuples(index=False)
    ]


def inequality(terms: pd.DataFrame, losses: pd.DataFrame, window: Sequence[int]) -> dict[str, float]:
    """Eq. 15 and what it predicts for one window, from the results of `curvature.measure`.

    Returns:
        cross, bound: see `sides`. predicted_gain, measured_gain: see there.
        negative_curvature: the share of negative eigenvalues, by size, of e_i'H e_j (e_i = theta_i - their mean); 0,
        up to rounding, when H is positive semi-definite along the snapshots, so that the inequality cannot but hold.
    """
    matrix = hessian_terms(terms, window)
    cross, bound = sides(matrix)
    centring = np.eye(len(matrix)) - 1 / len(matrix)
    eigenvalues = np.linalg.eigvalsh(centring @ (matrix + matrix.T) / 2 @ centring)
    return {
        "cross": cross,
        "bound": bound,
        "predicted_gain": predicted_gain(matrix),
        "measured_gain": measured_gain(losses, window),
        "negative_curvature": float(np.abs(eigenvalues[eigenvalues < 0]).sum() / np.abs(eigenvalues).sum()),
    }
