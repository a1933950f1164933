"""Records that cannot be judged are refused, or named, in one line each."""

from __future__ import annotations

import shutil
from pathlib import Path

import claims
import pandas as pd
import pytest
from run_script import call, change_rows
from verdicts.frozen import published_hash


def fails(monkeypatch, runs: Path, tmp_path: Path) -> str:
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, claims, f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    line = str(stop.value)
    assert line.startswith("error: ") and "\n" not in line
    return line


@pytest.mark.parametrize(
    ("experiment", "name", "old", "why"),
    [
        ("figure_3", "records", lambda table: table[table["metric"] != "choice"], "no choice"),
        ("figure_3", "records", lambda table: table[~table["task"].str.startswith("heldout")], "no held-out text"),
        ("figure_8", "landscape", lambda table: table.drop(columns="seed"), "no seeds in landscape.csv"),
    ],
)
def test_records_of_the_first_protocol_are_refused_in_one_line(own, monkeypatch, tmp_path, experiment, name, old, why):
    runs = own(0)
    change_rows(runs / "cpu" / experiment / f"{name}.csv", old)
    line = fails(monkeypatch, runs, tmp_path)
    assert f"records of the first protocol, {experiment} ({why})" in line and "make reproduce" in line


def test_a_seed_that_stands_twice_is_refused_in_one_line(own, monkeypatch, tmp_path):
    runs = own(0, 2)
    change_rows(runs / "cpu" / "figure_3" / "records.csv", lambda table: pd.concat([table, table[table["seed"] == 2]]))
    line = fails(monkeypatch, runs, tmp_path)
    assert "figure_3/records.csv: " in line and "seed 2 stands there twice" in line and "reproduce-figure-3" in line


def test_a_seed_that_an_experiment_lacks_is_named_once(own, monkeypatch, tmp_path, capsys):
    runs = own(0, 2, 3, 4)
    folder = runs / "cpu" / "figure_4"
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"moe_main-seed3": "0", ', ""))
    call(monkeypatch, claims, f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    out = capsys.readouterr().out
    notes = [line for line in out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and "figure_4 lacks seed 3" in notes[0]
    assert "make reproduce-figure-4 SCALE=cpu SEEDS=0,2,3,4" in notes[0]
    table = pd.read_csv(tmp_path / "out" / "cpu" / "claims.csv").set_index(["claim", "part"])
    assert (table.loc[("C7", "a"), "n"], table.loc[("C5", "a"), "n"]) == (2, 3)


def test_records_judged_under_other_rules_say_so(own, published, monkeypatch, capsys, tmp_path):
    runs = own(0)
    shutil.copytree(published, runs / "cpu" / "published")
    manifest = runs / "cpu" / "published" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(published_hash(published), "1" * 64))
    call(monkeypatch, claims, "--compare", f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert (
        len(notes) == 1
        and "are not those that the published records of scale cpu were made under (111111111111)" in notes[0]
    )
