"""What the paper left open, all but B4, from the experiments of conf/experiment/beyond.

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
ORDERS = ("annealed_moe_main", "annealed_order_1", "annealed_order_2")  # one fork, three orders of the data
BATCHES = {"batch_half": 0.5, "dense_411m": 1, "batch_double": 2, "batch_quadruple": 4}
_END = 200  # V: of the main run
_BATCH_WINDOW = (50, 5, 2)  # end, N and interval of the merges of BATCHES: 2 V are three of the largest steps
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
        "annealed": "annealed_moe_main" if at == _END else f"wsd_{at:g}",
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


def merged_orders(study: Study, measure: str, seeds: Sequence[int], over: str) -> pd.DataFrame:
    """Score that the mean of three annealed ends saves, whose decays differ in the order of the data alone.

    Args:
        over: mean: the three ends' mean score | best: the score of the best of them.
    """
    scores = Scores(study, "merged_orders", measure)

    def of(seed: int) -> dict[str, float]:
        ends = [scores.last(run, seed, _END) for run in ORDERS]
        other = {"mean": np.mean, "best": np.min}[over](ends)
        return {f"over the {over}": float(other - scores.merge(ORDERS[0], seed, _END, "sma", len(ORDERS), 0))}

    return by_seed(seeds, of)


def overwritten(study: Study, measure: str, seeds: Sequence[int], other: str, at: Sequence[float]) -> pd.DataFrame:
    """Score that a run whose live weights are overwritten by their merge every 10 V saves; a column a point.

    Args:
        other: sma: over the merge aside, of the run that goes on with its own weights | last: over that run's last
            snapshot.
    """
    scores = Scores(study, "overwritten", measure)

    def score(seed: int, point: float) -> float:
        return scores.sma(_RUN, seed, point) if other == "sma" else scores.last(_RUN, seed, point)

    def of(seed: int) -> dict[str, float]:
        return {f"{p:g} V": score(seed, p) - scores.last("moe_main_overwritten", seed, p) for p in at}

    return by_seed(seeds, of)


def gain_aside_by_point(study: Study, measure: str, seeds: Sequence[int], at: Sequence[float]) -> pd.DataFrame:
    """What the merge aside saves over the last snapshot; a column a point."""
    scores = Scores(study, "overwritten", measure)
    return by_seed(seeds, lambda seed: {f"{point:g} V": scores.gain(_RUN, seed, point) for point in at})


def gain_aside(study: Study, measure: str, seeds: Sequence[int], at: Sequence[float]) -> pd.Series:
    """Margin of `overwritten`: what the merge aside saves over the last snapshot, mean over the points."""
    return gain_aside_by_point(study, measure, seeds, at).mean(axis=1)


def gain_by_batch(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Gain of the same window at the end of a run, a column a batch size, as a multiple of the default."""
    scores = Scores(study, "batch_size", measure)
    end, n, interval = _BATCH_WINDOW
    return by_seed(
        seeds, lambda seed: {f"{b:g} x": scores.gain(run, seed, end, n, interval) for run, b in BATCHES.items()}
    )


def gain_falls_with_batch(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """`gain_by_batch` of the smallest batch minus that of the largest."""
    gains = gain_by_batch(study, measure, seeds)
    return (gains.iloc[:, 0] - gains.iloc[:, -1]).to_frame("smallest minus largest batch")


def tuned_gain(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """What the only merge along a long fine-tuning saves over its last snapshot, suite instruct, mean over its axes."""
    scores = Scores(study, "post_training", measure, "instruct")
    return by_seed(seeds, lambda seed: {"gain": _only_gain(scores, "sft_long", seed)})


def reward_lost(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Reward of the last policy of a run of reinforcement learning, minus that of the only merge along it.

    A reward is the share of right answers, in expectation over samples at temperature 1; the measure plays no part.
    """
    scores = Scores(study, "post_training", "reward", "reward")
    return by_seed(seeds, lambda seed: {"last over merge": -_only_gain(scores, "reinforced", seed)})


def reward_gains(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Reward that the merge along a run of reinforcement learning gains over the last policy, and that over the start.

    A reward as in reward_lost; the measure plays no part.
    """
    scores = Scores(study, "post_training", "reward", "reward")

    def of(seed: int) -> dict[str, float]:
        (end,) = scores.merged_at("reinforced", seed)
        learned = scores.last("reinforced", seed, 0) - scores.last("reinforced", seed, end)
        return {"merge": _only_gain(scores, "reinforced", seed), "training": learned}

    return by_seed(seeds, of)


def policy_gain(study: Study, measure: str, seeds: Sequence[int]) -> pd.DataFrame:
    """Score that the only merge along a run of reinforcement learning saves over its last policy, suite proxy."""
    scores = Scores(study, "post_training", measure)
    return by_seed(seeds, lambda seed: {"gain": _only_gain(scores, "reinforced", seed)})


def _only_gain(scores: Scores, run: str, seed: int) -> float:
    (end,) = scores.merged_at(run, seed)
    ((n, interval),) = scores.windows(run, seed, end)
    return scores.gain(run, seed, end, n, interval)


def gains_of_runs(study: Study, seed: int, n: int, experiment: str = "predicted_gain") -> tuple[np.ndarray, np.ndarray]:
    """Predicted and measured gain of the merge of `n` snapshots, for each run of an experiment, nats a token.

    Runs: CONSTANT_RUNS of predicted_gain, BATCHES of batch_size.
    """
    found = []
    for run in BATCHES if experiment == "batch_size" else CONSTANT_RUNS:
        (of_n,) = (each for each in inequalities(study, seed, experiment, run) if each["n"] == n)
        found.append((of_n["predicted_gain"], of_n["measured_gain"]))
    predicted, measured = np.array(found).T
    return predicted, measured


def slope_over_runs(
    study: Study, measure: str, seeds: Sequence[int], n: int, experiment: str = "predicted_gain"
) -> pd.DataFrame:
    """Natural logarithm of the slope of measured over predicted gain, through the origin, over the experiment's runs.

    Slope: sum(measured x predicted) / sum(predicted^2); one at or below 0.01 counts as 0.01.
    """

    def of(seed: int) -> dict[str, float]:
        predicted, measured = gains_of_runs(study, seed, n, experiment)
        return {"log slope": float(np.log(max(predicted @ measured / (predicted @ predicted), _LEAST_SLOPE)))}

    return by_seed(seeds, of)


def correlation_over_runs(study: Study, measure: str, seeds: Sequence[int], n: int, least: float) -> pd.DataFrame:
    """Pearson's correlation of predicted and measured gain over all constant runs, minus `least`."""

    def of(seed: int) -> dict[str, float]:
        return {f"correlation minus {least:g}": float(np.corrcoef(*gains_of_runs(study, seed, n))[0, 1] - least)}

    return by_seed(seeds, of)
