"""What a reproduction says it is going to do, and how far it is."""

from __future__ import annotations

import json

import pytest

from pma.reproduce.bar import TrainingBar
from pma.reproduce.command import reproduce
from pma.reproduce.runs import required
from pma.run import run_folder


def test_the_plan_is_told_in_plain_words(compose_job, tmp_path, capsys):
    assert reproduce(compose_job("experiment=figure_3", f"runs_dir={tmp_path}", "dry_run=true")) == []
    plan = capsys.readouterr().out
    assert plan.startswith("Figure 3, scale smoke: ")
    assert "17.7k MoE, standing for 1.3B/13B, from scratch" in plan and "annealed fork of moe_main  " in plan
    assert "to train: 2 runs, 119k tokens, < 1 min, one after the other; 33 MB of snapshots" in plan
    assert "at most 17 models" in plan and str(tmp_path / "smoke") in plan
    assert plan.endswith("dry_run=true: nothing was done\n")


def test_lines_say_how_far_training_is(compose_job, tmp_path, monkeypatch, capsys):
    job = compose_job("experiment=figure_3", f"runs_dir={tmp_path}")
    configs = required(job, [job.experiment])
    for cfg in configs.values():
        run_folder(cfg).mkdir(parents=True)
    monkeypatch.setattr("pma.reproduce.bar.LINE_SECONDS", -1)
    bar, (main, fork) = TrainingBar(configs), configs
    metrics = run_folder(configs[main]) / "metrics.jsonl"
    for tokens, words in ((51_200, "43 % trained"), (configs[main].stop, "86 % trained")):
        with metrics.open("a") as file:
            file.write(json.dumps({"tokens": tokens, "loss": 4.5}) + "\n")
        bar.look([main])
        said = capsys.readouterr().out
        assert words in said and "moe_main-seed0 (loss 4.50)" in said and " left; in work" in said
    bar.ended(main)
    assert "1 of 2 runs: moe_main-seed0 trained to 102k tokens, loss 4.500" in capsys.readouterr().out
    bar.ended(fork)  # stopped before its end: out of time, which is said elsewhere
    bar.close()
    assert capsys.readouterr().out == ""


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
