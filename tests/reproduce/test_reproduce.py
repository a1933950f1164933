"""Everything at SCALE=smoke, end to end through the commands a user types."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import submitit
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from pma import evaluate
from pma.config import CONF_DIR, ROOT, register
from pma.records import COLUMNS, read_records, signal_to_noise, signal_to_noise_table
from pma.reproduce import experiment as reproduce
from pma.reproduce.job import PartConfig, RecipeConfig, ReproduceJob

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CONF_DIR.parent / "src")}


def call(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False
    )


def unscored(folder: Path) -> Path:
    """A data folder with the corpora and without scores."""
    (folder / "data").mkdir()
    (folder / "data" / "corpora").symlink_to(ROOT / "data" / "corpora")
    return folder / "data"


def some_merges(*overrides: str, points: list[float]) -> DictConfig:
    """A job of pma.reproduce at scale smoke with two merges of the main run to score at every point."""
    register(ReproduceJob)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        job = compose("reproduce", ["experiment=figure_4", "scale=smoke", "device=cpu", "threads=1", *overrides])
    merges = [RecipeConfig("last"), RecipeConfig("sma", n=3)]
    job.experiment.parts = [PartConfig(["moe_main"], points=points, recipes=merges)]
    return job


def scored(job: DictConfig) -> tuple[list[reproduce.Record], list[reproduce.Items]]:
    """What pma.reproduce does after training: scoring, by jobs where the job names a launcher, and the records."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        configs = reproduce.required(job, [job.experiment])
        if job.launcher is not None:
            reproduce._submit_scoring(job, [job.experiment], configs)
        return reproduce._score(job, job.experiment, configs, reproduce.Suites(job), reproduce.Clock(None))


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("smoke") / "runs"
    arguments = ["experiment=all", "scale=smoke", f"runs_dir={runs}", "tracking=off"]
    result = call("-m", "pma.reproduce", *arguments)
    assert result.returncode == 0, result.stderr
    again = call("-m", "pma.reproduce", *arguments)
    assert "nothing to do" in again.stdout and again.returncode == 0
    return runs


def test_records_hold_every_recipe_at_every_point(everything):
    table = read_records(everything / "smoke" / "figure_4" / "records.csv")
    assert list(table.columns) == COLUMNS
    averages = table[(table["task"] == "average") & (table["metric"] == "acc")]
    points = [int(point * 512) for point in (25.5, 56.5, 139, 200)]
    for method in ("last", "sma", "wma", "ema_0.1", "ema_0.2"):
        assert set(points) <= set(averages.loc[averages["method"] == method, "tokens"]), method
    assert averages["value"].between(0, 1).all()
    assert table["config_hash"].nunique() == 1
    # The merges are not all the same model.
    bits = table[(table["task"] == "average") & (table["metric"] == "bits_per_byte") & (table["tokens"] == points[0])]
    assert bits["value"].nunique() == 5


def test_single_items_average_to_the_record(everything):
    folder = everything / "smoke" / "figure_4"
    merge = ["run", "seed", "tokens", "method", "n", "interval", "suite", "task", "metric"]
    items = pd.read_parquet(folder / "items.parquet").set_index(merge)["values"].map(lambda values: values.mean())
    both = read_records(folder / "records.csv").set_index(merge).join(items.rename("mean"), how="inner")
    assert len(both) > 100 and both["value"].to_numpy() == pytest.approx(both["mean"].to_numpy(), abs=1e-5)


def test_everything_is_drawn_and_judged_from_the_records(everything, tmp_path):
    folders = ["--scale=smoke", f"--runs-dir={everything}", f"--out-dir={tmp_path}"]
    drawn = call("analysis/draw.py", *folders)
    assert drawn.returncode == 0, drawn.stderr
    names = {path.stem for path in (CONF_DIR / "experiment").glob("*.yaml")} - {"all"}
    assert names <= {path.stem for path in (tmp_path / "smoke").glob("*.png")}
    judged = call("analysis/claims.py", *folders)
    assert judged.returncode == 0, judged.stderr
    table = pd.read_csv(tmp_path / "smoke" / "claims.csv")
    assert set(table["claim"]) == {f"C{i}" for i in range(1, 18)} and "not run" not in set(table["verdict"])


def test_a_killed_reproduction_goes_on_to_the_same_records(everything, tmp_path):
    arguments = ["experiment=figure_6", "scale=smoke", f"runs_dir={tmp_path}", "tracking=off", "seeds=[0]"]
    command = [sys.executable, "-m", "pma.reproduce", *arguments]
    watched = tmp_path / "smoke" / "continued_pma-seed0" / "metrics.jsonl"
    process = subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not (watched.exists() and watched.stat().st_size):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert call("-m", "pma.reproduce", *arguments).returncode == 0
    for name in ("records.csv", "items.parquet"):
        one, other = (runs / "smoke" / "figure_6" / name for runs in (everything, tmp_path))
        assert one.read_bytes() == other.read_bytes(), name


