"""Evidence along the main run and its annealing, on small studies whose numbers are known by hand."""

from __future__ import annotations

import numpy as np
from records import Study
from small_study import SEEDS, Small, values
from verdicts import evidence
from verdicts.evidence.forecast import first_reached

# ---- along the main run ----


def methods(small: Small, at: float, last: float, sma: float, wma: float, ema1: float, ema2: float) -> None:
    small.score("figure_4", "moe_main", at, last)
    for method, score in (("sma", sma), ("wma", wma), ("ema_0.1", ema1), ("ema_0.2", ema2)):
        small.score("figure_4", "moe_main", at, score, method, 10)


def test_methods_against_the_last_snapshot_in_order_and_in_spread(small):
    methods(small, 25.5, 5.0, 4.0, 3.0, 6.0, 5.5)
    methods(small, 200, 2.0, 1.5, 1.25, 1.0, 1.75)
    study = small.study()
    gains = evidence.method_gains(study, "text", SEEDS, at=[25.5, 200])
    assert list(gains.columns[[0, -1]]) == ["sma at 25.5 V", "ema_0.2 at 200 V"]
    assert values(gains) == [[1.0, 2.0, -1.0, -0.5, 0.5, 0.75, 1.0, 0.25]] * 3
    # WMA over SMA, EMA(.1) and EMA(.2); EMA(.2) over EMA(.1).
    assert values(evidence.method_order(study, "text", SEEDS, at=25.5)) == [[1.0, 3.0, 2.5, 0.5]] * 3
    assert values(evidence.method_spread(study, "text", SEEDS, first=25.5, last=200)) == [2.25] * 3  # 3 - .75


def test_intervals_and_numbers(small):
    small.score("figure_5", "moe_main", 25.5, 5.0)
    for n, v, score in (
        (10, 0.5, 4.0),
        (10, 1, 4.5),
        (10, 2, 5.5),
        (6, 4, 7.0),
        (3, 1, 3.0),
        (6, 1, 9.0),
        (15, 1, 8.0),
    ):
        small.sma("figure_5", "moe_main", 25.5, score, n, v)
    for n, v, score in ((10, 0.5, 2.0), (10, 1, 2.5), (10, 2, 2.0), (10, 4, 3.0), (3, 1, 2.7), (15, 1, 2.2)):
        small.sma("figure_5", "moe_main", 200, score, n, v)
    study = small.study()
    assert values(evidence.wide_loses(study, "text", SEEDS, at=25.5, wide=[[10, 2], [6, 4]])) == [[0.5, 2.0]] * 3
    # N = 10, and 6 for the widest V: 7 - 4; then 3 - 2. N = 3, 6 and 15 at 1 V are no part of it.
    assert values(evidence.interval_spread(study, "text", SEEDS, first=25.5, last=200)) == [2.0] * 3
    assert values(evidence.fewer_over_more(study, "text", SEEDS, at=25.5, few=3, many=15)) == [5.0] * 3
    assert values(evidence.fewer_over_more(study, "text", SEEDS, at=200, few=15, many=3)) == [0.5] * 3


def test_length_of_the_window_against_how_it_is_cut(small):
    scores = {
        (10, 0.5): 1.0, (5, 1): 1.2, (3, 1.5): 1.1,  # 5 V: mean 1.1, spread .2
        (20, 0.5): 2.0, (10, 1): 2.2,  # 10 V: 2.1, .2
        (20, 1): 3.0, (5, 4): 3.0,  # 20 V: 3, 0
        (40, 1): 4.0, (5, 8): 4.2,  # 40 V: 4.1, .2
    }  # fmt: skip
    for (n, v), score in scores.items():
        small.sma("duration", "moe_main", 200, score, n, v)
    expected = (4.1 - 1.1) / 3 - 0.6 / 4
    assert values(evidence.duration_decides(small.study(), "text", SEEDS, at=200)) == [round(expected, 9)] * 3


# ---- annealing ----


def test_merges_over_an_annealing_run(small):
    # By size: annealed snapshots and merges at 172, 180 and 200 V; the constant runs end at 2 and 3.
    for run, constant, last, merged in (
        ("annealed_moe_main", "moe_main", (1.8, 1.7, 1.4), (1.5, 1.45, 1.4)),
        ("annealed_moe_3b_30b", "moe_3b_30b", (2.8, 2.7, 2.2), (2.3, 2.25, 2.1)),
    ):
        for at, single, merge in zip((172, 180, 200), last, merged, strict=True):
            small.score("figure_2", run, at, single)
            small.sma("figure_2", run, at, merge)
        small.score("figure_2", constant, 200, 2.0 if constant == "moe_main" else 3.0)
    study = small.study()
    assert values(evidence.early_merge(study, "text", SEEDS, at=180)) == [-0.05] * 3  # 1.4 - 1.45, 2.2 - 2.25
    assert values(evidence.annealing_gain(study, "text", SEEDS)) == [0.7] * 3  # .6, .8
    assert values(evidence.gain_falls(study, "text", SEEDS, first=172, last=200)) == [0.35] * 3  # .4 - .05
    assert values(evidence.larger_gains_more(study, "text", SEEDS, at=180)) == [0.2] * 3  # .45 - .25


