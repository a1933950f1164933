"""Tracking: metrics.jsonl is whole after a kill, and W&B never stops a run."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image
from wandb_files import read_all

from pma import cli
from pma.config import CONF_DIR, TrackingConfig, TrainingJob
from pma.replay import ReplayJob, merged, replay
from pma.tracking import Run, Tracker, mode_of, model_artifact


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


def _keep_seed_0(experiment: Path) -> None:
    """Leave the records of one seed of a published experiment."""
    records = pd.read_csv(experiment / "records.csv", dtype=str, keep_default_na=False)
    records[records["seed"] == "0"].to_csv(experiment / "records.csv", index=False)
    manifest = json.loads((experiment / "manifest.json").read_text())
    manifest["runs"] = {run: of_run for run, of_run in manifest["runs"].items() if run.endswith("-seed0")}
    (experiment / "manifest.json").write_text(json.dumps(manifest))


def test_what_is_sent_can_be_read_back_and_is_sent_once(tmp_path):
    published = CONF_DIR.parent / "runs" / "cpu" / "published"
    for name in ("figure_3", "moe_main-seed0", "annealed_moe_main-seed0"):
        shutil.copytree(published / name, tmp_path / "cpu" / name)
    _keep_seed_0(tmp_path / "cpu" / "figure_3")
    tracking = TrackingConfig(mode="offline", project="p")
    job = OmegaConf.create({**vars(ReplayJob(runs_dir=str(tmp_path))), "tracking": vars(tracking)})
    with open(tmp_path / "cpu" / "figure_3" / "records.csv") as file:
        merges = {tuple(row[k] for k in ("run", "tokens")) for row in csv.DictReader(file) if row["method"] == "sma"}
    assert replay(job) == 2 + len(merges) + 2 + 1  # runs, merges, scores of both runs, the figure
    sent = read_all(tmp_path / "cpu")
    listed = sorted((tmp_path / "cpu" / "wandb").glob("offline-run-*"), reverse=True)  # LEET's order
    assert len(listed) == 2 and all("-seed0-" in path.name for path in listed)  # curves, and no run of one dot
    jobs = {job: [run for run in sent.values() if run["job_type"] == job] for job in ("train", "merge", "eval")}
    assert {run["group"] for run in jobs["merge"] + jobs["eval"]} == {"figure_3"}
    assert {run["group"] for run in jobs["train"]} == {"figure_1", "figure_2"}  # the figures that use them first
    assert all(run["config"]["claims"] == ["C5"] for run in jobs["merge"])
    assert "schedule" in jobs["train"][0]["config"] and len(jobs["train"][0]["history"]) > 10
    names = set()
    for run in jobs["merge"]:
        ((name, merge),) = run["outputs"].items()
        assert list(run["inputs"]) == [source["snapshot"] for source in merge["metadata"]["sources"]]
        assert len(run["inputs"]) == merge["metadata"]["n"] == 10
        names.add(name)
    scored = next(run for run in jobs["eval"] if names & run["inputs"].keys())
    assert names <= scored["inputs"].keys()  # from the point of the figure back to its snapshots
    assert [row["tokens"] for row in scored["history"]] == sorted(row["tokens"] for row in scored["history"])
    artifacts = [artifact for run in sent.values() for artifact in run["inputs"].values()]
    assert not any(local for artifact in artifacts for *_, local in artifact["entries"])  # nothing is uploaded
    assert replay(job) == 0 and read_all(tmp_path / "cpu").keys() == sent.keys()


def test_an_average_of_every_step_stands_for_itself(tmp_path):
    (tmp_path / "run-seed0").mkdir()
    (tmp_path / "run-seed0" / "manifest.json").write_text('{"config_hash": "abc"}')
    row = {"method": "online_ema_0.015", "n": 1, "interval": 512, "tokens": 1024}
    average, sources = merged(tmp_path / "run-seed0", row)
    assert sources == [average] and average.kind == "snapshot"
    assert average.uri == "pma://run-seed0/ema-0.015/tokens-000000000001024"
    assert average.name == "run-seed0-abc-ema-0.015-tokens-000000000001024"


def test_a_model_of_the_hub_is_recorded_by_its_address_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = model_artifact(Path("org/model@step1000"), "xxh3:0")
    assert source.uri == "hf://org/model@step1000" and source.name == "org-model-step1000"
    assert source.kind == "model" and source.about == {"content": "xxh3:0"}
    (tmp_path / "org" / "model@step1000").mkdir(parents=True)  # a folder of that name is meant before the hub's model
    assert model_artifact(Path("org/model@step1000")).uri.startswith("file:///")


def test_without_wandb_tracking_is_off(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert mode_of.__wrapped__("auto") == "off"


def test_a_picture_and_a_table_are_media(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "figure_1.png")
    with Run(tmp_path, TrackingConfig(mode="offline", tags=["figure_1", "C1"]), id="x", job_type="analysis") as run:
        run.image("figure_1", tmp_path / "figure_1.png")
        run.table("claims", pd.DataFrame({"claim": ["C1"]}))
    sent = read_all(tmp_path)["x"]
    types = {key.split(".")[0]: row[key] for row in sent["history"] for key in row if key.endswith("._type")}
    assert types == {"figure_1": "image-file", "claims": "table-file"}
    assert sent["config"]["figures"] == ["figure_1"] and sent["config"]["claims"] == ["C1"]


def test_the_runs_of_a_sweep_are_one_group(monkeypatch):
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)
    monkeypatch.setattr(sys, "argv", ["pma.train", "-m", "seed=0,1"])
    monkeypatch.setattr(cli, "_start", lambda *arguments: None)
    cli.run(replay, TrainingJob, "config")
    assert os.environ.pop("WANDB_RUN_GROUP").startswith("sweep-")
