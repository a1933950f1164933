"""Plan runs: which ones experiments need, how far, with which snapshots, and what is left to train.

Nothing is trained here, and nothing is read but conf/.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from itertools import product

from hydra import compose
from omegaconf import DictConfig

from pma.config import require_part, validate
from pma.reproduce.experiment import RunSeed, all_experiments, measured_windows, recipes
from pma.run import is_fork


def training_overrides(job: DictConfig, run: str, seed: int) -> list[str]:
    """Return the Hydra overrides of one training run."""
    return [
        f"scale={job.scale.name}",
        f"run={run}",
        f"seed={seed}",
        f"device={job.device}",
        f"data_dir={job.data_dir}",
        f"runs_dir={job.runs_dir}",
        f"tracking.mode={job.tracking.mode}",
        f"tracking.project={job.tracking.project}",
        *job.overrides,
    ]


def runs_of(job: DictConfig, experiment: DictConfig) -> dict[RunSeed, float]:
    """Return an experiment's runs and how far it needs each, in merge intervals; infinity is to the run's end."""
    needed: dict[RunSeed, float] = {}
    for part in experiment.parts:
        for run in part.runs:
            for seed in job.seeds:
                until = max(part.points) if part.points else float("inf")
                needed[run, seed] = max(needed.get((run, seed), 0.0), until)
    for measurement in experiment.measurements:
        for seed in job.seeds:
            needed[measurement.run, seed] = max(needed.get((measurement.run, seed), 0.0), measurement.end)
            if measurement.reference is not None:
                needed[measurement.reference, seed] = float("inf")
    return needed


@cache
def _run_config(overrides: tuple[str, ...]) -> DictConfig:
    cfg = compose("config", list(overrides))  # takes Hydra half a second
    validate(cfg)
    return cfg


def required(job: DictConfig, experiments: list[DictConfig]) -> dict[RunSeed, DictConfig]:
    """Return the configs of all runs that experiments need, and of the runs that these start from; parents first.

    Each config's `stop`, in tokens, is how far the experiments need the run.
    """
    until: dict[RunSeed, int] = {}
    configs: dict[RunSeed, DictConfig] = {}

    def need(run: str, seed: int, tokens: float) -> None:
        if (run, seed) not in configs:
            cfg = copy.deepcopy(_run_config(tuple(training_overrides(job, run, seed))))
            if (parent := cfg.init.parent).run is not None:
                need(parent.run, parent.seed, parent.tokens)
            configs[run, seed] = cfg
        until[run, seed] = max(until.get((run, seed), 0), min(tokens, configs[run, seed].train.total_tokens))

    for experiment in experiments:
        for (run, seed), points in runs_of(job, experiment).items():
            need(run, seed, points * job.scale.merge_interval)
    for key, cfg in configs.items():
        logged = cfg.scale.batch_tokens * cfg.train.log_interval  # a stop must fall on a logged step
        cfg.stop = int(min(-(-until[key] // logged) * logged, cfg.train.total_tokens))
    return configs


def trainable(job: DictConfig, experiments: list[DictConfig]) -> list[DictConfig]:
    """Drop experiments whose training text is missing from the corpus, and print which.

    Raises:
        ValueError: when the job names one such experiment instead of a list.
    """
    kept = []
    for experiment in experiments:
        try:
            for cfg in required(job, [experiment]).values():
                require_part(cfg)
        except ValueError as error:
            if not job.experiment.includes:
                raise
            print(f"{experiment.name} is left out: {error}")
        else:
            kept.append(experiment)
    return kept


def parent_of(cfg: DictConfig) -> RunSeed | None:
    """Return the run that a run starts from."""
    return None if cfg.init.parent.run is None else (cfg.init.parent.run, cfg.init.parent.seed)


def start_tokens(cfg: DictConfig) -> int:
    """Return the position in tokens that a run starts at."""
    return cfg.init.parent.tokens if is_fork(cfg) else cfg.init.tokens or 0


# ---- which snapshots -------------------------------------------------------------------------------------------------


def keep_needed(job: DictConfig, asked: list[DictConfig], configs: dict[RunSeed, DictConfig]) -> None:
    """Let runs save only the snapshots that the experiments asked for now read, or any of conf/experiment."""
    names = [experiment.name for experiment in asked]
    experiments = [*asked, *(each for each in all_experiments() if each.name not in names)]
    every = {**required(job, experiments), **configs}
    reads = windows_read(job, experiments, every)
    for cfg in every.values():
        add_parent_window(reads, every, cfg)
    for key, cfg in configs.items():
        cfg.train.snapshots_at = sorted(reads.get(key, ()))


def windows_read(
    job: DictConfig, experiments: list[DictConfig], configs: dict[RunSeed, DictConfig]
) -> dict[RunSeed, set[int]]:
    """Return the positions in tokens of the snapshots of each run that the experiments' merges and measurements read.

    A window of a fork may reach back into the run that it was forked off. The snapshot at a run's start is not among
    the positions: every run that has a parent saves it.
    """
    reads: dict[RunSeed, set[int]] = {}
    interval = job.scale.merge_interval
    for experiment in experiments:
        for part in experiment.parts:
            for recipe in recipes(part, interval):
                for run in part.runs:
                    for seed in job.seeds:
                        _add_window(reads, configs, (run, seed), recipe.window)
        for m in experiment.measurements:
            for seed, window in product(job.seeds, measured_windows(m, interval)):
                _add_window(reads, configs, (m.run, seed), window.window)
    return reads


def add_parent_window(reads: dict[RunSeed, set[int]], configs: dict[RunSeed, DictConfig], cfg: DictConfig) -> None:
    """Add to `reads` the snapshots that a run starts from."""
    if (key := parent_of(cfg)) is not None:
        parent = cfg.init.parent
        _add_window(reads, configs, key, [parent.tokens - i * (parent.interval or 0) for i in range(parent.n)])


def _add_window(
    reads: dict[RunSeed, set[int]], configs: dict[RunSeed, DictConfig], key: RunSeed, window: list[int]
) -> None:
    cfg = configs[key]
    positions, parent = reads.setdefault(key, set()), parent_of(cfg)
    start = start_tokens(cfg)
    if parent is None:
        positions.update(window)
    elif is_fork(cfg):
        positions.update(tokens for tokens in window if tokens > start)
        if before := [tokens for tokens in window if tokens < start]:
            _add_window(reads, configs, parent, before)
    else:
        positions.update(tokens for tokens in window if tokens != start)


# ---- what is left to train -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingTask:
    """A run still to train: what it starts from, its Hydra overrides, and a rough time on one thread or GPU."""

    run: RunSeed
    parent: RunSeed | None
    overrides: tuple[str, ...]
    seconds: float

    @property
    def name(self) -> str:
        """The run as messages spell it."""
        return f"run={self.run[0]} seed={self.run[1]}"


def labels(
    job: DictConfig, experiments: list[DictConfig], configs: dict[RunSeed, DictConfig]
) -> dict[RunSeed, list[str]]:
    """Return the names and claims of the experiments that each run is for, itself or through runs that start from it.

    They tag the run in W&B.
    """
    tags: dict[RunSeed, list[str]] = {key: [] for key in configs}
    for experiment in experiments:
        for key in runs_of(job, experiment):
            ancestor: RunSeed | None = key
            while ancestor is not None:
                tags[ancestor] += [tag for tag in (experiment.name, *experiment.claims) if tag not in tags[ancestor]]
                ancestor = parent_of(configs[ancestor])
    return tags


def training_tasks(
    job: DictConfig, experiments: list[DictConfig], configs: dict[RunSeed, DictConfig], seconds: dict[RunSeed, float]
) -> list[TrainingTask]:
    """Return the runs that still take time to train, parents first; `seconds` is that time by run."""
    tags = labels(job, experiments, configs)
    tasks = []
    for key, cfg in configs.items():
        if not seconds[key]:
            continue
        overrides = [*training_overrides(job, *key), f"stop={cfg.stop}"]
        overrides += [f"group={tags[key][0]}", f"tracking.tags=[{','.join(tags[key])}]"]
        if cfg.train.snapshots_at is not None:
            overrides.append(f"train.snapshots_at={list(cfg.train.snapshots_at)}")
        tasks.append(TrainingTask(key, parent_of(cfg), tuple(overrides), seconds[key]))
    return tasks


def longest_first(tasks: list[TrainingTask]) -> list[TrainingTask]:
    """Sort tasks by the time of the longest chain of runs that begins with each, so that no chain is begun too late."""

    def chain(task: TrainingTask) -> float:
        return task.seconds + max((chain(child) for child in tasks if child.parent == task.run), default=0.0)

    return sorted(tasks, key=chain, reverse=True)
