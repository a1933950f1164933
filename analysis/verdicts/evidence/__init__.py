"""The evidence for each part of a claim: one function a name in claims.yaml, `evidence` or `margin_of`.

    f(study, measure, seeds, **settings) -> DataFrame, a row a seed, a column a number; positive favours the claim
    f(study, measure, seeds, **settings) -> Series by seed, for `margin_of`: the number that the margin is a share of

`settings` are the part's own; a margin takes those of them that it knows. Where a seed's records lack, records.Missing
says what.
"""

from verdicts.evidence.along_run import (
    duration_decides,
    fewer_over_more,
    interval_spread,
    method_gains,
    method_order,
    method_spread,
    wide_loses,
)
from verdicts.evidence.annealing import (
    annealing_gain,
    early_merge,
    gain_falls,
    larger_gains_more,
    merge_over,
    share_recovered,
)
from verdicts.evidence.beyond import (
    arm_gain,
    arm_over,
    correlation_over_runs,
    gain_aside,
    gain_by_batch,
    gain_change,
    gain_falls_with_batch,
    gain_inside_decay,
    gain_inside_falls,
    gain_throughout,
    merged_orders,
    overwritten,
    policy_gain,
    reward_lost,
    slope_over_runs,
    tuned_gain,
)
from verdicts.evidence.choosing import regret_over_seeds, regret_over_sizes
from verdicts.evidence.curves import loss_saved, norm_ratio
from verdicts.evidence.forecast import (
    forecast_bias,
    forecast_coverage,
    forecast_gain,
    forecast_skill,
    tokens_needed,
)
from verdicts.evidence.gains import best_interval_growth, gain_by_size, gain_slope, mean_gain, rate_slope
from verdicts.evidence.tuned import columns_better, tuned_over_annealed, tuned_over_baseline
from verdicts.evidence.weight_space import farther_share, inequality_room, prediction_slope

__all__ = [
    "annealing_gain",
    "arm_gain",
    "arm_over",
    "best_interval_growth",
    "columns_better",
    "correlation_over_runs",
    "duration_decides",
    "early_merge",
    "farther_share",
    "fewer_over_more",
    "forecast_bias",
    "forecast_coverage",
    "forecast_gain",
    "forecast_skill",
    "gain_aside",
    "gain_by_batch",
    "gain_by_size",
    "gain_change",
    "gain_falls",
    "gain_falls_with_batch",
    "gain_inside_decay",
    "gain_inside_falls",
    "gain_slope",
    "gain_throughout",
    "inequality_room",
    "interval_spread",
    "larger_gains_more",
    "loss_saved",
    "mean_gain",
    "merge_over",
    "merged_orders",
    "method_gains",
    "method_order",
    "method_spread",
    "norm_ratio",
    "overwritten",
    "policy_gain",
    "prediction_slope",
    "rate_slope",
    "regret_over_seeds",
    "regret_over_sizes",
    "reward_lost",
    "share_recovered",
    "slope_over_runs",
    "tokens_needed",
    "tuned_gain",
    "tuned_over_annealed",
    "tuned_over_baseline",
    "wide_loses",
]
