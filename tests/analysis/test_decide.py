"""From records to verdicts: which seeds count, what is missing, and what is wrong with the numbers of a part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from claims_files import PART, SEEDS, write_claims
from records import Missing
from verdicts.decide import decide, decide_published
from verdicts.rules import load_rules


def write_manifest(root: Path, runs: dict[str, list[int]]) -> Path:
    (root / "mine").mkdir(parents=True)
    folders = {f"{run}-seed{seed}": "0" for run, seeds in runs.items() for seed in seeds}
    (root / "mine" / "manifest.json").write_text(json.dumps({"experiment": {}, "runs": folders, "seconds": 1.0}))
    return root


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
