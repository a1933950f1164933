"""Jobs of a scheduler: their options, their order, what a failed one leaves, and that they make the same records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import submitit
from smoke_runs import link_runs, unscored_data

from pma import evaluate
from pma.records import read_records
from pma.reproduce.clock import Clock
from pma.reproduce.command import reproduce
from pma.reproduce.experiment import expand
from pma.reproduce.jobs import SchedulerJobs, reason
from pma.reproduce.local import LocalProcesses
from pma.reproduce.publish import records_of
from pma.reproduce.runs import required, training_tasks


def test_jobs_make_the_same_records(smoke_runs, compose_job, tmp_path):
    link_runs(smoke_runs, tmp_path, "moe_main-seed0")
    options = [f"runs_dir={tmp_path}", f"data_dir={unscored_data(tmp_path)}", "launcher=local", "merges_per_job=5"]
    job = compose_job("experiment=figure_3", *options)
    job.experiment.parts = job.experiment.parts[1:]  # the annealing run, which starts from the main run, and 5 merges
    (folder,) = reproduce(job)
    assert len([path for path in (tmp_path / "slurm").iterdir() if path.name.isdigit()]) == 2  # to train, to score
    by_jobs, alone = (read_records(path / "records.csv") for path in (folder, smoke_runs / "smoke" / "figure_3"))
    alone = alone[alone["run"] == "annealed_moe_main"].reset_index(drop=True)
    pd.testing.assert_frame_equal(by_jobs, alone, check_exact=True)


def test_on_slurm_a_run_waits_for_the_one_it_starts_from(monkeypatch, tmp_path, compose_job):
    submitted: list[dict[str, Any]] = []

    class Executor:
        """What we ask of submitit; keeps the options of the jobs that it would submit."""

        def __init__(self, folder: Path, cluster: str) -> None:
            assert cluster == "slurm"
            self.options: dict[str, Any] = {}

        def update_parameters(self, **options: object) -> None:
            self.options |= options

        def submit(self, task, overrides: list[str]) -> object:
            submitted.append({**self.options, "overrides": overrides})
            return type("Job", (), {"job_id": str(len(submitted)), "results": lambda self: [None]})()

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    options = ["experiment=figure_6", "scale=paper", "launcher=slurm", "nodes=4", "gpus_per_node=8"]
    job = compose_job(*options, "+slurm.partition=big", f"runs_dir={tmp_path}")
    experiments = expand(job)
    configs = required(job, experiments)
    SchedulerJobs(job, configs).train(training_tasks(job, experiments, configs, dict.fromkeys(configs, 1.0)))
    sbatch = [options["slurm_additional_parameters"] for options in submitted]
    assert "dependency" not in sbatch[0] and "run=moe_main" in submitted[0]["overrides"]
    assert len(sbatch) == 6 and all(options["dependency"] == "afterok:1" for options in sbatch[1:])
    assert all(options["partition"] == "big" for options in sbatch)
    assert submitted[0]["nodes"] == 4 and submitted[0]["tasks_per_node"] == 8


def test_after_a_failed_scoring_job_only_what_is_missing_is_scored(smoke_runs, two_merges, tmp_path, monkeypatch):
    shares: list[int] = []

    class Executor:
        """Does a job here and now."""

        def __init__(self, folder: Path, cluster: str) -> None:
            assert cluster == "local"

        def update_parameters(self, **options: object) -> None:
            assert options["gpus_per_node"] == 0 and options["tasks_per_node"] == 1

        def submit(self, task, job, cfg, merges) -> object:
            shares.append(len(merges.recipes))
            result = task(job, cfg, merges)
            return type("Job", (), {"results": lambda self: [result], "wait": lambda self: None})()

    score, calls = evaluate.Scorer.score, []

    def fails_once(self, *arguments: object) -> list[evaluate.Score]:
        calls.append(arguments)
        if len(calls) == 2:
            raise ValueError("no room")
        return score(self, *arguments)

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    monkeypatch.setattr(evaluate.Scorer, "score", fails_once)
    options = [f"runs_dir={smoke_runs}", f"data_dir={unscored_data(tmp_path)}", "merges_per_job=3"]
    job = two_merges(*options, "launcher=local", points=(100, 200))
    configs = required(job, [job.experiment])
    jobs = SchedulerJobs(job, configs)
    message = r"scoring failed: 1: run=moe_main seed=0 suite=proxy, .*: no room\. Call again"
    with pytest.raises(ValueError, match=message):
        list(jobs.score([job.experiment]))
    assert shares == [3, 1] and len(calls) == 3
    ((_, by_jobs),) = jobs.score([job.experiment])
    assert shares == [3, 1, 2] and len(calls) == 5  # none of them by the calling process
    alone = two_merges(f"runs_dir={smoke_runs}", f"data_dir={unscored_data(tmp_path / 'alone')}", points=(100, 200))
    ((experiment, here),) = LocalProcesses(alone, configs, Clock(None)).score([alone.experiment])
    records = records_of(job, experiment, configs, here)
    assert records_of(job, experiment, configs, by_jobs) == records and len(records[0]) > 40


def test_a_dead_jobs_report_is_shortened_to_its_reason():
    report = "Job 7 failed during execution\n\nsome lines\n----------\nTraceback\nKilled: out of memory\n----------\n"
    assert reason(RuntimeError(report)) == "Job 7 failed during execution Killed: out of memory"
    assert reason(RuntimeError("Job 7 is lost")) == "Job 7 is lost"