def test_a_reproduction_in_pieces_of_time_makes_the_same_records(everything, tmp_path):
    arguments = ["experiment=figure_4", "scale=smoke", f"runs_dir={tmp_path}", "tracking=off"]
    for minutes in (0.001, *[0.2] * 10):
        piece = call("-m", "pma.reproduce", *arguments, f"minutes={minutes}")
        assert piece.returncode == 0, piece.stderr
        if "minutes are over" not in piece.stdout:
            break
        assert not (tmp_path / "smoke" / "figure_4").exists()
    assert minutes > 0.001
    for name in ("records.csv", "items.parquet"):
        one, other = (runs / "smoke" / "figure_4" / name for runs in (everything, tmp_path))
        assert one.read_bytes() == other.read_bytes(), name


def test_jobs_of_a_scheduler_make_the_same_records(everything, tmp_path):
    arguments = ["experiment=figure_3", "scale=smoke", f"runs_dir={tmp_path}", "tracking=off", "launcher=local"]
    arguments += [f"data_dir={unscored(tmp_path)}", "merges_per_job=12"]
    done = call("-m", "pma.reproduce", *arguments)  # the annealed run after the job of the main run
    assert done.returncode == 0, done.stderr
    # A job a run, then the 12 merges of one and the 5 of the other.
    assert len([path for path in (tmp_path / "slurm").iterdir() if path.name.isdigit()]) == 4
    for name in ("records.csv", "items.parquet"):
        one, other = (runs / "smoke" / "figure_3" / name for runs in (everything, tmp_path))
        assert one.read_bytes() == other.read_bytes(), name


