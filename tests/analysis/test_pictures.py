"""The published pictures: the same bytes each time, and a picture that is older than its records is found."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pictures
import pytest
import verify
from drawing.description import Line
from drawing.front import spread

NAMES = ("figure_3", "figure_4")
# C5 stands on Figure 3, C6 and C7 on Figure 4.
DRAWN = {"figure_3.svg", "figure_4.svg", "readme-light.svg", "readme-dark.svg", "C5.svg", "C6.svg", "C7.svg"}


def pictures_in(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*.svg")}


@pytest.fixture(scope="module")
def drawn(world, tmp_path_factory) -> tuple[Path, Path]:
    """A runs folder with a few published experiments, and the folder of their pictures."""
    root = tmp_path_factory.mktemp("pictures")
    for folder in world.iterdir():
        if folder.name in NAMES or "-seed" in folder.name:
            shutil.copytree(folder, root / "runs" / "cpu" / "published" / folder.name)
    pictures.write(root / "runs", root / "figures")
    return root / "runs", root / "figures"


def test_every_experiment_and_claim_has_a_picture_and_the_readme_has_two(drawn):
    runs, folder = drawn
    assert {path.name for path in folder.rglob("*.svg")} == DRAWN
    assert (folder / "claims" / "C5.svg").is_file()
    assert pictures.stale(runs, folder) == []


def test_a_picture_has_the_same_bytes_each_time(drawn, tmp_path):
    runs, folder = drawn
    assert len(pictures.write(runs, tmp_path)) == len(DRAWN)
    for name, path in pictures_in(folder).items():
        assert (tmp_path / name).read_bytes() == path.read_bytes()
    assert pictures.write(runs, tmp_path) == []  # a second call changes nothing


@pytest.fixture
def changed(drawn):
    """A record of Figure 3 that is not what was drawn."""
    path = drawn[0] / "cpu" / "published" / "figure_3" / "records.csv"
    text = path.read_text()
    records = pd.read_csv(path)
    records.loc[(records["task"] == "heldout") & (records["method"] == "sma"), "value"] += 1e-4
    records.to_csv(path, index=False)
    yield drawn
    path.write_text(text)


def test_verify_fails_when_a_picture_is_older_than_its_records(changed, monkeypatch, capsys):
    runs, folder = changed
    for other in ("verify", "stale_sample"):  # README, claims and report have tests of their own
        monkeypatch.setattr(verify, other, lambda *_: [])
    monkeypatch.setattr(sys, "argv", ["verify.py", f"--runs-dir={runs}", f"--figures={folder}"])
    with pytest.raises(SystemExit) as stop:
        verify.main()
    assert stop.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    named = {Path(line.partition(":")[0]).name for line in lines}
    assert named == {"figure_3.svg", "C5.svg", "readme-light.svg", "readme-dark.svg"}  # Figure 4 shows other records
    assert all("python analysis/pictures.py" in line for line in lines)


def test_a_missing_picture_and_one_without_its_hash_are_found(drawn, tmp_path):
    runs, folder = drawn
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "figure_3.svg").unlink()
    (tmp_path / "figure_4.svg").write_text("<svg/>")
    missing, unknown = sorted(pictures.stale(runs, tmp_path))
    assert "figure_3.svg: missing" in missing and "figure_4.svg: older" in unknown


def test_the_last_digits_of_another_processor_do_not_count():
    y = np.array([0.1 + 0.2, 1e-17])
    first, second = (Line("a", "b", np.arange(2), values) for values in (y, np.array([0.3, -1e-17])))
    assert pictures.shown(first) == pictures.shown(second)
    assert pictures.shown(first) != pictures.shown(Line("a", "b", np.arange(2), np.array([0.3001, 0])))


def test_names_on_the_lines_do_not_touch():
    lines = [Line(name, "", np.arange(2), np.array([0, end])) for name, end in (("a", 1.0), ("b", 1.1), ("c", 3.0))]
    assert [(line.label, y) for line, y in spread(lines, 0.5)] == [("a", 1.0), ("b", 1.5), ("c", 3.0)]
