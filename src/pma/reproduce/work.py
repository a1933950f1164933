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
from pma.reproduce.progress import experiment_folder, missing_tokens
from pma.reproduce.publish import print_signal_to_noise, records_of, write_manifest, write_scores
from pma.reproduce.runs import TrainingTask
from pma.reproduce.score import ScoredRun


class Workers(Protocol):
    """What does the work: processes of this machine, or jobs of a scheduler."""

    def train(self, tasks: list[TrainingTask]) -> None:
        """Train runs, each after the one it starts from."""

    def score(self, experiments: list[DictConfig]) -> Iterator[tuple[DictConfig, list[ScoredRun]]]:
        """Yield each experiment with the scores of its merges."""

    def measure(self, experiment: DictConfig, folder: Path) -> None:
        """Do an experiment's measurements, and publish their tables in `folder`."""


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
        print(f"training: {time.perf_counter() - began:.0f} s, {left:,} tokens left", flush=True)
        if left:
            raise OutOfTime
        _score(job, experiments, configs, workers)
    except OutOfTime:
        print(f"{job.experiment.name}: the {job.minutes:g} minutes are over; the same command goes on", flush=True)
    else:
        print(f"{job.experiment.name}: done in {time.perf_counter() - began:.0f} s", flush=True)


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
            workers.measure(experiment, folder)
        seconds = time.perf_counter() - began
        write_manifest(job, experiment, configs, folder, seconds)
        if any(part.noise_points for part in experiment.parts):
            print_signal_to_noise(folder / "records.csv")
        print(
            f"{experiment.name}: {len(records)} records in {folder} (merging and scoring {seconds:.0f} s)", flush=True
        )
        began = time.perf_counter()