def test_on_slurm_a_run_waits_for_the_one_it_starts_from(monkeypatch, tmp_path):
    scripts: list[dict] = []

    class Executor:
        """What pma.reproduce asks of submitit, with the options of the job it would submit."""

        def __init__(self, folder: Path, cluster: str) -> None:
            assert cluster == "slurm"
            self.options: dict = {}

        def update_parameters(self, **options: object) -> None:
            self.options |= options

        def submit(self, task, overrides: list[str]) -> object:
            scripts.append({**self.options, "overrides": overrides})
            job = type("Job", (), {"job_id": str(len(scripts)), "results": lambda self: [None]})
            return job()

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    register(ReproduceJob)
    options = ["experiment=figure_6", "scale=paper", "launcher=slurm", "nodes=4", "gpus_per_node=8"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        job: DictConfig = compose("reproduce", [*options, "+slurm.partition=big", f"runs_dir={tmp_path}"])
        experiments = reproduce.expand(job)
        configs = reproduce.required(job, experiments)
        labels = reproduce._labels(job, experiments, configs)
        reproduce._submit_missing(job, configs, dict.fromkeys(configs, 1.0), labels)
    asked = [one["slurm_additional_parameters"] for one in scripts]
    assert "dependency" not in asked[0] and "run=moe_main" in scripts[0]["overrides"]
    assert len(asked) == 5 and all(one["dependency"] == "afterok:1" for one in asked[1:])
    assert all(one["partition"] == "big" for one in asked)
    assert scripts[0]["nodes"] == 4 and scripts[0]["tasks_per_node"] == 8


def test_after_a_failed_scoring_job_only_what_is_missing_is_scored(everything, tmp_path, monkeypatch):
    shares: list[list[reproduce.Recipe]] = []

    class Executor:
        """A job is done here and now."""

        def __init__(self, folder: Path, cluster: str) -> None:
            assert cluster == "local"

        def update_parameters(self, **options: object) -> None:
            assert options["gpus_per_node"] == 0 and options["tasks_per_node"] == 1

        def submit(self, task, *arguments: object) -> object:
            shares.append(arguments[-1])
            result = task(*arguments)
            return type("Job", (), {"results": lambda self: [result], "wait": lambda self: None})()

    score, calls = evaluate.Scorer.score, []

    def fails_once(self, *arguments: object) -> list[evaluate.Score]:
        calls.append(arguments)
        if len(calls) == 2:
            raise ValueError("no room")
        return score(self, *arguments)

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    monkeypatch.setattr(evaluate.Scorer, "score", fails_once)
    options = [f"runs_dir={everything}", f"data_dir={unscored(tmp_path)}", "launcher=local", "merges_per_job=3"]
    job = some_merges(*options, points=[100, 200])
    with pytest.raises(
        ValueError, match=r"scoring failed: 1: run=moe_main seed=0 suite=proxy, .*: no room\. Call again"
    ):
        scored(job)
    assert [len(share) for share in shares] == [3, 1] and len(calls) == 3
    by_jobs = scored(job)
    assert [len(share) for share in shares] == [3, 1, 2] and len(calls) == 5  # none of them by the calling process
    (tmp_path / "alone").mkdir()
    alone = [f"runs_dir={everything}", f"data_dir={unscored(tmp_path / 'alone')}"]
    assert scored(some_merges(*alone, points=[100, 200])) == by_jobs and len(by_jobs[0]) > 40


def test_vllm_scores_merges_written_for_it(everything, tmp_path, vllm):
    options = [f"runs_dir={everything}", f"data_dir={unscored(tmp_path)}"]
    in_memory, _ = scored(some_merges(*options, points=[200]))
    by_vllm, _ = scored(some_merges(*options, "scale.scoring=vllm", points=[200]))
    snapshot, merge = (Path(one["model"]) for one in vllm.started)
    assert snapshot.is_dir() and merge.parent == tmp_path / "data" / "merged"
    assert not [path for path in (tmp_path / "data" / "merged").iterdir() if path.is_dir()]
    differ = 0
    for one, other in zip(by_vllm, in_memory, strict=True):
        assert (one.tokens, one.method, one.task, one.metric) == (other.tokens, other.method, other.task, other.metric)
        if one.metric == "bits_per_byte":
            assert one.value == pytest.approx(other.value, rel=0.02)
            differ += one.value != other.value
    assert differ > 10  # bf16 was scored, and not the cache of the others
    again, _ = scored(some_merges(*options, "scale.scoring=vllm", points=[200]))
    assert again == by_vllm and len(vllm.started) == 2


def test_what_scoring_needs_is_asked_for_before_training(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    for override, message in (
        ("scale.scoring=vllm", "vLLM is not installed"),
        ("scale.suite=paper", "HF_ALLOW_CODE_EVAL=1"),
        ("scoring_python=/nowhere/python", "scoring_python=/nowhere/python: give"),
        ("merges_per_job=0", "merges_per_job=0: give at least 1"),
    ):
        job = some_merges(f"runs_dir={tmp_path}", override, points=[200])
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"), pytest.raises(ValueError, match=message):
            reproduce.reproduce(job)
    assert not list(tmp_path.iterdir())


def test_the_merge_command_makes_a_model_that_scores_as_the_record_says(everything, tmp_path):
    out, scores = tmp_path / "merged", tmp_path / "scores.json"
    window = ["method=wma", "n=10", "interval=512", "end=102400"]
    merged = call("-m", "pma.merge", f"run_dir={everything / 'smoke' / 'moe_main-seed0'}", *window, f"output={out}")
    assert merged.returncode == 0, merged.stderr
    scored = call("-m", "pma.evaluate", f"model={out}", f"output={scores}", f"cache_dir={tmp_path / 'cache'}")
    assert scored.returncode == 0, scored.stderr
    mine = pd.DataFrame(json.loads(scores.read_text())["scores"]).set_index(["task", "metric"])["value"]
    table = read_records(everything / "smoke" / "figure_4" / "records.csv")
    row = table[(table["method"] == "wma") & (table["tokens"] == 102400)].set_index(["task", "metric"])["value"]
    for metric in ("acc", "bits_per_byte"):
        assert mine["average", metric] == pytest.approx(row["average", metric], rel=1e-6)
    tasks = next(path for path in (tmp_path / "cache").glob("*-tasks"))
    model = ["--model", "hf", "--model_args", f"pretrained={out},dtype=float32", "--device", "cpu"]
    which = ["--include_path", str(tasks), "--tasks", "pma_proxy_math", "--output_path", str(tmp_path / "lm_eval")]
    alone = call("-m", "lm_eval", *model, *which)
    assert alone.returncode == 0, alone.stderr
    theirs = json.loads(next((tmp_path / "lm_eval").rglob("results_*.json")).read_text())["results"]["pma_proxy_math"]
    assert theirs["bits_per_byte,none"] == pytest.approx(mine["math", "bits_per_byte"], rel=1e-4)


def test_user_errors_are_one_line_and_leave_nothing(everything, tmp_path):
    run = everything / "smoke" / "moe_main-seed0"
    window = call(
        "-m", "pma.merge", f"run_dir={run}", "method=sma", "n=3", "interval=7", "end=512", f"output={tmp_path / 'o'}"
    )
    assert window.returncode == 1 and window.stderr.startswith("error: ") and window.stderr.count("\n") == 1
    assert "no snapshot at" in window.stderr and not (tmp_path / "o").exists()
    key = call("-m", "pma.train", "scale=smoke", "schedule.peak=1")
    assert key.returncode != 0 and "schedule.peak" in key.stderr


def test_signal_to_noise_is_rise_over_scatter():
    assert signal_to_noise([0.0, 9.0, 10.0, 11.0, 10.0, 10.0]) == pytest.approx(10 / 0.7071067811865476)
    assert math.isnan(signal_to_noise([1.0, 2.0]))  # too few to tell
    rows = [
        {"task": "t", "metric": "m", "run": "r", "seed": 0, "tokens": i, "method": method, "value": value}
        for i, value in enumerate([0.0, 9.0, 10.0, 11.0, 10.0, 10.0])
        for method, value in (("last", value), ("sma", 99.0))
    ]
    assert signal_to_noise_table(pd.DataFrame(rows))["signal_to_noise"].item() == pytest.approx(14.142, rel=1e-3)
