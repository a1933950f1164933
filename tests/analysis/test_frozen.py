"""Rules before data: the frozen hash, and a change that came after."""

from __future__ import annotations

from dataclasses import replace

import pytest
from records import Study
from verdicts.decide import Family
from verdicts.document import claims_sections
from verdicts.frozen import change_text, frozen_hash, published_hash
from verdicts.rules import BEYOND, load_rules


def test_the_published_records_were_made_under_the_rules_of_claims_yaml(published_cpu, rules):
    """Or claims.yaml says what changed after data."""
    hashes = {frozen_hash()} | ({published_hash(published_cpu)} if (published_cpu / "seeds.csv").exists() else set())
    assert hashes == {rules.sha256} or rules.changed_after_data


def test_the_questions_left_open_were_put_before_their_records(published_cpu):
    """Or beyond.yaml says what changed after data."""
    rules = load_rules(BEYOND)
    recorded = any((published_cpu / name).is_dir() for name in rules.experiments)
    hashes = {frozen_hash(BEYOND)} | ({published_hash(published_cpu, BEYOND)} if recorded else set())
    assert hashes == {rules.sha256} or rules.changed_after_data


def test_a_change_after_data_is_said_wherever_verdicts_stand(published, decided, rules):
    assert change_text(rules, published) == ""
    changed = replace(rules, sha256="2" * 64)
    assert "say under changed_after_data" in change_text(changed, published)
    said = replace(changed, changed_after_data=("C3 a: margin 0.02 instead of a third",))
    assert change_text(said, published) == "Changed after data: C3 a: margin 0.02 instead of a third."
    assert change_text(said, published) in claims_sections(Family(said, {"cpu": decided}), {"cpu": Study(published)})


def test_publishing_copies_the_frozen_hash_and_needs_one(published, own, tmp_path, monkeypatch):
    assert published_hash(published) == frozen_hash()
    assert published_hash(published, BEYOND) == frozen_hash(BEYOND)
    with pytest.raises(ValueError, match=r"before data, python analysis/claims.py --freeze writes it"):
        frozen_hash(tmp_path / "none.yaml")
