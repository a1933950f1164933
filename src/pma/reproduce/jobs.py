"""Do the work of a reproduction as jobs of a scheduler, through submitit: Slurm, or the same on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import submitit
from omegaconf import DictConfig, OmegaConf
from submitit.core.utils import UncompletedJobError

from pma.config import CONF_DIR
from pma.reproduce.experiment import RunSeed
from pma.reproduce.measure import measure_task, measurements_to_do
from pma.reproduce.runs import TrainingTask
from pma.reproduce.score import ScoredRun, score_task, scored_runs, shares_to_score
from pma.reproduce.train_run import train_task


class SchedulerJobs:
    """Submits a job for each run, for each few merges of a run and for each experiment's measurements."""

    def __init__(self, job: DictConfig, configs: dict[RunSeed, DictConfig]) -> None:
        self._job, self._configs = job, configs

    def train(self, tasks: list[TrainingTask]) -> None:
        """Train runs, each after the job of the one it starts from. `tasks` stand parents first.

        Raises:
            ValueError: when a job fails, after all have ended; a second call keeps what is done.
        """
        job = self._job
        shape = {"nodes": job.nodes, "gpus_per_node": job.gpus_per_node, "tasks_per_node": max(1, job.gpus_per_node)}
        executor, slurm = self._executor(shape)
        submitted: dict[RunSeed | None, submitit.Job] = {}
        for task in tasks:
            parent = submitted.get(task.parent)
            if parent is not None and job.launcher != "slurm":
                parent.wait()
            after = {} if parent is None else {"dependency": f"afterok:{parent.job_id}", "kill-on-invalid-dep": "yes"}
            executor.update_parameters(slurm_additional_parameters={**slurm, **after})
            submitted[task.run] = executor.submit(train_task, list(task.overrides))
        wait_for("training", {task.name: submitted[task.run] for task in tasks})

    def score(self, experiments: list[DictConfig]) -> Iterator[tuple[DictConfig, list[ScoredRun]]]:
        """Score and measure what no job has yet, then yield each experiment with the scores of its merges.

        Raises:
            ValueError: when a job fails, after all have ended; a second call keeps what is done.
        """
        self._submit_scoring(experiments)
        self._submit_measuring(experiments)
        for experiment in experiments:
            yield experiment, scored_runs(self._job, [experiment], self._configs)

    def _submit_scoring(self, experiments: list[DictConfig]) -> None:
        job, shape = self._job, self._single_process()
        if job.scale.scoring == "vllm":
            shape["gpus_per_node"] = job.gpus_per_node
        executor = self._executor(shape, job.scoring_python)[0]
        submitted: dict[str, submitit.Job] = {}
        for share in shares_to_score(job, experiments, self._configs):
            if job.launcher == "local" and len(submitted) >= job.jobs:
                list(submitted.values())[-job.jobs].wait()
            ends = f"merges from {share.recipes[0].end} to {share.recipes[-1].end} tokens"
            name = f"{len(submitted) + 1}: run={share.run} seed={share.seed} suite={share.suite}, {ends}"
            submitted[name] = executor.submit(score_task, job, self._configs[share.run, share.seed], share)
        wait_for("scoring", submitted)

    def _submit_measuring(self, experiments: list[DictConfig]) -> None:
        executor = self._executor(self._single_process())[0]
        submitted = {
            todo.name: executor.submit(measure_task, self._job, todo)
            for todo in measurements_to_do(self._job, experiments, self._configs)
        }
        wait_for("measuring", submitted)

    def _single_process(self) -> dict[str, int]:
        """The shape of a job of one process."""
        return {"nodes": 1, "gpus_per_node": min(1, self._job.gpus_per_node), "tasks_per_node": 1}

    def _executor(
        self, shape: dict[str, int], python: str | None = None
    ) -> tuple[submitit.AutoExecutor, dict[str, Any]]:
        """Return what submits jobs of a shape, and their sbatch options; `python` is another interpreter than ours."""
        job = self._job
        defaults = OmegaConf.load(CONF_DIR / "hydra" / "launcher" / "slurm.yaml")
        interpreter = {} if python is None else {f"{job.launcher}_python": python}
        executor = submitit.AutoExecutor(Path(job.runs_dir) / "slurm" / "%j", cluster=job.launcher, **interpreter)
        slurm = {**job.slurm, "cpus-per-task": defaults.cpus_per_task}
        executor.update_parameters(
            timeout_min=defaults.timeout_min,
            slurm_setup=list(job.slurm_setup),
            slurm_additional_parameters=slurm,
            **shape,
        )
        return executor, slurm


def wait_for(work: str, submitted: dict[str, submitit.Job]) -> None:
    """Wait for jobs, by what each is for. A job's tasks return what went wrong, or None.

    Raises:
        ValueError: naming the jobs that failed and why, after all have ended.
    """
    failed: list[str] = []
    for name, job in submitted.items():
        try:
            errors = job.results()
        except UncompletedJobError as error:
            errors = [reason(error)]
        failed += [f"{name}: {error}" for error in errors if error is not None][:1]
    if failed:
        raise ValueError(f"{work} failed: {'; '.join(failed)}. Call again after mending: what is done is kept")


def reason(error: Exception) -> str:
    """Shorten submitit's report on a dead job to its first line and the last line of the job's own output.

    submitit quotes that output between two rules of dashes.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    rules = [i for i, line in enumerate(lines) if set(line) == {"-"}]
    return f"{lines[0]} {lines[rules[-1] - 1]}" if len(rules) > 1 else lines[0]
