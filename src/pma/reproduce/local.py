"""Do the work of a reproduction on this machine: train in processes, score and measure in the calling one."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from omegaconf import DictConfig

from pma.device import cpu_threads
from pma.reproduce.bar import LINE_SECONDS, TrainingBar
from pma.reproduce.clock import Clock
from pma.reproduce.experiment import RunSeed, merges_of
from pma.reproduce.measure import measure
from pma.reproduce.runs import TrainingTask, longest_first
from pma.reproduce.score import ScoredRun, Suites, score_merges
from pma.reproduce.train_run import train_run
from pma.words import experiment_title

_LOOK_SECONDS = 1.0  # between two looks at how far the runs are


class LocalProcesses:
    """Trains `jobs` runs at once, each in a process of this machine; ends when the clock does."""

    def __init__(self, job: DictConfig, configs: dict[RunSeed, DictConfig], clock: Clock) -> None:
        self._job, self._configs, self._clock = job, configs, clock
        self._suites = Suites()

    def train(self, tasks: list[TrainingTask]) -> None:
        """Train runs, each after the one it starts from. When the clock ends, the runs in work stop with a checkpoint.

        Raises:
            ValueError: when a run fails. Runs in work are let finish, and a second call keeps them.
        """
        job, clock = self._job, self._clock
        waiting = longest_first(tasks)
        running: dict[Future[str | None], TrainingTask] = {}
        failed: list[str] = []
        threads = cpu_threads(job.threads)
        bar = TrainingBar({task.run: self._configs[task.run] for task in tasks})
        # Spawned, because a fork of a process with OpenMP threads can hang. A worker trains many runs, because torch
        # takes seconds to import.
        with ProcessPoolExecutor(job.jobs, multiprocessing.get_context("spawn")) as pool:
            while waiting and not failed and clock.left() != 0 or running:
                if not failed and clock.left() != 0:
                    blocked = {task.run for task in (*waiting, *running.values())}
                    ready = [task for task in waiting if task.parent not in blocked]
                    share = max(1, threads // min(job.jobs, len(ready) + len(running)))
                    for task in ready[: job.jobs - len(running)]:
                        waiting.remove(task)
                        overrides = [*task.overrides, f"threads={share}", *self._minutes()]
                        running[pool.submit(train_run, overrides, quiet=True)] = task
                for future in wait(running, _LOOK_SECONDS, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    if (error := future.result()) is not None:
                        failed.append(f"{task.name}: {error}")
                    else:
                        bar.ended(task.run)
                bar.look(task.run for task in running.values())
        bar.close()
        if failed:
            raise ValueError(f"training failed: {'; '.join(failed)}. Call again after mending: what is done is kept")

    def _minutes(self) -> list[str]:
        minutes = self._clock.left()
        return [] if minutes is None else [f"minutes={max(minutes, 0.01):.3f}"]

    def score(self, experiments: list[DictConfig]) -> Iterator[tuple[DictConfig, list[ScoredRun]]]:
        """Yield each experiment with the scores of its merges.

        Raises:
            OutOfTime: between two merges.
        """
        for experiment in experiments:
            said = time.perf_counter()
            scored = []
            for merges in merges_of(self._job, [experiment]):
                cfg = self._configs[merges.run, merges.seed]
                scored.append(
                    score_merges(self._job, cfg, merges, self._suites, self._clock, experiment_title(experiment.name))
                )
                if time.perf_counter() - said > LINE_SECONDS:
                    said = time.perf_counter()
                    print(f"  {experiment_title(experiment.name)}: {cfg.run_id} scored", flush=True)
            yield experiment, scored

    def measure(self, experiment: DictConfig, folder: Path) -> None:
        """Do an experiment's measurements, and publish their tables in `folder`."""
        self._clock.check()
        measure(self._job, experiment, self._configs, folder)
