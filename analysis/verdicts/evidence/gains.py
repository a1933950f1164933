"""What merging gains by size and by learning rate, and which V suits a size: C1, C2, C3, C9, C17.

Every function returns a row a seed; positive favours the claim. Scores are in the unit of the measure (bits per byte,
bits an item for `choice`); experiment and points stand beside each function.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from records import Missing, Study

from verdicts.evidence.scores import Scores, by_seed, series
from verdicts.evidence.trends import FAMILIES, LADDER_END, change, log_parameters

_KIND = {"figure_1": "moe", "figure_9": "dense"}
_RATES = ("lr_quarter", "lr_half", "dense_411m", "lr_double", "lr_quadruple")
_INTERVALS = (0.5, 1, 2, 4)  # V, of interval_by_size
_TAIL = 0.1  # of a run, whose mean training loss says how well a rate trains


def _only_gain(scores: Scores, run: str, seed: int) -> float:
    """Gain of the one merge that was scored at the ladder's end: N and V go with the size, as in the paper."""
    windows = scores.windows(run, seed, LADDER_END)
    if len(windows) != 1:
        raise Missing(f"{scores.experiment}: {len(windows)} merges of {run} seed {seed} at {LADDER_END} V, not one")
    return scores.gain(run, seed, LADDER_END, *windows[0])


def gain_by_size(study: Study, measure: str, seeds: Sequence[int], experiment: str, mean: bool = False) -> pd.DataFrame:
    """score(last snapshot) - score(merge) at 50 V: a column a size, or their mean in one. Figure 1 or 9."""
    scores = Scores(study, experiment, measure)
    table = by_seed(seeds, lambda seed: {run: _only_gain(scores, run, seed) for run in FAMILIES[_KIND[experiment]]})
    return table.mean(axis=1).to_frame("mean over sizes") if mean else table


def _family_gains(scores: Scores, kind: str, seed: int, n: int, interval: float) -> list[float]:
    return [scores.gain(run, seed, LADDER_END, n, interval) for run in FAMILIES[kind]]


def gain_slope(study: Study, measure: str, seeds: Sequence[int], kind: str, n: int, interval: float) -> pd.DataFrame:
    """Change of the gain over a family at one N and V: slope over log parameters, times their range.

    From interval_by_size at 50 V; in the unit of the measure.
    """
    scores = Scores(study, "interval_by_size", measure)

    def of(seed: int) -> dict[str, float]:
        gains = _family_gains(scores, kind, seed, n, interval)
        return {"change over sizes": change(log_parameters(study, kind, seed), gains)}

    return by_seed(seeds, of)


def mean_gain(study: Study, measure: str, seeds: Sequence[int], kind: str, n: int, interval: float) -> pd.Series:
    """Margin of `gain_slope`: mean gain of the family at the same N and V. The whole; the rule takes its share."""
    scores = Scores(study, "interval_by_size", measure)
    return series(seeds, lambda seed: float(np.mean(_family_gains(scores, kind, seed, n, interval))))


def best_of_parabola(x: Sequence[float], y: Sequence[float], beyond: float = 0.5) -> float:
    """Where the least-squares parabola through (x, y) is least, kept within `beyond` of the range of x.

    A parabola that opens downwards is least at one of the two ends.
    """
    square, slope, _ = np.polyfit(x, y, 2)
    low, high = min(x) - beyond, max(x) + beyond
    if square > 0:
        return float(np.clip(-slope / (2 * square), low, high))
    return low if square * low**2 + slope * low < square * high**2 + slope * high else high


def best_intervals(study: Study, measure: str, seeds: Sequence[int], kind: str, n: int) -> pd.DataFrame:
    """log2 of the best V of every size of a family, a column a run: the least point of a parabola in log2 V.

    From interval_by_size at 50 V, through the scores of four V.
    """
    scores = Scores(study, "interval_by_size", measure)
    doublings = [float(np.log2(v)) for v in _INTERVALS]

    def best(run: str, seed: int) -> float:
        return best_of_parabola(doublings, [scores.sma(run, seed, LADDER_END, n, v) for v in _INTERVALS])

    return by_seed(seeds, lambda seed: {run: best(run, seed) for run in FAMILIES[kind]})


def best_interval_growth(study: Study, measure: str, seeds: Sequence[int], kind: str, n: int) -> pd.DataFrame:
    """Change of log2 of the best V over a family: slope over log parameters, times their range; in doublings."""
    best = best_intervals(study, measure, seeds, kind, n)

    def of(seed: int) -> dict[str, float]:
        return {"doublings": change(log_parameters(study, kind, seed), best.loc[seed].to_list())}

    return by_seed(seeds, of)


def _final_loss(study: Study, run: str, seed: int) -> float:
    """Mean training loss of a run's last tenth, nats a token, from its curve."""
    curve = study.curve(run, seed)
    return float(curve.loc[curve["tokens"] > (1 - _TAIL) * curve["tokens"].max(), "loss"].mean())


def rates_that_train(study: Study, seeds: Sequence[int], within: float) -> list[str]:
    """Runs of the learning-rate study whose mean loss of the last tenth lies within so many nats of the best one's.

    Means over `seeds`.
    """
    losses = {run: np.mean([_final_loss(study, run, seed) for seed in seeds]) for run in _RATES}
    return [run for run in _RATES if losses[run] <= min(losses.values()) + within]


def rate_slope(study: Study, measure: str, seeds: Sequence[int], within: float | None = None) -> pd.DataFrame:
    """Change of the gain over five peak rates at 50 V: slope over log2 of the rate, times the range.

    From learning_rate (N = 10, V / 2), rates from the runs' configs.

    Args:
        within: take the rates alone that train within so many nats of the best (see `rates_that_train`).

    Raises:
        records.Missing: when fewer than two rates are left.
    """
    scores = Scores(study, "learning_rate", measure)
    runs = list(_RATES)
    if within is not None and seeds:
        runs = rates_that_train(study, seeds, within)
        if len(runs) < 2:
            raise Missing(f"learning_rate: {runs[0]} alone trains within {within:g} nats of the best rate, no slope")

    def of(seed: int) -> dict[str, float]:
        rates = [float(np.log2(study.config(run, seed)["schedule"]["peak_lr"])) for run in runs]
        return {"change over rates": change(rates, [scores.gain(run, seed, LADDER_END, 10, 0.5) for run in runs])}

    return by_seed(seeds, of)
