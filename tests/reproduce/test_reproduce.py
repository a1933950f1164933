"""The command from start to end: what it refuses first, and how it goes on after a kill or after its minutes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from smoke_runs import ENVIRONMENT, link_runs, unscored_data

from pma.config import ROOT
from pma.reproduce.__main__ import main
from pma.reproduce.command import reproduce


def assert_same_records(smoke_runs, runs, experiment):
    for name in ("records.csv", "items.parquet"):
        ours, whole = (folder / "smoke" / experiment / name for folder in (runs, smoke_runs))
        assert ours.read_bytes() == whole.read_bytes(), name


def test_a_killed_reproduction_goes_on_to_the_same_records(smoke_runs, compose_job, tmp_path):
    link_runs(smoke_runs, tmp_path, "moe_main-seed0")
    options = ["experiment=figure_3", f"runs_dir={tmp_path}", f"data_dir={unscored_data(tmp_path)}", "jobs=1"]
    command = [sys.executable, "-m", "pma.reproduce", "scale=smoke", "tracking=off", "threads=1", *options]
    watched = tmp_path / "smoke" / "annealed_moe_main-seed0" / "metrics.jsonl"
    process = subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not (watched.exists() and watched.stat().st_size):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert reproduce(compose_job(*options)) == [tmp_path / "smoke" / "figure_3"]
    assert_same_records(smoke_runs, tmp_path, "figure_3")


def test_a_reproduction_in_pieces_of_time_makes_the_same_records(smoke_runs, compose_job, tmp_path, capsys):
    link_runs(smoke_runs, tmp_path, "moe_main-seed0")
    options = ["experiment=figure_3", f"runs_dir={tmp_path}", f"data_dir={unscored_data(tmp_path)}", "jobs=1"]
    first, pieces = "minutes=0.0001", 0
    for minutes in (first, *["minutes=0.1"] * 10):
        pieces += 1
        folders = reproduce(compose_job(*options, minutes))
        if "minutes are over; the same command goes on" not in capsys.readouterr().out:
            break
        assert folders == [] and not (tmp_path / "smoke" / "figure_3").exists()
    assert pieces > 1 and folders == [tmp_path / "smoke" / "figure_3"]
    assert_same_records(smoke_runs, tmp_path, "figure_3")


def test_the_next_command_is_printed_when_the_records_are_there(smoke_runs, compose_job, tmp_path, capsys):
    main(compose_job("experiment=figure_4", f"runs_dir={smoke_runs}"))
    nothing, following = capsys.readouterr().out.splitlines()
    assert "nothing to do" in nothing
    assert following == f"next: python analysis/draw.py --scale smoke --runs-dir {smoke_runs} figure_4"
    main(compose_job("experiment=figure_4", f"runs_dir={tmp_path}", "dry_run=true"))
    assert "next:" not in capsys.readouterr().out


def test_a_training_run_that_fails_is_named_and_the_others_are_kept(compose_job, smoke_runs, tmp_path):
    link_runs(smoke_runs, tmp_path, "moe_main-seed0")
    (tmp_path / "smoke" / "annealed_moe_main-seed0").write_text("in the way")
    job = compose_job("experiment=figure_3", f"runs_dir={tmp_path}", "jobs=1")
    with pytest.raises(ValueError, match=r"training failed: run=annealed_moe_main seed=0: .*Call again after mending"):
        reproduce(job)


def test_what_scoring_needs_is_asked_for_before_training(two_merges, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    for override, message in (
        ("scale.scoring=vllm", "vLLM is not installed"),
        ("scale.suite=paper", "HF_ALLOW_CODE_EVAL=1"),
        ("scoring_python=/nowhere/python", "scoring_python=/nowhere/python: give"),
    ):
        with pytest.raises(ValueError, match=message):
            reproduce(two_merges(f"runs_dir={tmp_path}", override))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "override,message",
    [
        ("minutes=0", "minutes=0.0: give more than 0"),
        ("jobs=0", "jobs=0: give at least one seed and one job"),
        ("seeds=[]", r"seeds=\[\] jobs=2: give at least one seed"),
        ("seeds=[2,3,2]", r"seeds=\[2, 3, 2\]: 2 stands there twice"),
        ("launcher=pbs", "launcher=pbs: choose slurm, local"),
        ("merges_per_job=0", "merges_per_job=0: give at least 1"),
        ("scale=paper", "scale=paper needs a cluster"),
    ],
)
def test_impossible_options_are_refused(compose_job, override, message):
    with pytest.raises(ValueError, match=message):
        reproduce(compose_job("experiment=figure_4", override))
