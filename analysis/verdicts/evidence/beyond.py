"""What the paper left open, B1, B2, B3, B6 and B10, from the experiments of conf/experiment/beyond.

Every function returns a row a seed; positive favours the claim. Scores are in the unit of the measure; points and
lengths in V.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from records import Study

from verdicts.evidence.scores import Scores, by_seed, series
from verdicts.evidence.weight_space import inequalities

_RUN = "moe_main"
BUDGETS = (25, 50, 100, 200)  # V: 1/8, 1/4, 1/2 and all of the main run
# Forks of the main run by the length of their decay, as (run, end): those of C18.
DECAYS = {
    8: [(f"decay_8_at_{at}", at + 8) for at in (40, 72, 104, 136, 168)],
    16: [(f"decay_16_at_{at}", at + 16) for at in (40, 72, 104, 136, 168)],
    32: [*((f"decay_32_at_{at}", at + 32) for at in (40, 72, 104, 136)), ("annealed_moe_main", 200)],
}
CONSTANT_RUNS = (
    *("moe_main", "moe_3b_30b", "moe_10b_100b", "moe_20b_200b", "dense_411m", "dense_2b", "dense_8b", "dense_70b"),
    *("lr_quarter", "lr_half", "lr_double", "lr_quadruple"),
)
_LEAST_SLOPE = 0.01  # a slope at or below it has no useful logarithm, and lies far outside any margin


def arm_score(scores: Scores, arm: str, seed: int, at: float) -> float:
    """Score of what an arm hands over at a budget.

    Args:
        arm: last | sma | cosine | 1-sqrt: the main run's last snapshot, or a merge with the weights of that name |
            online_ema | schedule_free | annealed | cosine_schedule.
    """
    if arm in ("sma", "cosine", "1-sqrt"):
        ((n, interval),) = scores.windows(_RUN, seed, at, arm)
        return scores.merge(_RUN, seed, at, arm, n, interval)
    if arm == "online_ema":
        return scores.only("moe_main_averaged", seed, at)
    runs = {
        "last": _RUN,
        "schedule_free": "schedule_free",
        "annealed": f"wsd_{at:g}",
        "cosine_schedule": f"cosine_{at:g}",
    }
    return scores.last(runs[arm], seed, at)


def arm_over(
    study: Study, measure: str, seeds: Sequence[int], experiment: str, arm: str, other: str, at: Sequence[float]
) -> pd.DataFrame:
    """score(other arm) - score(arm), a column a budget; see `arm_score`."""
    scores = Scores(study, experiment, measure)

    def of(seed: int) -> dict[str, float]:
        return {f"{p:g} V": arm_score(scores, other, seed, p) - arm_score(scores, arm, seed, p) for p in at}

    return by_seed(seeds, of)


def arm_gain(
    study: Study, measure: str, seeds: Sequence[int], experiment: str, other: str, at: Sequence[float]
) -> pd.Series:
    """Margin of `arm_over`: what the other arm saves over the constant run's last snapshot, mean over budgets.

    The whole of it; the rule takes its share.
    """
    scores = Scores(study, experiment, measure)

    def of(seed: int) -> float:
        return float(np.mean([arm_score(scores, "last", seed, p) - arm_score(scores, other, seed, p) for p in at]))

    return series(seeds, of)


def inside_gains(scores: Scores, seed: int, length: int) -> list[float]:
    """What merging inside each decay of a length saves over the decay's end, in the order of DECAYS."""
    gains = []
    for run, end in DECAYS[length]:
        ((n, interval),) = scores.windows(run, seed, end)
        gains.append(scores.gain(run, seed, end, n, interval))
    return gains


def gain_inside_decay(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Score that merging inside a decay saves over its end, mean over five forks; a column a length."""
    scores = Scores(study, "averaged_decay", measure)
    return by_seed(
        seeds, lambda seed: {f"{length} V": float(np.mean(inside_gains(scores, seed, length))) for length in DECAYS}
    )


def gain_inside_falls(study: Study, measure: str, seeds: Sequence[int], short: int, long: int) -> pd.DataFrame:
    """`gain_inside_decay` of the short decays minus that of the long ones."""
    gains = gain_inside_decay(study, measure, seeds)
    return (gains[f"{short} V"] - gains[f"{long} V"]).to_frame(f"{short} V minus {long} V")


def _mean_gain(scores: Scores, seed: int, points: Sequence[float]) -> float:
    return float(np.mean([scores.gain(_RUN, seed, at) for at in points]))


def gain_change(
    study: Study, measure: str, seeds: Sequence[int], first: Sequence[float], last: Sequence[float]
) -> pd.DataFrame:
    """Mean gain of the merge (N = 10, 1 V) over the last points, minus that over the first."""
    scores = Scores(study, "steady_gain", measure)
    return by_seed(seeds, lambda seed: {"change": _mean_gain(scores, seed, last) - _mean_gain(scores, seed, first)})


def gain_throughout(
    study: Study, measure: str, seeds: Sequence[int], first: Sequence[float], last: Sequence[float]
) -> pd.Series:
    """Margin of `gain_change`: the mean gain over all its points, of which the rule takes a share."""
    scores = Scores(study, "steady_gain", measure)
    return series(seeds, lambda seed: _mean_gain(scores, seed, [*first, *last]))


def gains_of_runs(study: Study, seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and measured gain of the merge of `n` snapshots, 1 V apart, for each of CONSTANT_RUNS, nats a token."""
    found = []
    for run in CONSTANT_RUNS:
        (of_n,) = (each for each in inequalities(study, seed, "predicted_gain", run) if each["n"] == n)
        found.append((of_n["predicted_gain"], of_n["measured_gain"]))
    predicted, measured = np.array(found).T
    return predicted, measured


def slope_over_runs(study: Study, measure: str, seeds: Sequence[int], n: int) -> pd.DataFrame:
    """Natural logarithm of the slope of measured over predicted gain, through the origin, over all constant runs.

    Slope: sum(measured x predicted) / sum(predicted^2); one at or below 0.01 counts as 0.01.
    """

    def of(seed: int) -> dict[str, float]:
        predicted, measured = gains_of_runs(study, seed, n)
        return {"log slope": float(np.log(max(predicted @ measured / (predicted @ predicted), _LEAST_SLOPE)))}

    return by_seed(seeds, of)


def correlation_over_runs(study: Study, measure: str, seeds: Sequence[int], n: int, least: float) -> pd.DataFrame:
    """Pearson's correlation of predicted and measured gain over all constant runs, minus `least`."""

    def of(seed: int) -> dict[str, float]:
        return {f"correlation minus {least:g}": float(np.corrcoef(*gains_of_runs(study, seed, n))[0, 1] - least)}

    return by_seed(seeds, of)
