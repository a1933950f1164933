"""A newcomer's seed beside the published ones: its numbers, and its bits."""

from __future__ import annotations

import re
import shutil

import claims
import pandas as pd
import pytest
from records import Study
from run_script import call, change_rows
from synthetic_world import World
from verdicts.newcomer import beside

CLAIMS = [f"C{i}" for i in range(1, 22)]


def test_seed_0_alone_has_a_number_for_every_part_and_the_published_bits(own, published, monkeypatch, capsys, tmp_path):
    runs = own(0)
    shutil.copytree(published, runs / "cpu" / "published")
    call(monkeypatch, claims, "--compare", f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    out = capsys.readouterr().out
    assert out.count("seeds 2 to 9") == 1  # there are no verdicts, said once
    lines = [line for line in out.splitlines() if re.match(r"C\d+ [a-z] ", line)]
    table = pd.read_csv(published / "seeds.csv")
    assert len(lines) == len(table[["claim", "part"]].drop_duplicates())
    assert all(re.search(r"(within|outside) \[", line) for line in lines)
    assert "Same bits as the published records of seed 0: Figure 1, " in out and "Other" not in out
    assert "note:" not in out
    assert "lie within" in out


def test_your_number_is_the_one_that_was_published_of_your_seed(own, published, rules):
    study, table = Study(own(0) / "cpu"), pd.read_csv(published / "seeds.csv")
    rows = {(row.claim.name, row.part.name): row for row in beside(study, Study(published), table, rules)}
    before = table[table["seed"] == 0].groupby(["claim", "part"])["value"].agg(list)
    for key, row in rows.items():
        assert any(row.number == pytest.approx(value) for value in before[key]), key
        assert row.others.n == 8
    # Published seeds that are your own are not what you are compared with.
    mine = beside(Study(published), Study(published), table, rules)
    assert all(row.others.n == 0 and row.within is None for row in mine)


def test_another_worlds_numbers_and_bits_differ(own, published, rules, monkeypatch, capsys, tmp_path):
    runs = own(0, world=World(heat=0.3))
    shutil.copytree(published, runs / "cpu" / "published")
    change_rows(runs / "cpu" / "figure_9" / "records.csv", lambda table: table.assign(config_hash="1"))
    call(monkeypatch, claims, "--compare", f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    out = capsys.readouterr().out
    assert re.search(r"^C1 a +\+0\.3\d\d  outside \[", out, re.MULTILINE)
    assert "Other bits than the published records of seed 0 (another processor: see dev/LOG.md): Figure 1" in out
    assert "Other runs or points than" in out and "Figure 9" in out.partition("Other runs or points")[2]


def test_a_part_that_cannot_be_computed_says_why_in_one_line(own, published, rules):
    root = own(0) / "cpu"
    shutil.rmtree(root / "figure_9")
    rows = beside(Study(root), Study(published), pd.read_csv(published / "seeds.csv"), rules)
    lines = {f"{row.claim.name} {row.part.name}": row.line for row in rows}
    why = "figure_9: no records of it here; make reproduce-figure-9 SCALE=cpu makes them"
    assert lines["C2 a"].split("-  ")[1] == why
    assert "within" in lines["C1 a"] or "outside" in lines["C1 a"]


def test_seeds_with_gaps_have_the_mean_of_their_numbers(own, published, monkeypatch, capsys, tmp_path):
    runs = own(0, 3, 7)
    shutil.copytree(published, runs / "cpu" / "published")
    call(monkeypatch, claims, "--compare", f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    out = " ".join(capsys.readouterr().out.split())
    assert "these records have seeds 3, 7." in out and "SEEDS=0,2,3,4,7" in out
    assert "in the mean over your seeds 0, 3, 7" in out
    assert "Same bits as the published records of seeds 0, 3, 7:" in out


def test_without_published_records_your_numbers_stand_alone(own, monkeypatch, capsys, tmp_path):
    runs = own(0)
    call(monkeypatch, claims, "--compare", f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    out = capsys.readouterr().out
    assert re.search(r"^C1 a +\+0\.1\d\d: on average over the sizes", out, re.MULTILINE)
    assert "Nothing is published at scale cpu" in out
    assert re.search(r"^C18 a +- .*needs at least 2", out, re.MULTILINE)
