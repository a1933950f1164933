"""How to merge, at points along the main run: the weights, V, N and the length of the window: C6, C7, C8, C10, C21.

Every function returns a row a seed; positive favours the claim. Scores are in the unit of the measure; points and
intervals in V.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from records import Missing, Study

from verdicts.evidence.scores import Scores, by_seed

_RUN = "moe_main"
_N = 10
_METHODS = ("sma", "wma", "ema_0.1", "ema_0.2")
_INTERVALS = (0.5, 1, 2, 4)  # V, of Figure 5, top
_LENGTHS = (5, 10, 20, 40)  # V, of duration; 3 x 1.5 counts as 5


def _methods(scores: Scores, seed: int, at: float) -> dict[str, float]:
    return {method: scores.merge(_RUN, seed, at, method, _N, 1) for method in _METHODS}


def method_gains(study: Study, measure: str, seeds: Sequence[int], at: Sequence[float]) -> pd.DataFrame:
    """score(last snapshot) - score(merge), a column a method and point. Figure 4, N = 10."""
    scores = Scores(study, "figure_4", measure)

    def of(seed: int) -> dict[str, float]:
        return {
            f"{method} at {point:g} V": scores.last(_RUN, seed, point) - score
            for point in at
            for method, score in _methods(scores, seed, point).items()
        }

    return by_seed(seeds, of)


def method_order(study: Study, measure: str, seeds: Sequence[int], at: float) -> pd.DataFrame:
    """score(other) - score(WMA) for the three others, and score(EMA 0.1) - score(EMA 0.2). Figure 4, N = 10."""
    scores = Scores(study, "figure_4", measure)

    def of(seed: int) -> dict[str, float]:
        score = _methods(scores, seed, at)
        order = {f"wma over {method}": score[method] - score["wma"] for method in _METHODS if method != "wma"}
        return {**order, "ema_0.2 over ema_0.1": score["ema_0.1"] - score["ema_0.2"]}

    return by_seed(seeds, of)


def method_spread(study: Study, measure: str, seeds: Sequence[int], first: float, last: float) -> pd.DataFrame:
    """Largest minus smallest score of the four methods at the first point, minus the same at the last. Figure 4."""
    scores = Scores(study, "figure_4", measure)

    def spread(seed: int, at: float) -> float:
        return float(np.ptp(list(_methods(scores, seed, at).values())))

    return by_seed(seeds, lambda seed: {"first minus last": spread(seed, first) - spread(seed, last)})


def wide_loses(
    study: Study, measure: str, seeds: Sequence[int], at: float, wide: Sequence[Sequence[float]]
) -> pd.DataFrame:
    """score(merge) - score(last snapshot), a column each (N, V) of `wide`. Figure 5, top."""
    scores = Scores(study, "figure_5", measure)
    return by_seed(
        seeds, lambda seed: {f"{v:g} V (N = {n:g})": -scores.gain(_RUN, seed, at, int(n), v) for n, v in wide}
    )


def _over_intervals(scores: Scores, seed: int, at: float) -> list[float]:
    """Scores over four V at N = 10, or at the most that were merged where the run was too short for ten."""
    windows = scores.windows(_RUN, seed, at)
    found = []
    for v in _INTERVALS:
        numbers = [n for n, interval in windows if interval == v and n <= _N]
        found.append(scores.sma(_RUN, seed, at, max(numbers, default=_N), v))
    return found


def interval_spread(study: Study, measure: str, seeds: Sequence[int], first: float, last: float) -> pd.DataFrame:
    """Largest minus smallest score over four V at the first point, minus the same at the last. Figure 5, top."""
    scores = Scores(study, "figure_5", measure)

    def spread(seed: int, at: float) -> float:
        return float(np.ptp(_over_intervals(scores, seed, at)))

    return by_seed(seeds, lambda seed: {"first minus last": spread(seed, first) - spread(seed, last)})


def fewer_over_more(study: Study, measure: str, seeds: Sequence[int], at: float, few: int, many: int) -> pd.DataFrame:
    """score(N = many) - score(N = few), both 1 V apart. Figure 5, bottom. Either number may be the larger."""
    scores = Scores(study, "figure_5", measure)
    name = f"N = {few} over N = {many}"
    return by_seed(seeds, lambda seed: {name: scores.sma(_RUN, seed, at, many) - scores.sma(_RUN, seed, at, few)})


def duration_decides(study: Study, measure: str, seeds: Sequence[int], at: float) -> pd.DataFrame:
    """A third of the spread over the lengths N x V of the window, minus the mean spread within a length.

    From `duration`. Spread over lengths: largest minus smallest of the mean scores of a length. Within: largest minus
    smallest score of a length's windows. 5, 10, 20 and 40 V, each window counted with the length nearest to its own.
    """
    scores = Scores(study, "duration", measure)

    def of(seed: int) -> dict[str, float]:
        lengths: dict[int, list[float]] = {length: [] for length in _LENGTHS}
        for n, v in scores.windows(_RUN, seed, at):
            nearest = min(_LENGTHS, key=lambda length: abs(length - n * v))
            lengths[nearest].append(scores.sma(_RUN, seed, at, n, v))
        if short := [length for length, found in lengths.items() if len(found) < 2]:
            raise Missing(f"duration: fewer than two windows of {short[0]} V at {at:g} V, {_RUN} seed {seed}")
        over = np.ptp([np.mean(found) for found in lengths.values()])
        within = np.mean([np.ptp(found) for found in lengths.values()])
        return {"third over lengths minus within": float(over / 3 - within)}

    return by_seed(seeds, of)
