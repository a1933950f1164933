"""What it costs to choose N and V elsewhere: on the smallest size, or on other seeds: C20.

Regret: score of the chosen merge minus that of the best merge there. The number is the measure's smallest effect minus
the regret, so positive favours the claim; a row a seed, in the unit of the measure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from records import Missing, Study

from verdicts.evidence.scores import Scores, by_seed, smallest_effect
from verdicts.evidence.trends import FAMILIES, LADDER_END, parameters

Window = tuple[int, float]  # N, and V in multiples of the scale's
_MAIN_END = 200  # V


def _others(seeds: Sequence[int], seed: int) -> list[int]:
    found = [other for other in seeds if other != seed]
    if not found:
        raise Missing(f"seeds={list(seeds)}: N and V chosen on other seeds need at least 2")
    return found


def _best(windows: Sequence[Window], score: Callable[[Window], float]) -> Window:
    return min(windows, key=score)


def _regret(windows: Sequence[Window], chosen: Window, score: Callable[[Window], float]) -> float:
    return score(chosen) - min(map(score, windows))


def regret_over_sizes(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Smallest effect minus the mean regret over the six larger sizes, V chosen on their family's smallest size.

    From interval_by_size at 50 V, N = 6 and four V. Chosen: the best mean score over the other of `seeds`; smallest: by
    the parameters in the manifests.

    Raises:
        records.Missing: with one seed, which has no others.
    """
    scores = Scores(study, "interval_by_size", measure)

    def score(run: str, seed: int, window: Window) -> float:
        return scores.sma(run, seed, LADDER_END, *window)

    def regrets(family: Sequence[str], seed: int) -> list[float]:
        small, *larger = sorted(family, key=lambda run: parameters(study, run, seed))
        windows = scores.windows(small, seed, LADDER_END)
        others = _others(seeds, seed)
        chosen = _best(windows, lambda w: float(np.mean([score(small, other, w) for other in others])))
        return [_regret(windows, chosen, partial(score, run, seed)) for run in larger]

    def of(seed: int) -> dict[str, float]:
        found = [regret for family in FAMILIES.values() for regret in regrets(family, seed)]
        return {"smallest effect minus regret": smallest_effect(measure) - float(np.mean(found))}

    return by_seed(seeds, of)


def regret_over_seeds(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Smallest effect minus the regret at the main run's end, N and V chosen by the mean score of the other seeds.

    From Figure 5 at 200 V, all seven (N, V) that were scored there.

    Raises:
        records.Missing: with one seed, which has no others.
    """
    scores = Scores(study, "figure_5", measure)

    def of(seed: int) -> dict[str, float]:
        def score(window: Window, of_seed: int = seed) -> float:
            return scores.sma("moe_main", of_seed, _MAIN_END, *window)

        windows = scores.windows("moe_main", seed, _MAIN_END)
        chosen = _best(windows, lambda w: float(np.mean([score(w, other) for other in _others(seeds, seed)])))
        return {"smallest effect minus regret": smallest_effect(measure) - _regret(windows, chosen, score)}

    return by_seed(seeds, of)
