"""Train what is missing, score, measure and publish: on this machine, or through a scheduler."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from omegaconf import DictConfig

from pma.corpus import prepare
from pma.reproduce.clock import Clock, OutOfTime
from pma.reproduce.experiment import RunSeed
from pma.reproduce.jobs import SchedulerJobs
from pma.reproduce.local import LocalProcesses
from pma.reproduce.measure import write_measurements
from pma.reproduce.progress import experiment_folder, missing_tokens
from pma.reproduce.publish import print_signal_to_noise, records_of, write_manifest, write_scores
from pma.reproduce.runs import TrainingTask
from pma.reproduce.score import ScoredRun
from pma.words import count, duration, experiment_title, quantity


class Workers(Protocol):
    """What does the work: processes of this machine, or jobs of a scheduler."""

    def train(self, tasks: list[TrainingTask]) -> None:
        """Train runs, each after the one it starts from."""

    def score(self, experiments: list[DictConfig]) -> Iterator[tuple[DictConfig, list[ScoredRun]]]:
        """Yield each experiment with the scores of its merges, once its measurements are done too."""


def work(
    job: DictConfig,
    experiments: list[DictConfig],
    configs: dict[RunSeed, DictConfig],
    tasks: list[TrainingTask],
    clock: Clock,
) -> None:
    """Do `tasks`, then score and measure experiments and publish their records, until the clock ends.

    Raises:
        ValueError: when a training run or a job fails.
    """
    workers: Workers
    workers = LocalProcesses(job, configs, clock) if job.launcher is None else SchedulerJobs(job, configs)
    began = time.perf_counter()
    try:
        if tasks:
            for cfg in configs.values():  # now, before several processes would each find their corpus missing
                prepare(cfg.data, Path(cfg.data_dir))
            workers.train(tasks)
        left = sum(missing_tokens(cfg) for cfg in configs.values())
        if tasks and not left:
            print(f"all runs are trained, {duration(time.perf_counter() - began)}", flush=True)
        if left:
            raise OutOfTime
        _score(job, experiments, configs, workers)
    except OutOfTime:
        tokens = sum(missing_tokens(cfg) for cfg in configs.values())
        rest = f"{quantity(tokens)} tokens are left to train" if tokens else "models are left to score"
        print(f"the {job.minutes:g} minutes are over; the same command goes on ({rest})", flush=True)
    else:
        print(f"done in {duration(time.perf_counter() - began)}", flush=True)


def _score(
    job: DictConfig, experiments: list[DictConfig], configs: dict[RunSeed, DictConfig], workers: Workers
) -> None:
    """Score and measure experiments, and publish the records of each as soon as they are whole."""
    began = time.perf_counter()
    for experiment, scored in workers.score(experiments):
        folder = experiment_folder(job, experiment)
        records, items = records_of(job, experiment, configs, scored)
        write_scores(folder, records, items)
        if experiment.measurements:
            write_measurements(job, experiment, configs, folder)
        seconds = time.perf_counter() - began
        write_manifest(job, experiment, configs, folder, seconds)
        if any(part.noise_points for part in experiment.parts):
            print_signal_to_noise(folder / "records.csv")
        print(
            f"{experiment_title(experiment.name)}: {_made(experiment, scored)} in {folder}, {duration(seconds)}",
            flush=True,
        )
        began = time.perf_counter()


def _made(experiment: DictConfig, scored: list[ScoredRun]) -> str:
    """What an experiment's folder holds now."""
    models = sum(len(run.scores) for run in scored)
    parts = [f"scores of {count(models, 'model')}"] if models else []
    parts += [f"{count(len(experiment.measurements), 'measurement')}"] if experiment.measurements else []
    return " and ".join(parts) or "nothing to score, it shows the curves of its runs; manifest"
