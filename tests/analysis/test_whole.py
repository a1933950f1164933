"""Records that are cut short or say something else are named in one line, and nothing is drawn from them."""

from __future__ import annotations

import json

import claims
import draw
import pandas as pd
import pytest
import report
from records import Missing, Study
from run_script import call, change_rows

EXPERIMENTS = ("figure_1", "figure_8")


@pytest.fixture
def study(tmp_path, copy_published) -> Study:
    """Two published experiments and their runs, to be damaged."""
    copy_published(EXPERIMENTS, tmp_path / "cpu")
    return Study(tmp_path / "cpu")


def ends(monkeypatch, script, *arguments: str) -> str:
    """The one line that a script ends with."""
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, script, *arguments)
    line = str(stop.value)
    assert line.startswith("error: ") and "\n" not in line
    return line


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda table: table[: len(table) // 2], "not whole, rows of "),
        (lambda table: table[len(table) // 2 :], "not whole, rows of "),
        (lambda table: table[:-1], "not whole, rows of "),
        (lambda table: table.assign(value="text"), "column value holds something else than numbers"),
        (lambda table: table.assign(tokens="many"), "column tokens holds something else than numbers"),
        (lambda table: table.drop(columns="value"), "columns "),
    ],
)
def test_damaged_records_are_named(study, tmp_path, monkeypatch, change, message):
    change_rows(study.root / "figure_1" / "records.csv", change)
    places = [f"--runs-dir={tmp_path}", f"--out-dir={tmp_path / 'out'}"]
    line = ends(monkeypatch, draw, *places, "figure_1")
    assert "figure_1/records.csv: " in line and message in line and "put back the file" in line
    assert not (tmp_path / "out").exists()
    assert "figure_1/records.csv: " in ends(monkeypatch, claims, *places)
    (study.root.parent / "published" / "cpu").mkdir(parents=True)
    study.root.rename(study.root.parent / "published" / "cpu" / "published")
    assert "figure_1/records.csv: " in ends(monkeypatch, report, f"--runs-dir={tmp_path / 'published'}")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\xff", b"{", b"a,b\n1,2\n"])
@pytest.mark.parametrize("name", ["figure_1/records.csv", "figure_8/landscape.csv", "figure_1/manifest.json"])
def test_what_is_no_table_is_named(study, monkeypatch, tmp_path, name, content):
    (study.root / name).write_bytes(content)
    line = ends(monkeypatch, draw, f"--runs-dir={tmp_path}", f"--out-dir={tmp_path / 'out'}", name.partition("/")[0])
    assert name in line


@pytest.mark.parametrize(
    "name,content,message",
    [
        ("metrics.jsonl", b"", "ends at 0 tokens, and the run at"),
        ("metrics.jsonl", b'{"tokens": 4915200, "loss": "low"}\n', "loss is no number"),
        ("metrics.jsonl", b"[1]\n", "line 1: a JSON object should"),
        ("config.yaml", b"[", "not readable as YAML"),
        ("config.yaml", b"text", "a mapping should stand there"),
        ("config.yaml", b"scale: {}", "has no merge_interval"),
        ("manifest.json", b"[]", "a JSON object should"),
        ("manifest.json", json.dumps({"parameters": 7}).encode(), "parameters is '7'"),
    ],
)
def test_a_damaged_run_is_named(study, name, content, message):
    (study.root / "moe_main-seed0" / name).write_bytes(content)
    read = {
        "metrics.jsonl": lambda: study.curve("moe_main", 0),
        "config.yaml": lambda: study.config("moe_main", 0)["scale"]["merge_interval"],
        "manifest.json": lambda: study.parameters("moe_main"),
    }
    with pytest.raises(ValueError, match=message) as error:
        read[name]()
    assert f"moe_main-seed0/{name}" in str(error.value) and not isinstance(error.value, Missing)


def test_whole_records_are_read_as_they_are(study):
    assert len(study.records("figure_1")) == len(pd.read_csv(study.file("figure_1", "records.csv")))
    assert len(study.curve("moe_main", 2)) and study.config("moe_main", 2)["model"]["kind"] == "moe"
