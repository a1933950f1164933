"""Parts and claims judged by hand-made numbers of seeds whose outcome can be recomputed."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from claims_files import COMMON, NOISE, SEEDS, x
from verdicts.judge import Evidence, Judged, Numbers, judge, verdict_of
from verdicts.rules import Part
from verdicts.tables import rule_text


def numbers(margin_of=None, **columns) -> Numbers:
    """A column of numbers a seed, from seed 2 on."""
    seeds = SEEDS[: len(next(iter(columns.values())))]
    return Numbers(pd.DataFrame(columns, index=seeds), None if margin_of is None else pd.Series(margin_of, index=seeds))


def part(rule: str, name: str = "a", **keys) -> Part:
    defaults = {"smallest": 0.005} if rule in ("above", "all_above") else {}
    return Part(name, "what it says", rule, "some_evidence", **{**defaults, **keys})


def alone(rule: str, of: Numbers, others: dict | None = None, **keys) -> Judged:
    """One part with no other part beside it, so that Holm leaves its p as it is."""
    return judge([Evidence("C1", part(rule, **keys), of, others or {})], COMMON)[0]


# ---- the rules


@pytest.mark.parametrize(
    ("mean", "sd", "outcome"),
    [
        (0.030, 0.01, "holds"),
        (0.005, 0.01, "open"),  # neither sign is sure, and more than the smallest effect is possible
        (-0.010, 0.01, "fails"),
        (-0.015, 0.05, "open"),
        (0.002, 0.001, "fails"),  # surely above 0, and too small to name: asked first
        (0.006, 0.010, "open"),
    ],
)
def test_above(mean, sd, outcome):
    assert alone("above", numbers(gain=x(mean, sd))).outcome == outcome


def test_an_effect_too_small_to_name_fails_though_its_sign_is_sure():
    judged = alone("above", numbers(gain=x(0.002, 0.001)))
    assert judged.p < 0.001
    assert (judged.outcome, judged.reason) == ("fails", "below the smallest effect, 0.005")
    assert alone("above", numbers(gain=x(0.002, 0.001)), smallest=0.0).outcome == "holds"
    # What lies wholly below 0 is called so.
    assert alone("above", numbers(gain=x(-0.02))).reason == "below 0"


def test_the_reason_names_the_worst_column():
    assert alone("all_above", numbers(bad=x(-0.02), worst=x(-0.03))).reason == "below 0: worst"


@pytest.mark.parametrize(
    ("mean", "outcome"), [(0.0, "holds"), (-0.010, "holds"), (-0.019, "open"), (-0.021, "open"), (-0.030, "fails")]
)
def test_at_least_minus_the_margin(mean, outcome):
    assert alone("at_least", numbers(change=x(mean)), margin=0.02).outcome == outcome


@pytest.mark.parametrize(
    ("mean", "sd", "outcome"),
    [(0.0, 0.01, "holds"), (0.008, 0.01, "holds"), (0.018, 0.01, "open"), (0.0, 0.05, "open")]
    + [(0.032, 0.01, "fails"), (-0.032, 0.01, "fails")],
)
def test_level_by_two_one_sided_tests(mean, sd, outcome):
    values = x(mean, sd)
    judged = alone("level", numbers(difference=values), margin=0.02)
    assert judged.outcome == outcome
    lower = scipy.stats.ttest_1samp(values, -0.02, alternative="greater").pvalue
    upper = scipy.stats.ttest_1samp(values, 0.02, alternative="less").pvalue
    assert judged.p == pytest.approx(max(lower, upper), rel=1e-5)


def test_a_share_as_margin_brings_its_own_scatter():
    # x is always minus a third of the number plus .01: surely within it seed by seed, however much both scatter.
    gain = x(0.1, 0.05)
    tied = -gain / 3 + 0.01 + 0.0001 * NOISE[::-1]
    judged = alone("at_least", numbers(change=tied, margin_of=gain), margin_of="gain")
    assert judged.outcome == "holds"
    assert judged.margin == pytest.approx(0.1 / 3)
    assert judged.p == pytest.approx(
        scipy.stats.ttest_1samp(tied + gain / 3, 0, alternative="greater").pvalue, rel=1e-3
    )
    assert alone("at_least", numbers(change=tied), margin=0.1 / 3).p > judged.p


def test_there_is_no_share_of_an_effect_that_is_not_there():
    judged = alone("level", numbers(difference=x(0.0, 0.001), margin_of=x(0.01, 0.05)), margin_of="annealing_gain")
    assert judged.outcome == "open"
    assert judged.reason == "nothing to take a share of: the annealing gain is not above 0"


@pytest.mark.parametrize(("gain", "least"), [(0.3, "-0.1"), (-0.3, "0.1")])
def test_a_margin_is_named_with_its_sign(gain, least):
    judged = alone("at_least", numbers(change=x(0.0, 0.001), margin_of=x(gain, 0.0)), margin_of="gain")
    assert rule_text(judged, COMMON) == f"above {least}, 0.333 times the gain"


@pytest.mark.parametrize(
    ("small", "large", "outcome"),
    [
        (x(0.02), x(0.04), "holds"),
        (x(0.006), x(0.04), "open"),
        (x(-0.02), x(0.04), "fails"),  # one is enough
        (x(0.001, 0.001), x(0.04), "fails"),
    ],
)
def test_all_above_needs_every_column(small, large, outcome):
    judged = alone("all_above", numbers(large=large, small=small))
    assert judged.outcome == outcome
    # Intersection-union: the largest p counts, uncorrected for the number of columns.
    assert judged.p == pytest.approx(scipy.stats.ttest_1samp(small, 0, alternative="greater").pvalue, rel=1e-5)
    assert judged.headline_column == "small"
    assert judged.headline.mean == pytest.approx(small.mean())
    assert (": small" in judged.reason) == (outcome == "fails")


@pytest.mark.parametrize(("mean", "outcome"), [(-0.002, "holds"), (-0.009, "open"), (-0.02, "fails")])
def test_all_at_least_needs_every_column(mean, outcome):
    assert alone("all_at_least", numbers(half=x(mean), double=x(0.0)), margin=0.01).outcome == outcome


@pytest.mark.parametrize(("mean", "outcome"), [(0.85, "holds"), (0.8, "holds"), (0.75, "fails")])
def test_bound_is_the_mean_alone(mean, outcome):
    judged = alone("bound", numbers(share=[mean - 0.3, mean + 0.1, mean + 0.1, mean + 0.1]), margin=0.8)
    assert judged.outcome == outcome
    assert math.isnan(judged.p)


def test_a_report_is_shown_and_never_counts():
    parts = [part("report"), part("above", "b")]
    judged = judge([Evidence("C1", one, numbers(y=x(0.5))) for one in parts], COMMON)
    assert [one.outcome for one in judged] == ["shown", "holds"]
    assert judged[1].p_holm == judged[1].p
    assert verdict_of(judged) == "replicated"


@pytest.mark.parametrize(("n", "words"), [(2, "2 seeds; 3 are needed"), (1, "1 seed; 3 are needed")])
def test_too_few_seeds_stay_open_however_clear(n, words):
    for rule, margin in (("above", 0.0), ("level", 9.0), ("bound", 0.5)):
        judged = alone(rule, numbers(y=np.full(n, 1.0)), margin=margin)
        assert (judged.outcome, judged.reason) == ("open", words)
    assert alone("above", None).reason == "0 seeds; 3 are needed"


def test_three_seeds_are_enough():
    assert alone("above", numbers(y=[0.03, 0.031, 0.029])).outcome == "holds"


def test_all_counted_parts_of_a_scale_share_one_correction():
    means = [0.030, 0.0080, 0.0077]
    parts = [Evidence(f"C{i}", part("above"), numbers(y=x(mean))) for i, mean in enumerate(means)]
    judged = judge([*parts, Evidence("C9", part("above"), missing="no records")], COMMON)
    raw = [scipy.stats.ttest_1samp(x(mean), 0, alternative="greater").pvalue for mean in means]
    by_hand = [3 * raw[0], 2 * raw[1], max(2 * raw[1], raw[2])]
    assert [one.p_holm for one in judged[:3]] == pytest.approx(by_hand, rel=1e-5)
    assert raw[1] < 0.05 < by_hand[1]
    assert [one.outcome for one in judged] == ["holds", "open", "open", "not run"]


# ---- other measures


def test_a_second_measure_that_says_the_opposite_is_written_into_the_verdict():
    others = {"tasks": numbers(gain=x(-0.02)), "choice": numbers(gain=x(-0.002, 0.02))}
    judged = alone("above", numbers(gain=x(0.03)), others)
    assert judged.outcome == "holds"  # it does not change the verdict
    assert [c.text for c in judged.contradictions] == ["but tasks: -0.020 [-0.028, -0.012]"]


def test_a_failing_part_can_be_contradicted_too_and_agreement_is_no_news():
    assert alone("above", numbers(gain=x(-0.02)), {"tasks": numbers(gain=x(0.02))}).contradictions[0].mean > 0
    assert not alone("above", numbers(gain=x(0.02)), {"tasks": numbers(gain=x(0.03))}).contradictions
    # A change below 0 that is within the margin on both measures is no contradiction.
    assert not alone("at_least", numbers(y=x(0.01)), {"tasks": numbers(y=x(-0.01))}, margin=0.03).contradictions


def test_the_column_that_another_measure_turns_round_is_named():
    others = {"choice": numbers(large=x(0.03), small=x(-0.02))}
    judged = alone("all_above", numbers(large=x(0.03), small=x(0.03)), others)
    assert [c.column for c in judged.contradictions] == ["small"]


# ---- claims


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ("holds", "replicated"),
        ("holds holds", "replicated"),
        ("holds shown", "replicated"),
        ("holds open", "partly"),
        ("holds fails", "partly"),
        ("fails open", "not replicated"),
        ("fails", "not replicated"),
        ("open open", "open"),
        ("holds not_run", "partly"),
        ("fails not_run", "not replicated"),
        ("open not_run", "open"),
        ("not_run not_run", "not run"),
    ],
)
def test_verdict_of_a_claim(outcomes, verdict):
    parts = [
        Judged(Evidence("C1", part("report" if outcome == "shown" else "above")), outcome.replace("_", " "))
        for outcome in outcomes.split()
    ]
    assert verdict_of(parts) == verdict
    assert verdict_of(parts, tried="90 minutes of search") == "condition not reached"
