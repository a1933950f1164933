"""Do the work of a reproduction on this machine, in processes that train, score and measure side by side."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from functools import partial

from omegaconf import DictConfig, OmegaConf

from pma.device import cpu_threads
from pma.processes import ended_by_interrupt, start_worker, submit
from pma.reproduce.bar import ScoringBar, TrainingBar
from pma.reproduce.clock import Clock
from pma.reproduce.experiment import Merged, RunMerges, RunSeed
from pma.reproduce.measure import Measured, measure_task, measurements_to_do
from pma.reproduce.runs import TrainingTask, longest_first
from pma.reproduce.score import ScoredRun, score_task, scored_runs, shares_to_score
from pma.reproduce.train_run import train_run

Task = Future[str | None]  # that returns what went wrong, or None

_WORTH_PROCESSES = 60  # models; below it, starting processes takes longer than they save (benchmarks/evaluate.py)
_LOOK_SECONDS = 1.0  # between two looks at how far the runs are


def spawned(processes: int) -> ProcessPoolExecutor:
    """Return a pool of processes, each of which does many tasks, because torch takes seconds to import.

    They end with this process, even where it is killed.
    """
    # Spawned, because a fork of a process with OpenMP threads can hang.
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), start_worker)


class LocalProcesses:
    """Trains `jobs` runs at once, each in a process of this machine; ends when the clock does."""

    def __init__(self, job: DictConfig, configs: dict[RunSeed, DictConfig], clock: Clock) -> None:
        self._job, self._configs, self._clock = job, configs, clock

    def train(self, tasks: list[TrainingTask]) -> None:
        """Train runs, each after the one it starts from. When the clock ends, the runs in work stop with a checkpoint.

        Raises:
            ValueError: when a run fails. Runs in work are let finish, and a second call keeps them.
        """
        job, clock = self._job, self._clock
        waiting = longest_first(tasks)
        running: dict[Task, TrainingTask] = {}
        failed: list[str] = []
        threads = cpu_threads(job.threads)
        bar = TrainingBar({task.run: self._configs[task.run] for task in tasks})
        with spawned(job.jobs) as pool, ended_by_interrupt():
            while waiting and not failed and clock.left() != 0 or running:
                if not failed and clock.left() != 0:
                    blocked = {task.run for task in (*waiting, *running.values())}
                    ready = [task for task in waiting if task.parent not in blocked]
                    share = max(1, threads // min(job.jobs, len(ready) + len(running)))
                    for task in ready[: job.jobs - len(running)]:
                        waiting.remove(task)
                        overrides = [*task.overrides, f"threads={share}", *self._minutes()]
                        running[submit(pool, train_run, overrides, quiet=True)] = task
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
        """Score and measure `jobs` things at once, and yield each experiment with the scores of its merges.

        Raises:
            OutOfTime: what is in work then is let finish, and kept.
            ValueError: when something fails.
        """
        work = self._scoring_work(experiments)
        models = sum(len(share.recipes) for shares, _ in work for share in shares)
        # Processes of one thread each score faster than one process with threads, once they have started. vLLM takes
        # all memory of a GPU.
        at_once = 1 if self._job.scale.scoring == "vllm" or models < _WORTH_PROCESSES else self._job.jobs
        pool: Executor = ThreadPoolExecutor(1) if at_once == 1 else spawned(at_once)
        try:
            with ended_by_interrupt():
                tasks, models_of = self._submit_scoring(pool, at_once, work)
                bar = ScoringBar(models)
                for experiment, futures in zip(experiments, tasks, strict=True):
                    while unfinished := [future for future in futures if not future.done()]:
                        self._clock.check()
                        wait(unfinished, _LOOK_SECONDS)
                        bar.look(sum(count for future, count in models_of.items() if future.done()))
                    if failed := [error for future in futures if (error := future.result()) is not None]:
                        raise ValueError(f"scoring failed: {failed[0]}. Call again after mending: what is done is kept")
                    yield experiment, scored_runs(self._job, [experiment], self._configs)
                bar.close()
        finally:
            pool.shutdown(cancel_futures=True)

    def _scoring_work(self, experiments: list[DictConfig]) -> list[tuple[list[RunMerges], list[Measured]]]:
        """Return what is not scored or measured yet, by experiment.

        A merge that an earlier experiment scores too is left out.
        """
        seen: set[Merged] = set()
        return [
            (
                shares_to_score(self._job, [experiment], self._configs, seen),
                measurements_to_do(self._job, [experiment], self._configs),
            )
            for experiment in experiments
        ]

    def _submit_scoring(
        self, pool: Executor, at_once: int, work: list[tuple[list[RunMerges], list[Measured]]]
    ) -> tuple[list[list[Task]], dict[Task, int]]:
        """Submit work; return the tasks of each experiment, and how many models a task scores."""
        job = OmegaConf.merge(self._job, {"threads": max(1, cpu_threads(self._job.threads) // at_once)})
        give: Callable[..., Task] = partial(submit, pool) if isinstance(pool, ProcessPoolExecutor) else pool.submit
        models_of: dict[Task, int] = {}
        tasks = []
        for shares, measured in work:
            scoring = [give(score_task, job, self._configs[share.run, share.seed], share) for share in shares]
            models_of |= {task: len(share.recipes) for task, share in zip(scoring, shares, strict=True)}
            tasks.append(scoring + [give(measure_task, job, each) for each in measured])
        return tasks, models_of