def test_a_merge_of_the_constant_run_against_annealing(small):
    small.score("figure_3", "moe_main", 200, [2.0, 2.0, 2.2])
    small.sma("figure_3", "moe_main", 200, [1.5, 1.9, 1.8])
    small.score("figure_3", "annealed_moe_main", 200, [1.6, 1.8, 1.4])
    study = small.study()
    other = "annealed_moe_main"
    assert values(evidence.merge_over(study, "text", SEEDS, other=other, at=200)) == [0.1, -0.1, -0.4]
    assert values(evidence.merge_over(study, "text", SEEDS, other="moe_main", at=200)) == [0.5, 0.1, 0.4]
    assert values(evidence.annealing_gain(study, "text", SEEDS, other=other)) == [0.4, 0.2, 0.8]
    assert values(evidence.share_recovered(study, "text", SEEDS, at=200)) == [1.25, 0.5, 0.5]


FORKS = [(position, length) for position in (40, 72, 104, 136, 168) for length in (8, 16, 32)]


def forecast(small: Small, annealed: list[float], merged: list[float], last: list[float]) -> Study:
    """Scores, one a seed, that are the same at every point of the constant run and every fork."""
    for at in range(40, 201, 8):
        small.score("annealing_forecast", "moe_main", at, last)
        small.sma("annealing_forecast", "moe_main", at, merged)
    for position, length in FORKS:
        end = position + length
        run = "annealed_moe_main" if end == 200 else f"decay_{length}_at_{position}"
        small.score("annealing_forecast", run, end, annealed)
    return small.study()


def test_forecast_skill_bias_and_margin(small):
    study = forecast(small, annealed=[1.0, 1.0, 1.0], merged=[1.1, 0.8, 1.3], last=[2.0, 2.0, 2.6])
    # Errors: merge .1, .2, .3; last 1, 1, 1.6; last less the others' mean gain (1.3, 1.3, 1): .3, .3, .6.
    assert values(evidence.forecast_skill(study, "text", SEEDS)) == [[0.9, 0.2], [0.8, 0.1], [1.3, 0.3]]
    assert values(evidence.forecast_bias(study, "text", SEEDS)) == [-0.1, 0.2, -0.3]
    assert values(evidence.forecast_gain(study, "text", SEEDS)) == [1.0, 1.0, 1.6]


def test_forecast_coverage_is_calibrated_on_the_other_half(small):
    # Errors of seeds 2, 3, 4: -.1, -.2, -.15. Halves: 2 | 3, 4. Seed 2 is outside [-.2, -.15]; 3 and 4 are not -.1.
    study = forecast(small, annealed=[1.0, 1.0, 1.0], merged=[1.1, 1.2, 1.15], last=[2.0, 2.0, 2.0])
    assert values(evidence.forecast_coverage(study, "text", SEEDS)) == [0.0, 0.0, 0.0]


def test_forecast_coverage_counts_those_inside(small):
    # Errors: -.1; -.2; 0. Seed 2 lies between the other two, half of whose 30 errors are -.2 and half 0.
    study = forecast(small, annealed=[1.0, 1.0, 1.0], merged=[1.125, 1.25, 1.0], last=[2.0, 2.0, 2.0])
    assert values(evidence.forecast_coverage(study, "text", SEEDS)) == [1.0, 0.0, 0.0]


def test_tokens_needed_leaves_out_what_ends_too_late_and_counts_the_end_for_never(small):
    ends = [position + length for position, length in FORKS if 1.2 * (position + length) <= 200]
    assert len(ends) == 11  # of fifteen
    study = forecast(small, annealed=[1.0, 1.0, 1.0], merged=[1.0, 1.5, 0.5], last=[2.0, 2.0, 2.0])
    at_once, never = (1.2 - np.mean([reached / end for end in ends]) for reached in (40, 200))
    expected = np.round([at_once, never, at_once], 9).tolist()
    assert values(evidence.tokens_needed(study, "text", SEEDS, most=1.2)) == expected


def test_a_score_is_reached_linearly_between_points():
    assert first_reached([40, 48, 56], [3.0, 2.0, 1.0], 1.75) == 50
    assert first_reached([40, 48, 56], [3.0, 1.0, 2.0], 1.5) == 46  # the first time, though it is lost again
    assert first_reached([40, 48, 56], [3.0, 2.0, 1.0], 0.5) == 56
