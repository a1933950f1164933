"""Merges of the constant run as a forecast of annealing: C18 and C19, from annealing_forecast.

Fifteen forks of the main run at 40, 72, 104, 136 and 168 V, annealed over 8, 16 and 32 V. Every function returns a row
a seed; positive favours the claim. Scores are in the unit of the measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from records import Missing, Study

from verdicts.evidence.scores import Scores, by_seed, series

_RUN, _EXPERIMENT = "moe_main", "annealing_forecast"
_FORKS = [(position, length) for position, length in product((40, 72, 104, 136, 168), (8, 16, 32))]  # V
_ENDS = [position + length for position, length in _FORKS]
_POINTS = range(40, 201, 8)  # V, at which the constant run's merges were scored
_COVERED = 0.9

Forks = NDArray[np.float64]  # a number a fork, in the order of _FORKS


def _annealed(scores: Scores, seed: int) -> Forks:
    return np.array(
        [
            scores.last("annealed_moe_main" if end == 200 else f"decay_{length}_at_{position}", seed, end)
            for (position, length), end in zip(_FORKS, _ENDS, strict=True)
        ]
    )


def _last(scores: Scores, seed: int) -> Forks:
    return np.array([scores.last(_RUN, seed, end) for end in _ENDS])


def _merged(scores: Scores, seed: int) -> Forks:
    return np.array([scores.sma(_RUN, seed, end) for end in _ENDS])


def _two_seeds(seeds: Sequence[int]) -> None:
    if len(seeds) < 2:
        raise Missing(f"{_EXPERIMENT}: seeds={list(seeds)}: a forecast from other seeds needs at least 2")


def forecast_errors(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Mean absolute error over fifteen forks of three forecasts of the annealed score; a column a forecast.

    The merge of the constant run at the same tokens; its last snapshot; and that less what annealing saved there in the
    mean over the other of `seeds`.

    Raises:
        records.Missing: with one seed, which has no others.
    """
    _two_seeds(seeds)
    scores = Scores(study, _EXPERIMENT, measure)
    annealed, last = ({seed: of(scores, seed) for seed in seeds} for of in (_annealed, _last))

    def of(seed: int) -> dict[str, float]:
        others = np.mean([last[other] - annealed[other] for other in seeds if other != seed], axis=0)
        forecasts = {"merge": _merged(scores, seed), "last": last[seed], "last plus gain": last[seed] - others}
        return {name: float(np.abs(forecast - annealed[seed]).mean()) for name, forecast in forecasts.items()}

    return by_seed(seeds, of)


def forecast_skill(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Mean absolute error of a rival's forecast, minus that of the merge (see `forecast_errors`); a column a rival.

    Raises:
        records.Missing: with one seed, which has no others.
    """
    errors = forecast_errors(study, measure, seeds)
    rivals = {"over the last snapshot": "last", "over it plus other seeds' gain": "last plus gain"}
    return pd.DataFrame({name: errors[rival] - errors["merge"] for name, rival in rivals.items()})


def forecast_bias(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Mean over fifteen forks of score(annealed) - score(merge at the same tokens); positive: the merge is better."""
    scores = Scores(study, _EXPERIMENT, measure)
    return by_seed(seeds, lambda seed: {"bias": float((_annealed(scores, seed) - _merged(scores, seed)).mean())})


def forecast_gain(study: Study, measure: str, seeds: Sequence[int]) -> pd.Series:
    """Margin of `forecast_bias`: annealing's gain, mean over fifteen forks of score(last) - score(annealed).

    The whole of it; the rule takes its share.
    """
    scores = Scores(study, _EXPERIMENT, measure)
    return series(seeds, lambda seed: float((_last(scores, seed) - _annealed(scores, seed)).mean()))


def forecast_coverage(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Share of a seed's fifteen annealed scores that lie in the 90 % interval about the merge, 0 to 1.

    The interval: merge + the 5 % to 95 % quantile (linear) of annealed - merge, over all forks of the other half of
    `seeds`. Halves: the lower seeds and the higher, the odd one with the higher.

    Raises:
        records.Missing: with one seed, which has no other half.
    """
    _two_seeds(seeds)
    scores = Scores(study, _EXPERIMENT, measure)
    errors = {seed: _annealed(scores, seed) - _merged(scores, seed) for seed in sorted(seeds)}
    order = list(errors)
    halves = order[: len(order) // 2], order[len(order) // 2 :]

    def of(seed: int) -> dict[str, float]:
        other = halves[seed in halves[0]]
        pooled = np.concatenate([errors[one] for one in other])
        low, high = np.quantile(pooled, [(1 - _COVERED) / 2, (1 + _COVERED) / 2])
        return {"share covered": float(((errors[seed] >= low) & (errors[seed] <= high)).mean())}

    return by_seed(seeds, of)


def first_reached(points: Sequence[float], values: Sequence[float], goal: float) -> float:
    """Where a curve first comes down to `goal`, linear between its points; the last point if it never does."""
    if values[0] <= goal:
        return float(points[0])
    for i in range(1, len(points)):
        if values[i] <= goal:
            share = (values[i - 1] - goal) / (values[i - 1] - values[i])
            return float(points[i - 1] + share * (points[i] - points[i - 1]))
    return float(points[-1])


def token_ratios(study: Study, measure: str, seeds: Sequence[int], most: float) -> pd.DataFrame:
    """Tokens that the merge of the constant run needs for an annealed score, over the annealed run's; a column a fork.

    Needed: the point at which the merge first reaches the annealed end's score (see `first_reached`). Forks whose
    `most`-fold tokens lie beyond the run's end are left out. At 40 V, the first point, nothing earlier is known.
    Columns are named by the annealed end: 48 V.
    """
    scores = Scores(study, _EXPERIMENT, measure)

    def of(seed: int) -> dict[str, float]:
        merged = [scores.sma(_RUN, seed, point) for point in _POINTS]
        return {
            f"{end} V": first_reached(_POINTS, merged, goal) / end
            for goal, end in zip(_annealed(scores, seed), _ENDS, strict=True)
            if most * end <= _POINTS[-1]
        }

    return by_seed(seeds, of)


def tokens_needed(study: Study, measure: str, seeds: Sequence[int], most: float) -> pd.DataFrame:
    """`most` minus the mean over forks of `token_ratios`."""
    ratios = token_ratios(study, measure, seeds, most)
    return (most - ratios.mean(axis=1)).to_frame(f"{most:g} minus ratio")
