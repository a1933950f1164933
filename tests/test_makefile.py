"""Make finds experiments by their files, a study of your own among them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_new_experiment_file_is_a_target(tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    for name in ("all", "figure_4", "my-own_study"):
        (tmp_path / "conf" / "experiment" / f"{name}.yaml").touch()
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).touch()

    def make(*arguments: str) -> str:
        command = ["make", "--no-print-directory", "-n", "-C", str(tmp_path), "-f", str(ROOT / "Makefile"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    for target, name in (("reproduce-figure-4", "figure_4"), ("reproduce-my-own-study", "my-own_study")):
        lines = [line for line in make(target, "SCALE=smoke").splitlines() if name in line]
        assert [line.split()[0:3] for line in lines] == [
            [".venv/bin/python", "-m", "pma.reproduce"],
            [".venv/bin/python", "analysis/draw.py", "--scale"],
            [".venv/bin/python", "-m", "pma.replay"],
        ]
        assert lines and "next: make claims SCALE=smoke" in make(target, "SCALE=smoke").splitlines()[-1]
    assert "figure-4 my-own-study" in make("help")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_help_names_every_target_and_what_to_do_first():
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True)
    described = re.findall(r"^([a-zA-Z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(described) > 10 and all(f"  make {target} " in done.stdout for target in described)
    assert "figure-3" in done.stdout and max(map(len, done.stdout.splitlines())) < 140
    assert [line for line in done.stdout.splitlines() if "directory" not in line][-1] == "next: make figures"
