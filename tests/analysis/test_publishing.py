"""Publishing: seeds that come one by one make the records of all at once, and runs that differ are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from publish import publish
from synthetic_world import World, write_world


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def publish_seeds(runs: Path, *seeds: int) -> Path:
    """Make records of some seeds in a runs folder, and publish them."""
    for folder in filter(lambda path: path.name != "published", runs.glob("cpu/*")):
        shutil.rmtree(folder)
    write_world(runs / "fresh", World(), seeds)
    for folder in (runs / "fresh").iterdir():
        folder.rename(runs / "cpu" / folder.name)
    (runs / "fresh").rmdir()
    return publish(runs, "cpu")


def test_seeds_add_up_to_the_records_of_all(tmp_path):
    runs = {name: tmp_path / name for name in ("at_once", "by_and_by")}
    for folder in runs.values():
        (folder / "cpu").mkdir(parents=True)
    whole = tree(publish_seeds(runs["at_once"], 0, 2, 3))
    publish_seeds(runs["by_and_by"], 3)
    publish_seeds(runs["by_and_by"], 0, 2)
    parts = tree(publish_seeds(runs["by_and_by"], 2))  # again: its rows take the place of the old ones
    assert parts.keys() == whole.keys()
    assert [name for name, content in parts.items() if content != whole[name]] == []
    assert json.loads(whole["manifest.json"])["seeds"] == [0, 2, 3]
    assert not [name for name in whole if name.endswith(".parquet")]


def test_a_run_keeps_the_curve_that_published_records_rest_on(tmp_path):
    runs = tmp_path / "runs"
    (runs / "cpu").mkdir(parents=True)
    published = publish_seeds(runs, 2) / "moe_main-seed2" / "metrics.jsonl"
    before = published.read_bytes()
    curve = runs / "cpu" / "moe_main-seed2" / "metrics.jsonl"
    curve.write_bytes(before.replace(b"0", b"1"))  # trained again, on another machine
    shutil.move(runs / "cpu" / "figure_4", tmp_path)
    publish(runs, "cpu")
    assert published.read_bytes() == before
    shutil.move(tmp_path / "figure_4", runs / "cpu")
    publish(runs, "cpu")
    assert published.read_bytes() == curve.read_bytes() != before


def test_a_run_of_another_config_is_refused(tmp_path):
    runs = tmp_path / "runs"
    (runs / "cpu").mkdir(parents=True)
    before = tree(publish_seeds(runs, 2))
    path = runs / "cpu" / "moe_main-seed2" / "config.yaml"
    config = json.loads(path.read_text())
    config["schedule"]["peak_lr"] *= 2
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"moe_main-seed2: trained with another config than the published moe_main"):
        publish(runs, "cpu")
    assert tree(runs / "cpu" / "published") == before
