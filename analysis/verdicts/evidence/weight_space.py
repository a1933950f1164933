"""What measurements in weight space say: distances to an optimum (C15), Equation 15 and its prediction (C16).

Every function returns a row a seed; positive favours the claim. Losses are held-out cross-entropy in nats a token; the
measure of a score plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from records import Missing, Study

from pma.weightspace.inequality import inequality, windows
from verdicts.evidence.scores import by_seed

_RUN = "moe_main"
_LOSS = "loss"  # src/pma/weightspace/landscape.py: the metric of lines and optimum
_SLOPE_LEAST = 0.01  # a slope at or below it has no useful logarithm, and lies far outside any margin


def _of_seed(study: Study, experiment: str, name: str, seed: int, run: str = _RUN) -> pd.DataFrame:
    """Rows of a measurement's table for one seed of a run.

    Raises:
        Missing: when there are none, or the table is of the first protocol, which knew no seeds, lines or windows.
    """
    table = study.measurement(experiment, name)
    if "seed" not in table:
        raise Missing(f"{experiment}: {name}.csv is of an earlier version, without seeds; measure it again")
    table = table[(table["run"] == run) & (table["seed"] == seed)]
    if table.empty:
        raise Missing(f"{experiment}: no {name} of {run} seed {seed}")
    return table


def distances(study: Study, seed: int) -> pd.Series:
    """Distance to the plane's optimum of the window's snapshots, by tokens, and of their merge, under 0. Figure 8.

    Mean excess loss over the optimum's along the straight line to it, nats a token, from landscape.csv (rows `line`).
    """
    table = _of_seed(study, "figure_8", "landscape", seed)
    table = table[table["metric"] == _LOSS]
    optimum = table.loc[table["role"] == "optimum", "value"]
    along = table[table["role"] == "line"].groupby("tokens")["value"].mean()
    if len(optimum) != 1 or 0 not in along.index or len(along) < 2:
        raise Missing(f"figure_8: no optimum, or no lines of snapshots and merge to it, of {_RUN} seed {seed}")
    return along - optimum.iloc[0]


def farther_share(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Share of the window's snapshots farther from the plane's optimum than their merge, minus one half."""

    def of(seed: int) -> dict[str, float]:
        distance = distances(study, seed)
        return {"share minus half": float((distance.drop(0) > distance[0]).mean() - 0.5)}

    return by_seed(seeds, of)


@lru_cache(maxsize=256)  # every measure of a part asks for it
def inequalities(study: Study, seed: int, experiment: str = "equation_15", run: str = _RUN) -> list[dict[str, float]]:
    """Of every merge that was measured: n, both sides of Equation 15, the predicted and the measured gain."""
    terms = _of_seed(study, experiment, "curvature_terms", seed, run)
    losses = _of_seed(study, experiment, "curvature_losses", seed, run)
    return [{"n": len(window), **inequality(terms, losses, window)} for window in windows(losses)]


def inequality_room(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Least over the merges of (right - left side of Equation 15) / |right side|; above 0 where it holds."""

    def of(seed: int) -> dict[str, float]:
        found = inequalities(study, seed)
        return {"least room": min((w["bound"] - w["cross"]) / abs(w["bound"]) for w in found)}

    return by_seed(seeds, of)


def prediction_slope(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Natural logarithm of the slope of measured over predicted gain, through the origin, over the merges.

    Slope: sum(measured x predicted) / sum(predicted^2); one at or below 0.01 counts as 0.01.
    """

    def of(seed: int) -> dict[str, float]:
        found = inequalities(study, seed)
        predicted, measured = (np.array([w[name] for w in found]) for name in ("predicted_gain", "measured_gain"))
        slope = float(predicted @ measured / (predicted @ predicted))
        return {"log slope": float(np.log(max(slope, _SLOPE_LEAST)))}

    return by_seed(seeds, of)
