"""Parts and claims judged by hand-made numbers of seeds whose outcome can be recomputed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import yaml
from records import Missing
from verdicts.decide import decide, decide_published
from verdicts.judge import Evidence, Judged, Numbers, judge, verdict_of
from verdicts.rules import Common, Part, load_rules, rules_hash
from verdicts.student import Student, holm

SEEDS = [2, 3, 4, 5, 6, 7, 8, 9]
COMMON = Common(
    alpha=0.05,
    least_seeds=3,
    exploratory=(0, 1),
    confirmatory=tuple(SEEDS),
    smallest={"text": 0.005, "tasks": 0.005, "choice": 0.005, "nats": 0.01},
    margin_share=1 / 3,
)
# Eight numbers of mean 0 and standard deviation 1.
NOISE = scipy.stats.zscore([-3.0, 1.0, 4.0, -1.0, 5.0, -9.0, 2.0, 6.0], ddof=1)


def x(mean: float, sd: float = 0.01, n: int = 8) -> np.ndarray:
    """n numbers; with all eight, of exactly this mean and standard deviation."""
    return (mean + sd * NOISE)[:n]


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


# ---- Student's t


def test_mean_interval_and_p_are_those_of_the_t_test():
    values = x(0.012)
    ours, theirs = Student.of(values), scipy.stats.ttest_1samp(values, 0, alternative="greater")
    assert ours.p_above == pytest.approx(theirs.pvalue, rel=1e-6)
    assert ours.p_below == pytest.approx(1 - theirs.pvalue, rel=1e-6)
    assert ours.interval() == pytest.approx(tuple(scipy.stats.ttest_1samp(values, 0).confidence_interval()), rel=1e-6)


def test_a_new_seed_falls_into_the_prediction_interval_as_often_as_it_says():
    drawn = np.random.default_rng(0).normal(1.0, 2.0, size=(4000, 9))
    inside = 0
    for row in drawn:
        low, high = Student.of(row[:8]).prediction()
        inside += low <= row[8] <= high
    assert inside / len(drawn) == pytest.approx(0.95, abs=0.012)
    half = 2.364624 * 0.01 * math.sqrt(1 + 1 / 8)  # t(.975; 7) of a table
    assert Student.of(x(0.03)).prediction() == pytest.approx((0.03 - half, 0.03 + half), rel=1e-5)


@pytest.mark.parametrize("values", [[], [0.3]])
def test_below_two_seeds_nothing_is_known_of_the_scatter(values):
    student = Student.of(values)
    assert all(math.isnan(number) for number in (*student.interval(), *student.prediction(), student.p_above))


def test_numbers_without_scatter_are_sure_and_zeros_favour_nobody():
    assert (Student.of([0.1] * 3).p_above, Student.of([0.1] * 3).p_below) == (0, 1)
    # What differs by rounding alone is 0.
    rounding = Student.of([0.1 + 0.2 - 0.3] * 3)
    assert (rounding.p_above, rounding.p_below) == (1, 1)


def test_holm_as_by_hand():
    # sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, never falling: .04 .06 .06 .06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


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
    assert judged.reason == "nothing to take a share of: annealing_gain is not above 0"


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


# ---- from records to verdicts


def write_claims(path: Path, part_a: dict, **claim) -> Path:
    """A claims file of one claim."""
    entry = {"source": "Figure 1", "text": "t", "paper": "p", "experiments": ["mine"], "parts": {"a": part_a}, **claim}
    common = {**vars(COMMON), "exploratory": [0, 1], "confirmatory": SEEDS}
    path.write_text(yaml.safe_dump({"common": common, "claims": {"C1": entry}}))
    return path


def write_manifest(root: Path, runs: dict[str, list[int]]) -> Path:
    (root / "mine").mkdir(parents=True)
    folders = {f"{run}-seed{seed}": "0" for run, seeds in runs.items() for seed in seeds}
    (root / "mine" / "manifest.json").write_text(json.dumps({"experiment": {}, "runs": folders, "seconds": 1.0}))
    return root


PART = {"says": "a gain", "rule": "above", "evidence": "gain"}


def gain(study, measure, seeds, scale=1.0):
    """.03 for every seed and a little more for each; the mean over the seeds asked for as a second number."""
    if measure == "choice":
        raise Missing("no choice in these records")
    sign = -1 if measure == "tasks" else 1
    return pd.DataFrame({"gain": [sign * scale * (0.03 + 0.001 * seed) for seed in seeds]}, index=list(seeds))


def test_only_confirmatory_seeds_count_and_the_exploratory_ones_are_carried_along(tmp_path):
    root = write_manifest(tmp_path / "cpu", {"small": [0, 1, 2, 3, 4, 7, 100], "large": [0, 2, 3, 4, 5]})
    rules = load_rules(write_claims(tmp_path / "claims.yaml", PART), {"gain"})
    decisions = decide(root, rules, {"gain": gain})
    judged = decisions["C1"].parts[0]
    assert judged.seeds == [2, 3, 4]  # every run of the experiment has them
    assert judged.headline.mean == pytest.approx(0.033)
    assert decisions["C1"].verdict == "replicated"
    assert decisions["C1"].outcomes.startswith("a holds, but tasks: -0.033 [")
    table = decisions.seeds_table()
    assert list(table.columns) == ["claim", "part", "column", "seed", "value"]
    assert table["seed"].tolist() == [0, 2, 3, 4]
    assert table["value"].tolist() == pytest.approx([0.030, 0.032, 0.033, 0.034])


def test_seeds_csv_is_enough_to_check_a_verdict_with_a_margin(tmp_path):
    root = write_manifest(tmp_path / "cpu", {"small": SEEDS})
    entry = {"says": "s", "rule": "at_least", "evidence": "gain", "margin_of": "other", "settings": {"scale": -0.2}}
    rules = load_rules(write_claims(tmp_path / "claims.yaml", entry), {"gain", "other"})

    def other(study, measure, seeds):  # takes none of the part's settings
        return pd.Series(0.03 + 0.002 * np.cos(seeds), index=seeds)

    decisions = decide(root, rules, {"gain": gain, "other": other})
    table = decisions.seeds_table().pivot(index="seed", columns="column", values="value")
    by_hand = table["gain"] + table["margin_of other"] / 3
    p = scipy.stats.ttest_1samp(by_hand, 0, alternative="greater").pvalue
    assert decisions["C1"].parts[0].p == pytest.approx(p, rel=1e-6)


def test_a_missing_record_is_said_by_name(tmp_path):
    rules = load_rules(write_claims(tmp_path / "claims.yaml", PART), {"gain"})
    nothing = decide(tmp_path / "cpu", rules, {"gain": gain})["C1"]
    assert nothing.verdict == "not run"
    assert "mine" in nothing.why

    def lacking(study, measure, seeds):
        raise Missing("mine: no score at 172 V")

    root = write_manifest(tmp_path / "cpu", {"small": SEEDS})
    decision = decide(root, rules, {"gain": lacking})["C1"]
    assert (decision.verdict, decision.why) == ("not run", "mine: no score at 172 V")


def test_a_newcomers_seed_has_its_number_and_no_verdict(tmp_path):
    root = write_manifest(tmp_path / "cpu", {"small": [0]})
    rules = load_rules(write_claims(tmp_path / "claims.yaml", PART), {"gain"})
    decision = decide(root, rules, {"gain": gain})["C1"]
    assert (decision.verdict, decision.parts[0].reason) == ("open", "0 seeds; 3 are needed")
    assert decision.parts[0].evidence.exploratory.values["gain"].tolist() == [0.03]


def test_a_seed_that_gives_no_number_is_named(tmp_path):
    root = write_manifest(tmp_path / "cpu", {"small": SEEDS})
    rules = load_rules(write_claims(tmp_path / "claims.yaml", PART), {"gain"})

    def gaps(study, measure, seeds):
        return gain(study, measure, seeds).where(np.asarray(seeds)[:, None] != 5)

    judged = decide(root, rules, {"gain": gaps})["C1"].parts[0]
    assert (judged.outcome, judged.reason, len(judged.seeds)) == ("holds", "no number of seed 5", 7)


def test_a_seed_twice_and_two_columns_for_one_are_errors(tmp_path):
    root = write_manifest(tmp_path / "cpu", {"small": SEEDS})
    rules = load_rules(write_claims(tmp_path / "claims.yaml", PART), {"gain"})
    with pytest.raises(ValueError, match="C1 a, gain: seed 2 stands there twice"):
        decide(root, rules, {"gain": lambda study, measure, seeds: gain(study, measure, [2, *seeds])})
    with pytest.raises(ValueError, match="C1 a: rule above judges one column"):
        decide(root, rules, {"gain": lambda *a: gain(*a).assign(second=1.0)})


def test_a_condition_that_was_not_reached_says_what_was_tried(tmp_path):
    path = write_claims(tmp_path / "claims.yaml", PART, tried="rates up to 0.1 on seeds 100 to 103", parts={})
    decision = decide(tmp_path / "cpu", load_rules(path, {"gain"}), {"gain": gain})["C1"]
    assert (decision.verdict, decision.why) == ("condition not reached", "rates up to 0.1 on seeds 100 to 103")


def test_nothing_published_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no records published"):
        decide_published(tmp_path, load_rules(write_claims(tmp_path / "claims.yaml", PART), {"gain"}))


# ---- claims.yaml


def test_the_claims_file_reads_and_every_evidence_is_there():
    rules = load_rules()
    assert set(rules.common.confirmatory) == set(SEEDS)
    parts = [part for claim in rules.claims for part in claim.parts]
    assert all(part.says and part.unit for part in parts)
    assert all(part.smallest == 0.005 for part in rules.claims[0].parts)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": "most"}, "rule is most; it can be above"),
        ({"evidence": "nowhere"}, "evidence names nowhere"),
        ({"colour": "red"}, "unknown key colour"),
        ({"measure": "accuracy"}, "measure is accuracy"),
        ({"rule": "level", "margin": 0.1, "margin_of": "gain"}, "margin and margin_of"),
        ({"rule": "level", "margin_of": "nowhere"}, "margin_of names nowhere"),
        ({"rule": "level"}, "needs margin or margin_of"),
        ({"margin": 0.1}, "does not read margin"),
        ({"rule": "level", "margin": 0.1, "smallest": 0.1}, "does not read smallest"),
        ({"rule": "report"}, "no part counts"),
    ],
)
def test_a_wrong_part_is_named_with_its_key(tmp_path, change, words):
    path = write_claims(tmp_path / "claims.yaml", {**PART, **change})
    with pytest.raises(ValueError, match=words) as error:
        load_rules(path, {"gain"})
    assert "claim C1" in str(error.value)
    assert "part a" in str(error.value) or "no part counts" in str(error.value)


def test_a_key_that_is_missing_is_named(tmp_path):
    path = write_claims(tmp_path / "claims.yaml", {"rule": "above", "evidence": "gain"})
    with pytest.raises(ValueError, match="claim C1, part a: says is missing"):
        load_rules(path, {"gain"})


def test_the_hash_is_of_what_decides_and_not_of_its_wording(tmp_path):
    path = write_claims(tmp_path / "claims.yaml", PART)
    before = rules_hash(path)
    assert len(before) == 64 and load_rules(path, {"gain"}).sha256 == before
    wording = {"text": "better said", "paper": "q", "measure": "why it is the same question", "limits": "one machine"}
    assert rules_hash(write_claims(path, {**PART, "says": "better said"}, **wording)) == before
    path.write_text(path.read_text() + "# a comment\nchanged_after_data: [one margin]\n")
    assert rules_hash(path) == before and load_rules(path, {"gain"}).changed_after_data == ("one margin",)


@pytest.mark.parametrize(
    ("part", "claim"),
    [
        ({"smallest": 0.01}, {}),
        ({"rule": "all_above"}, {}),
        ({"settings": {"at": 200}}, {}),
        ({}, {"experiments": ["another"]}),
        ({}, {"tried": "rates"}),
    ],
)
def test_the_hash_changes_with_any_rule(tmp_path, part, claim):
    before = rules_hash(write_claims(tmp_path / "before.yaml", PART))
    assert rules_hash(write_claims(tmp_path / "after.yaml", {**PART, **part}, **claim)) != before


def test_the_hash_changes_with_the_common_block(tmp_path):
    path = write_claims(tmp_path / "claims.yaml", PART)
    before = rules_hash(path)
    path.write_text(path.read_text().replace("alpha: 0.05", "alpha: 0.1"))
    assert rules_hash(path) != before
