"""How a number changes over the sizes of a family, or over rates: slope times range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from records import Study

FAMILIES = {
    "moe": ("moe_main", "moe_3b_30b", "moe_10b_100b", "moe_20b_200b"),
    "dense": ("dense_411m", "dense_2b", "dense_8b", "dense_70b"),
}
LADDER_END = 50  # V: where the sizes are compared; every ladder run is at least as long


def change(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of y over x, times the range of x: in units of y, from the smallest x to the largest."""
    return float(np.polyfit(x, y, 1)[0] * np.ptp(x))


def parameters(study: Study, run: str, seed: int) -> int:
    """Total parameters of a run's model, from its manifest.

    Raises:
        records.Missing: when there is none.
    """
    return int(study.manifest(f"{run}-seed{seed}")["parameters"]["total"])


def log_parameters(study: Study, kind: str, seed: int) -> list[float]:
    """Natural logarithms of the total parameters of a family, in the order of FAMILIES."""
    return [float(np.log(parameters(study, run, seed))) for run in FAMILIES[kind]]
