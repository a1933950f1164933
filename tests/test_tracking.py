"""Tracking: metrics.jsonl is whole after a kill, and W&B never stops a run."""

from __future__ import annotations

import json

import pytest

from pma.config import TrackingConfig
from pma.tracking import Tracker


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    with Tracker(tmp_path, 0, TrackingConfig(mode="off")) as tracker:
        for tokens in (10, 20, 30):
            tracker.log(tokens, loss=1.0 / tokens)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"tokens": 40, "lo')  # a kill in the middle of a line
    with Tracker(tmp_path, 20, TrackingConfig(mode="off")) as tracker:
        tracker.log(30, loss=0.5)
    assert rows(tmp_path) == [
        {"tokens": 10, "loss": 0.1},
        {"tokens": 20, "loss": 0.05},
        {"tokens": 30, "loss": 0.5},
    ]


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_a_broken_wandb_costs_one_warning(tmp_path, monkeypatch, capsys, broken):
    import wandb

    def fail(*args, **kwargs):
        raise RuntimeError("no room")

    class Run:
        def define_metric(self, *args, **kwargs): ...
        def log(self, row): ...
        def finish(self, exit_code): ...

    monkeypatch.setattr(wandb, "init", fail if broken == "init" else lambda **kwargs: Run())
    if broken != "init":
        monkeypatch.setattr(Run, broken, fail)
    with Tracker(tmp_path, 0, TrackingConfig(mode="offline"), id="x") as tracker:
        tracker.log(10, loss=1.0)
        tracker.log(20, loss=0.5)
    assert [row["tokens"] for row in rows(tmp_path)] == [10, 20]
    assert capsys.readouterr().err.count("no room") == 1
