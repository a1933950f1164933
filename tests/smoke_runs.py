"""One end-to-end training of every experiment at scale smoke, shared by all tests that read trained runs.

    def test_something(smoke_runs):
        run = smoke_runs / "smoke" / "moe_main-seed0"            # config.yaml, metrics.jsonl, snapshots, ...
        records = smoke_runs / "smoke" / "figure_4" / "records.csv"

The folder is read only: a test that writes, or trains more, links what it needs into a folder of its own (`link_runs`).
Under xdist the first process that asks makes it, and the others wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from pma.config import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def call(*arguments: str) -> subprocess.CompletedProcess:
    """Run Python in the project's root with some arguments, as a user does."""
    return subprocess.run(
        [sys.executable, *arguments], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="session")
def smoke_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUNS of `python -m pma.reproduce experiment=all scale=smoke`: trained runs and records below RUNS/smoke."""
    base = tmp_path_factory.getbasetemp()
    runs = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke-runs"
    with FileLock(runs.with_suffix(".lock")):
        if not (runs / "whole").exists():
            arguments = ["experiment=all", "scale=smoke", f"runs_dir={runs}", "tracking=off"]
            result = call("-m", "pma.reproduce", *arguments)
            assert result.returncode == 0, result.stderr
            (runs / "stdout.txt").write_text(result.stdout)
            (runs / "whole").touch()
    return runs


def link_runs(smoke_runs: Path, runs_dir: Path, *names: str) -> None:
    """Make trained runs of `smoke_runs` stand in another runs folder, so that they are not trained again there."""
    (runs_dir / "smoke").mkdir(parents=True, exist_ok=True)
    for name in names:
        (runs_dir / "smoke" / name).symlink_to(smoke_runs / "smoke" / name)


def unscored_data(folder: Path) -> Path:
    """Return a new data folder with the corpora of the project and without scores."""
    data = folder / "data"
    data.mkdir(parents=True)
    (data / "corpora").symlink_to(ROOT / "data" / "corpora")
    return data
