"""Merges against annealing, at equal tokens: C4 (Figure 2) and C5 (Figure 3).

Every function returns a row a seed; positive favours the claim. Scores are in the unit of the measure; points in V
along the trajectory, so that an annealed run's count goes on from its fork.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from records import Study

from verdicts.evidence.scores import Scores, by_seed, series

_CONSTANT = {"annealed_moe_main": "moe_main", "annealed_moe_3b_30b": "moe_3b_30b"}  # smaller size first
_END = 200  # V: where the annealed runs and the constant ones end


def _mean_over_sizes(scores: Scores, seed: int, at: float) -> float:
    return float(np.mean([scores.gain(run, seed, at) for run in _CONSTANT]))


def early_merge(study: Study, measure: str, seeds: Sequence[int], at: float) -> pd.DataFrame:
    """score(annealed end, 200 V) - score(merge over the annealing run at `at`), mean over two sizes. Figure 2."""
    scores = Scores(study, "figure_2", measure)

    def of(seed: int) -> dict[str, float]:
        return {
            "merge over the end": float(
                np.mean([scores.last(run, seed, _END) - scores.sma(run, seed, at) for run in _CONSTANT])
            )
        }

    return by_seed(seeds, of)


def annealing_gain(study: Study, measure: str, seeds: Sequence[int], other: str | None = None) -> pd.Series:
    """Margin: score(constant run) - score(annealed run), last snapshots at 200 V. The whole; the rule takes its share.

    Args:
        other: the annealed run, from Figure 3's records. None: the mean over the two sizes, from Figure 2's.
    """
    scores = Scores(study, "figure_2" if other is None else "figure_3", measure)
    runs = list(_CONSTANT) if other is None else [other]

    def gain(run: str, seed: int) -> float:
        return scores.last(_CONSTANT[run], seed, _END) - scores.last(run, seed, _END)

    return series(seeds, lambda seed: float(np.mean([gain(run, seed) for run in runs])))


def gain_falls(study: Study, measure: str, seeds: Sequence[int], first: float, last: float) -> pd.DataFrame:
    """Gain over the annealing snapshot at the first point minus that at the last, mean over two sizes. Figure 2."""
    scores = Scores(study, "figure_2", measure)

    def of(seed: int) -> dict[str, float]:
        return {"first minus last": _mean_over_sizes(scores, seed, first) - _mean_over_sizes(scores, seed, last)}

    return by_seed(seeds, of)


def larger_gains_more(study: Study, measure: str, seeds: Sequence[int], at: float) -> pd.DataFrame:
    """Gain over the annealing snapshot, 3B/30B minus 1.3B/13B. Figure 2."""
    scores = Scores(study, "figure_2", measure)
    small, large = _CONSTANT
    return by_seed(
        seeds, lambda seed: {"larger minus smaller": scores.gain(large, seed, at) - scores.gain(small, seed, at)}
    )


def merge_over(study: Study, measure: str, seeds: Sequence[int], other: str, at: float) -> pd.DataFrame:
    """score(last snapshot of `other`) - score(merge of the constant main run), both at `at`. Figure 3, N = 10."""
    scores = Scores(study, "figure_3", measure)
    return by_seed(
        seeds, lambda seed: {f"merge over {other}": scores.last(other, seed, at) - scores.sma("moe_main", seed, at)}
    )


def share_recovered(study: Study, measure: str, seeds: Sequence[int], at: float) -> pd.DataFrame:
    """Merging's gain over annealing's gain at the same tokens, a ratio; 1 where the merge is the annealed run's equal.

    (score(constant) - score(merge)) / (score(constant) - score(annealed)), Figure 3.
    """
    scores = Scores(study, "figure_3", measure)

    def of(seed: int) -> dict[str, float]:
        annealing = scores.last("moe_main", seed, at) - scores.last("annealed_moe_main", seed, at)
        return {"share": scores.gain("moe_main", seed, at) / annealing if annealing else float("nan")}

    return by_seed(seeds, of)
