"""claims.yaml: what it may hold, and what its hash is of."""

from __future__ import annotations

import pytest
from claims_files import PART, SEEDS, write_claims
from verdicts.rules import load_rules, rules_hash


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
