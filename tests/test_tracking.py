"""Tracking: metrics.jsonl is whole after a kill, and W&B never stops a run."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys

import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image
from wandb_files import read_all

from pma import cli
from pma.config import CONF_DIR, TrackingConfig, TrainingJob
from pma.replay import ReplayJob, replay
from pma.tracking import Run, Tracker


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    with Tracker(tmp_path, 0, TrackingConfig(mode="off"), id="x") as tracker:
        for tokens in (10, 20, 30):
            tracker.log(tokens, loss=1.0 / tokens)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"tokens": 40, "lo')  # a kill in the middle of a line
    with Tracker(tmp_path, 20, TrackingConfig(mode="off"), id="x") as tracker:
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
        def log(self, row, step): ...
        def finish(self, exit_code): ...

    monkeypatch.setattr(wandb, "init", fail if broken == "init" else lambda **kwargs: Run())
    if broken != "init":
        monkeypatch.setattr(Run, broken, fail)
    with Tracker(tmp_path, 0, TrackingConfig(mode="offline"), id="x") as tracker:
        tracker.log(10, loss=1.0)
        tracker.log(20, loss=0.5)
    assert [row["tokens"] for row in rows(tmp_path)] == [10, 20]
    assert capsys.readouterr().err.count("no room") == 1


def test_what_is_sent_can_be_read_back_and_is_sent_once(tmp_path):
    published = CONF_DIR.parent / "runs" / "cpu" / "published"
    for name in ("figure_3", "moe_main-seed0", "annealed_moe_main-seed0"):
        shutil.copytree(published / name, tmp_path / "cpu" / name)
    tracking = TrackingConfig(mode="offline", project="p")
    job = OmegaConf.create({**vars(ReplayJob(runs_dir=str(tmp_path))), "tracking": vars(tracking)})
    with open(tmp_path / "cpu" / "figure_3" / "records.csv") as file:
        merges = {tuple(row[k] for k in ("run", "tokens")) for row in csv.DictReader(file) if row["method"] == "sma"}
    assert replay(job) == 2 + len(merges) + 2 + 1  # runs, merges, scores of both runs, the figure
    sent = read_all(tmp_path / "cpu")
    jobs = {job: [told for told in sent.values() if told["job_type"] == job] for job in ("train", "merge", "eval")}
    assert {told["group"] for told in sent.values()} == {"figure_3"}
    assert all(told["config"]["claims"] == ["C5"] for told in jobs["merge"] + jobs["train"])
    assert "schedule" in jobs["train"][0]["config"] and len(jobs["train"][0]["history"]) > 10
    made = {}
    for told in jobs["merge"]:
        ((name, merge),) = told["made"].items()
        assert list(told["used"]) == [source["snapshot"] for source in merge["metadata"]["sources"]]
        assert len(told["used"]) == merge["metadata"]["n"] == 10
        made[name] = merge
    scored = next(told for told in jobs["eval"] if made.keys() & told["used"].keys())
    assert made.keys() <= scored["used"].keys()  # the point of the figure, back to its snapshots
    assert [row["tokens"] for row in scored["history"]] == sorted(row["tokens"] for row in scored["history"])
    assert not any(entry[3] for told in sent.values() for one in told["used"].values() for entry in one["entries"])
    assert replay(job) == 0 and read_all(tmp_path / "cpu").keys() == sent.keys()


def test_a_picture_and_a_table_are_media(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "figure_1.png")
    with Run(tmp_path, TrackingConfig(mode="offline", tags=["figure_1", "C1"]), id="x", job_type="analysis") as run:
        run.image("figure_1", tmp_path / "figure_1.png")
        run.table("claims", pd.DataFrame({"claim": ["C1"]}))
    told = read_all(tmp_path)["x"]
    types = {key.split(".")[0]: row[key] for row in told["history"] for key in row if key.endswith("._type")}
    assert types == {"figure_1": "image-file", "claims": "table-file"}
    assert told["config"]["figures"] == ["figure_1"] and told["config"]["claims"] == ["C1"]


def test_the_runs_of_a_sweep_are_one_group(monkeypatch):
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)
    monkeypatch.setattr(sys, "argv", ["pma.train", "-m", "seed=0,1"])
    monkeypatch.setattr(cli, "_start", lambda *arguments: None)
    cli.run(replay, TrainingJob, "config")
    assert os.environ.pop("WANDB_RUN_GROUP").startswith("sweep-")
