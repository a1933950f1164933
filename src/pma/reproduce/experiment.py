"""Experiments of the paper: train what is missing, score the merges, write the records.

    python -m pma.reproduce experiment=figure_4 scale=cpu
    python -m pma.reproduce experiment=all dry_run=true

Everything already done is kept: a second call does nothing, a killed call, or one that `minutes` ended, goes on where
it stopped. A run is trained only as far as the experiments asked for need it, and after the run it starts from.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import multiprocessing
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from pma import cli
from pma.config import CONF_DIR, SCORING_VERSION, hash_json, register, require_part, validate
from pma.device import choose_device, cpu_threads
from pma.files import MANIFEST, read_manifest, write_json
from pma.records import (
    SIGNAL_TO_NOISE_MINIMUM,
    Items,
    Record,
    read_records,
    signal_to_noise_table,
    write_items,
    write_records,
)
from pma.run import identity, is_fork, parent_folder, run_folder, trained_tokens

if TYPE_CHECKING:
    import submitit

    from pma.evaluate import Score
    from pma.evaluate.scorer import Items as ItemValues
    from pma.merge import InMemory

RunSeed = tuple[str, int]


class OutOfTime(Exception):
    """The minutes of this call are over; what is done is kept."""


class Clock:
    """The minutes of one call; None is without end."""

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def left(self) -> float | None:
        """Minutes left, at least none."""
        return None if self._end is None else max(0.0, (self._end - time.monotonic()) / 60)

    def check(self) -> None:
        """Raises OutOfTime when they are over."""
        if self.left() == 0:
            raise OutOfTime


@dataclass(frozen=True)
class Recipe:
    """A merge of one run, in tokens."""

    method: str  # last | sma | wma | ema
    n: int
    interval: int
    end: int
    alpha: float | None = None

    @property
    def name(self) -> str:
        """Method as the records spell it."""
        return self.method if self.alpha is None else f"{self.method}_{self.alpha:g}"

    @property
    def window(self) -> list[int]:
        """Positions of its snapshots, tokens."""
        return [self.end - i * self.interval for i in range(self.n)]


def recipes(part: DictConfig, merge_interval: int) -> list[Recipe]:
    """The merges a part of an experiment needs of each of its runs, without repetition, ordered by end."""
    found = [
        Recipe(r.method, r.n, round(r.interval * merge_interval), round(point * merge_interval), r.alpha)
        for point in part.points
        for r in part.recipes
        if r.points is None or point in r.points
    ]
    last = max((recipe.end for recipe in found), default=0)
    found += [Recipe("last", 1, merge_interval, last - i * merge_interval) for i in range(part.noise_points)]
    return sorted(dict.fromkeys(found), key=lambda recipe: recipe.end)


# ---- which runs, and how far -----------------------------------------------------------------------------------------


def expand(job: DictConfig) -> list[DictConfig]:
    """The experiment asked for, or those it includes."""
    if not job.experiment.includes:
        return [job.experiment]
    return [compose("reproduce", [f"experiment={name}"]).experiment for name in job.experiment.includes]


def trainable(job: DictConfig, experiments: list[DictConfig]) -> list[DictConfig]:
    """Those of the experiments whose runs find in the corpus what they train on; says which are left out.

    Raises:
        ValueError: for the one experiment asked for.
    """
    found = []
    for experiment in experiments:
        try:
            for cfg in required(job, [experiment]).values():
                require_part(cfg)
        except ValueError as error:
            if not job.experiment.includes:
                raise
            print(f"{experiment.name} is left out: {error}")
        else:
            found.append(experiment)
    return found


def training_overrides(job: DictConfig, run: str, seed: int) -> list[str]:
    """Hydra overrides that make one training run."""
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
    """Runs of an experiment and how far it needs each, in multiples of the merge interval; infinity is to the end."""
    needed: dict[RunSeed, float] = {}
    for part in experiment.parts:
        for run in part.runs:
            for seed in job.seeds or range(part.seeds):
                until = max(part.points) if part.points else float("inf")
                needed[run, seed] = max(needed.get((run, seed), 0.0), until)
    for measurement in experiment.measurements:
        for seed in (job.seeds or [0])[:1]:
            until = needed.get((measurement.run, seed), 0.0)
            needed[measurement.run, seed] = max(until, measurement.end)
            if measurement.reference is not None:
                needed[measurement.reference, seed] = float("inf")
    return needed


@cache
def _run_config(overrides: tuple[str, ...]) -> DictConfig:
    cfg = compose("config", list(overrides))  # takes Hydra half a second
    validate(cfg)
    return cfg


def required(job: DictConfig, experiments: list[DictConfig]) -> dict[RunSeed, DictConfig]:
    """Configs of all runs that experiments need, with what these start from, each with its `stop`; parents first."""
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


def keep_needed(job: DictConfig, configs: dict[RunSeed, DictConfig]) -> None:
    """Have runs save only the snapshots that some experiment reads, whichever are asked for now; parents first."""
    experiments = [compose("reproduce", [f"experiment={name}"]).experiment for name in all_experiments()]
    reads = snapshots_read(job, experiments, {**required(job, experiments), **configs})
    for key, cfg in configs.items():
        cfg.train.snapshots_at = sorted(reads.get(key, ()))


def all_experiments() -> list[str]:
    """Names of all experiments."""
    return list(compose("reproduce", ["experiment=all"]).experiment.includes)


def snapshots_read(
    job: DictConfig, experiments: list[DictConfig], configs: dict[RunSeed, DictConfig]
) -> dict[RunSeed, set[int]]:
    """Positions in tokens of the snapshots of each run that experiments, and runs that start from it, read."""
    found: dict[RunSeed, set[int]] = {}
    interval = job.scale.merge_interval

    def read(key: RunSeed, window: list[int]) -> None:
        cfg = configs[key]
        start = cfg.init.parent.tokens if is_fork(cfg) else 0
        found.setdefault(key, set()).update(at for at in window if at > start)
        if before := [at for at in window if at < start]:  # of the run that it was forked off
            read(_parent(cfg), before)

    for experiment in experiments:
        for part in experiment.parts:
            for recipe in recipes(part, interval):
                for run in part.runs:
                    for seed in job.seeds or range(part.seeds):
                        read((run, seed), recipe.window)
        for m in experiment.measurements:
            window = Recipe("sma", m.n, round(m.interval * interval), round(m.end * interval)).window
            read((m.run, (job.seeds or [0])[0]), window)
    for cfg in configs.values():
        if (key := _parent(cfg)) is not None:
            parent = cfg.init.parent
            read(key, [parent.tokens - i * (parent.interval or 0) for i in range(parent.n)])
    return found


def missing_tokens(cfg: DictConfig) -> int:
    """Tokens still to train up to the config's `stop`."""
    parent = parent_folder(cfg)
    start = cfg.init.parent.tokens if is_fork(cfg) else cfg.init.tokens or 0
    if parent is not None and not (parent / MANIFEST).exists():
        return cfg.stop - start
    return max(0, cfg.stop - max(trained_tokens(cfg), start))


# ---- training --------------------------------------------------------------------------------------------------------


def _train_one(overrides: list[str]) -> str | None:
    """One run, in a process that trains many; what went wrong, if a user can mend it."""
    from pma.train.loop import train

    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("config", overrides)
    try:
        train(cfg)
    except cli.ERRORS as error:
        return cli.message(error)
    return None


def _labels(
    job: DictConfig, experiments: list[DictConfig], configs: dict[RunSeed, DictConfig]
) -> dict[RunSeed, list[str]]:
    """Figures and claims that each run is for, those of the runs that start from it among them."""
    found: dict[RunSeed, list[str]] = {key: [] for key in configs}
    for experiment in experiments:
        for key in runs_of(job, experiment):
            while key is not None:
                new = [label for label in (experiment.name, *experiment.claims) if label not in found[key]]
                found[key] += new
                key = _parent(configs[key])
    return found


def _train_missing(
    job: DictConfig,
    configs: dict[RunSeed, DictConfig],
    seconds: dict[RunSeed, float],
    labels: dict[RunSeed, list[str]],
    clock: Clock,
) -> None:
    """Train runs, `jobs` at a time, each after the one it starts from; those with most work behind them first.

    Raises:
        ValueError: when one fails; those already running are let finish, and a second call keeps them.
    """
    waiting = [key for key, left in seconds.items() if left > 0]

    def behind(key: RunSeed) -> float:
        children = [k for k in waiting if _parent(configs[k]) == key]
        return seconds[key] + max(map(behind, children), default=0.0)

    waiting.sort(key=behind, reverse=True)
    running: dict[Future[str | None], RunSeed] = {}
    failed: list[str] = []
    threads = cpu_threads(job.threads)
    # Spawned, not forked: a fork of a process with OpenMP threads can hang. A worker trains many runs, for torch takes
    # seconds to import.
    with ProcessPoolExecutor(job.jobs, multiprocessing.get_context("spawn")) as pool:
        while waiting and not failed and clock.left() != 0 or running:
            blocked = {*waiting, *running.values()}
            ready = [] if failed or clock.left() == 0 else [k for k in waiting if _parent(configs[k]) not in blocked]
            share = max(1, threads // min(job.jobs, len(ready) + len(running)))
            for key in ready[: job.jobs - len(running)]:
                waiting.remove(key)
                overrides = [*_run_overrides(job, key, configs[key], labels[key]), f"threads={share}"]
                if (minutes := clock.left()) is not None:
                    overrides.append(f"minutes={max(minutes, 0.01):.3f}")
                running[pool.submit(_train_one, overrides)] = key
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run, seed = running.pop(future)
                if (error := future.result()) is not None:
                    failed.append(f"run={run} seed={seed}: {error}")
    if failed:
        raise ValueError(f"training failed: {'; '.join(failed)}. Call again after mending: what is done is kept")


def _submit_missing(
    job: DictConfig,
    configs: dict[RunSeed, DictConfig],
    seconds: dict[RunSeed, float],
    labels: dict[RunSeed, list[str]],
) -> None:
    """Train runs as jobs of a scheduler, each after the job of the one it starts from.

    Raises:
        ValueError: when one fails; a second call keeps what is done.
    """
    shape = {"nodes": job.nodes, "gpus_per_node": job.gpus_per_node, "tasks_per_node": max(1, job.gpus_per_node)}
    executor, slurm = _executor(job, shape)
    submitted: dict[RunSeed, submitit.Job] = {}
    for key, cfg in configs.items():  # parents first
        if not seconds[key]:
            continue
        after = submitted.get(_parent(cfg))
        if after is not None and job.launcher != "slurm":
            after.wait()
        more = {} if after is None else {"dependency": f"afterok:{after.job_id}", "kill-on-invalid-dep": "yes"}
        executor.update_parameters(slurm_additional_parameters={**slurm, **more})
        submitted[key] = executor.submit(_train_task, _run_overrides(job, key, configs[key], labels[key]))
    _wait_for("training", {f"run={run} seed={seed}": one for (run, seed), one in submitted.items()})


def _executor(
    job: DictConfig, shape: dict[str, int], python: str | None = None
) -> tuple[submitit.AutoExecutor, dict[str, Any]]:
    """What submits jobs of a shape, and the options of sbatch that all have; `python` is another interpreter."""
    import submitit

    asked = OmegaConf.load(CONF_DIR / "hydra" / "launcher" / "slurm.yaml")
    other = {} if python is None else {f"{job.launcher}_python": python}
    executor = submitit.AutoExecutor(Path(job.runs_dir) / "slurm" / "%j", cluster=job.launcher, **other)
    slurm = {**job.slurm, "cpus-per-task": asked.cpus_per_task}
    executor.update_parameters(
        timeout_min=asked.timeout_min, slurm_setup=list(job.slurm_setup), slurm_additional_parameters=slurm, **shape
    )
    return executor, slurm


def _wait_for(work: str, submitted: dict[str, submitit.Job]) -> None:
    """Wait for jobs, by what each is for, that return what went wrong.

    Raises:
        ValueError: when one fails, after all have ended.
    """
    from submitit.core.utils import UncompletedJobError

    failed: list[str] = []
    for name, one in submitted.items():
        try:
            errors = one.results()
        except UncompletedJobError as error:
            errors = [_reason(error)]
        failed += [f"{name}: {error}" for error in errors if error is not None][:1]
    if failed:
        raise ValueError(f"{work} failed: {'; '.join(failed)}. Call again after mending: what is done is kept")


def _reason(error: Exception) -> str:
    """The first line of submitit's account of a dead job, and the last of the output that it quotes between rules."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    rules = [i for i, line in enumerate(lines) if set(line) == {"-"}]
    return f"{lines[0]} {lines[rules[-1] - 1]}" if len(rules) > 1 else lines[0]


def _train_task(overrides: list[str]) -> str | None:
    """One of the tasks of a job, which are the processes of a run."""
    import os

    import submitit

    tasks = submitit.JobEnvironment().num_tasks
    if tasks > 1:
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    else:
        os.environ["WORLD_SIZE"] = "1"
    return _train_one(overrides)


def _run_overrides(job: DictConfig, key: RunSeed, cfg: DictConfig, labels: list[str]) -> list[str]:
    """Hydra overrides of a run that pma.reproduce starts."""
    found = [*training_overrides(job, *key), f"stop={cfg.stop}"]
    found += [f"group={labels[0]}", f"tracking.tags=[{','.join(labels)}]"]
    if cfg.train.snapshots_at is not None:
        found.append(f"train.snapshots_at={list(cfg.train.snapshots_at)}")
    return found


def _parent(cfg: DictConfig) -> RunSeed | None:
    return None if cfg.init.parent.run is None else (cfg.init.parent.run, cfg.init.parent.seed)


def training_seconds(cfg: DictConfig, tokens: int, gpu: bool) -> float:
    """Rough time to train `tokens` on one thread, or on a GPU, for the plan and the order of runs.

    On a GPU: 35% of an H100's 989 TFLOP/s in bf16 for dense models and 20% for MoE, which is what we aim at and not
    what was measured. On a thread: a fixed cost a token, more of it with experts, and one a FLOP: fitted to the models
    of scale cpu, within 10%, on one of two busy cores with AVX2; on other machines only the proportions hold.
    """
    from pma.model.build import flops_per_token

    flops = flops_per_token(cfg.model, cfg.scale.sequence_length)
    if gpu:
        return tokens * flops / (989e12 * (0.2 if cfg.model.kind == "moe" else 0.35))
    fixed = 3.4e-5 if cfg.model.kind == "moe" else 1.4e-5
    return tokens * (fixed + 1.85e-11 * flops)


# ---- scoring ---------------------------------------------------------------------------------------------------------


class Suites:
    """Suites by name and corpus, each built once a process."""

    def __init__(self, job: DictConfig) -> None:
        self._job = job
        self._suites: dict[tuple[str, Path], Any] = {}

    def of(self, name: str, cfg: DictConfig) -> tuple[Path, Any]:
        """The corpus of a run and a suite on it."""
        from pma.corpus import prepare
        from pma.evaluate import load_suite

        corpus = prepare(cfg.data, Path(cfg.data_dir))
        if (name, corpus) not in self._suites:
            self._suites[name, corpus] = load_suite(name, corpus)
        return corpus, self._suites[name, corpus]


def window_weights(cfg: DictConfig, recipe: Recipe) -> tuple[list[Path], list[float]]:
    """Snapshot folders of a merge, oldest first, and their weights."""
    from pma.layout import run_window
    from pma.merge.weights import method_weights

    folders = run_window(run_folder(cfg), recipe.n, recipe.interval, recipe.end)
    return folders, [1.0] if recipe.method == "last" else method_weights(recipe.method, recipe.n, recipe.alpha)


class ScoredMerges:
    """Which merges of a run a suite has scored, and their scores; nothing is merged or loaded to know.

    For every merge a small file `DATA_DIR/scores/merges/HASH.json` names the file with its scores. The hash is of all
    that decides them: the run, the content of its snapshots and their weights, the suite and its corpus, how merges
    are scored, and the versions of lm-eval and of our scoring. Several processes may add to it at once.
    """

    def __init__(self, job: DictConfig, cfg: DictConfig, suite: str) -> None:
        from importlib.metadata import version

        from pma.corpus import prepare

        self._cfg, self._scores = cfg, Path(job.data_dir) / "scores"
        corpus = prepare(cfg.data, Path(cfg.data_dir)).name
        self._about = [identity(cfg), suite, corpus, job.scale.scoring, SCORING_VERSION, version("lm-eval")]

    def key(self, recipe: Recipe) -> str:
        """The hash that stands for a merge."""
        folders, weights = window_weights(self._cfg, recipe)
        return hash_json([self._about, [read_manifest(folder)["content"] for folder in folders], weights])

    def read(self, recipe: Recipe) -> tuple[list[Score], ItemValues] | None:
        """Scores of a merge and the values of single items; None while it is not scored."""
        from pma.evaluate import read_scores

        path = self._file(recipe)
        return read_scores(self._scores / json.loads(path.read_text())["scores"]) if path.is_file() else None

    def add(self, recipe: Recipe, scores: Path) -> None:
        """Note the file with the scores of a merge."""
        write_json(self._file(recipe), {"scores": scores.relative_to(self._scores).as_posix()})

    def _file(self, recipe: Recipe) -> Path:
        return self._scores / "merges" / f"{self.key(recipe)}.json"


class MergeScorer:
    """Scores merges of one run with one suite, weights swapped in place."""

    def __init__(self, job: DictConfig, cfg: DictConfig, name: str, suites: Suites) -> None:
        from transformers import AutoTokenizer

        from pma.evaluate import Scorer
        from pma.model.build import load_pretrained

        self.corpus, suite = suites.of(name, cfg)
        self._cfg = cfg
        any_snapshot = _any_snapshot(cfg)
        self.model = load_pretrained(any_snapshot).to(choose_device(cfg.device))
        tokenizer = AutoTokenizer.from_pretrained(any_snapshot)
        scores = Path(job.data_dir) / "scores"
        self.scorer = Scorer(suite, self.model, tokenizer, scores, self.model.device, job.threads)

    def score(self, todo: list[Recipe]) -> Iterator[Path]:
        """Score merges in turn, the next one made meanwhile; the file with the scores of each."""
        from pma.ahead import ahead
        from pma.model.build import load_weights

        for merged in ahead(self._merge, todo):
            name = merged.content.rpartition(":")[2]
            self.scorer.score(name, lambda tensors=merged.tensors: load_weights(self.model, tensors))
            yield self.scorer.path(name)

    def _merge(self, recipe: Recipe) -> InMemory:
        from pma.merge import averages

        folders, weights = window_weights(self._cfg, recipe)
        return averages(folders, [weights])[0]


class WrittenMergeScorer:
    """Scores merges of one run by vLLM: each is written in bf16 below DATA_DIR/merged, scored, and removed."""

    def __init__(self, job: DictConfig, cfg: DictConfig, name: str, suites: Suites) -> None:
        from pma.evaluate import VllmScorer

        suite = suites.of(name, cfg)[1]
        self._job, self._cfg, self._scored = job, cfg, ScoredMerges(job, cfg, name)
        self._scorer = VllmScorer(suite, _any_snapshot(cfg), Path(job.data_dir) / "scores")

    def score(self, todo: list[Recipe]) -> Iterator[Path]:
        """Score merges in turn; the file with the scores of each."""
        for recipe in todo:
            with self._written(recipe) as folder:
                name = read_manifest(folder)["content"].rpartition(":")[2]
                self._scorer.score_folder(name, folder)
            yield self._scorer.path(name)

    @contextmanager
    def _written(self, recipe: Recipe) -> Iterator[Path]:
        from filelock import FileLock

        from pma.merge import Merge, Options, merge_all

        folders, weights = window_weights(self._cfg, recipe)
        if recipe.method == "last":
            yield folders[0]
            return
        folder = Path(self._job.data_dir) / "merged" / self._scored.key(recipe)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not folder.exists():  # whole, if it does: a killed job left it
                merge = Merge(tuple(weights), folder, dataclasses.asdict(recipe))
                merge_all(folders, [merge], Options(dtype="bfloat16", threads=self._job.threads, diagnose=False))
            try:
                yield folder
            finally:
                aside = folder.with_name(f".{folder.name}.partial-old")  # no part of a folder under its name
                folder.rename(aside)
                shutil.rmtree(aside)


def _any_snapshot(cfg: DictConfig) -> Path:
    from pma.layout import snapshots

    return next(iter(snapshots(run_folder(cfg)).values()))


def _score_merges(
    job: DictConfig, cfg: DictConfig, suite: str, todo: list[Recipe], suites: Suites, clock: Clock, title: str
) -> None:
    """Score the merges of a run that are not scored yet.

    Raises:
        OutOfTime: between two of them.
    """
    from tqdm import tqdm

    scored = ScoredMerges(job, cfg, suite)
    todo = [recipe for recipe in todo if scored.read(recipe) is None]
    if not todo:
        return
    clock.check()
    scorer = (WrittenMergeScorer if job.scale.scoring == "vllm" else MergeScorer)(job, cfg, suite, suites)
    best = float("inf")
    bar = tqdm(todo, desc=f"{title} {cfg.run_id}", unit="merge", disable=not sys.stderr.isatty())
    for recipe, path in zip(bar, scorer.score(todo), strict=True):
        scored.add(recipe, path)
        scores = scored.read(recipe)[0]
        now = next((s.value for s in scores if (s.task, s.metric) == ("average", "bits_per_byte")), float("nan"))
        best = min(best, now)
        bar.set_postfix(bits_per_byte=f"{now:.3f}", best=f"{best:.3f}", refresh=False)
        clock.check()


def merges_of(job: DictConfig, experiments: list[DictConfig]) -> Iterator[tuple[str, int, str, list[Recipe]]]:
    """The merges that experiments score, as (run, seed, suite, merges), each merge once."""
    seen: set[tuple[str, int, str, Recipe]] = set()
    for part in (part for experiment in experiments for part in experiment.parts):
        suite = job.scale.suite or part.suite
        for run in part.runs if part.points else []:
            for seed in job.seeds or range(part.seeds):
                merges = recipes(part, job.scale.merge_interval)
                yield run, seed, suite, [recipe for recipe in merges if (run, seed, suite, recipe) not in seen]
                seen.update((run, seed, suite, recipe) for recipe in merges)


def _score(
    job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig], suites: Suites, clock: Clock
) -> tuple[list[Record], list[Items]]:
    """The records of an experiment; what no job has scored is scored here."""
    records: list[Record] = []
    items: list[Items] = []
    began = time.perf_counter()
    for run, seed, suite, todo in merges_of(job, [experiment]):
        cfg = configs[run, seed]
        if job.launcher is None:
            _score_merges(job, cfg, suite, todo, suites, clock, experiment.name)
        about = {"scale": job.scale.name, "experiment": experiment.name, "config_hash": identity(cfg)}
        scored = ScoredMerges(job, cfg, suite)
        for recipe in todo:
            merge = {"run": run, "seed": seed, "tokens": recipe.end, "method": recipe.name, "n": recipe.n}
            merge |= {"interval": recipe.interval, "suite": suite}
            found = scored.read(recipe)
            assert found is not None
            for s in found[0]:
                records.append(Record(**about, **merge, task=s.task, metric=s.metric, value=s.value, stderr=s.stderr))
            for (task, metric), values in found[1].items():
                items.append(Items(**merge, task=task, metric=metric, values=values))
        if not sys.stderr.isatty():
            print(f"{experiment.name}: {cfg.run_id} scored, {time.perf_counter() - began:.0f} s", flush=True)
    return records, items


def _submit_scoring(job: DictConfig, experiments: list[DictConfig], configs: dict[RunSeed, DictConfig]) -> None:
    """Score the merges of experiments as jobs of a scheduler, each of some merges of one run.

    Raises:
        ValueError: when one fails; a second call keeps what is done.
    """
    shape = _one_gpu(job)
    if job.scale.scoring == "vllm":
        shape["gpus_per_node"] = job.gpus_per_node
    executor = _executor(job, shape, job.scoring_python)[0]
    submitted: dict[str, submitit.Job] = {}
    for run, seed, suite, merges in merges_of(job, experiments):
        cfg = configs[run, seed]
        scored = ScoredMerges(job, cfg, suite)
        todo = [recipe for recipe in merges if scored.read(recipe) is None]
        for first in range(0, len(todo), job.merges_per_job):
            if job.launcher == "local" and len(submitted) >= job.jobs:
                list(submitted.values())[-job.jobs].wait()
            share = todo[first : first + job.merges_per_job]
            name = f"run={run} seed={seed} suite={suite}, merges from {share[0].end} to {share[-1].end} tokens"
            submitted[f"{len(submitted) + 1}: {name}"] = executor.submit(_score_task, job, cfg, suite, share)
    _wait_for("scoring", submitted)


def _one_gpu(job: DictConfig) -> dict[str, int]:
    """Shape of a job of one process."""
    return {"nodes": 1, "gpus_per_node": min(1, job.gpus_per_node), "tasks_per_node": 1}


def _score_task(job: DictConfig, cfg: DictConfig, suite: str, todo: list[Recipe]) -> str | None:
    """A scoring job; what went wrong, if a user can mend it."""
    register()
    try:
        _score_merges(job, cfg, suite, todo, Suites(job), Clock(None), "scoring")
    except cli.ERRORS as error:
        return cli.message(error)
    return None


def _measure_task(
    job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig], folder: Path
) -> str | None:
    """A job that measures; what went wrong, if a user can mend it."""
    from pma.reproduce.measure import measure

    register()
    try:
        measure(job, experiment, configs, Suites(job), folder)
    except cli.ERRORS as error:
        return cli.message(error)
    return None


# ---- the experiment --------------------------------------------------------------------------------------------------


def experiment_folder(job: DictConfig, experiment: DictConfig) -> Path:
    """Folder of an experiment's records."""
    return Path(job.runs_dir) / job.scale.name / experiment.name


_SCORING = {"scoring": "memory", "suite": None}  # what goes without saying in a stamp


def _stamp(job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig]) -> str | None:
    """What the records depend on; None while a run is missing."""
    runs = [configs[key] for key in runs_of(job, experiment)]
    if any(missing_tokens(cfg) for cfg in runs):
        return None
    return hash_json(
        {
            "experiment": OmegaConf.to_container(experiment, resolve=True),
            "runs": [identity(cfg) for cfg in runs],
            "version": SCORING_VERSION,
            **{key: job.scale[key] for key in ("scoring", "suite") if job.scale[key] != _SCORING[key]},
        }
    )


def _done(job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig]) -> bool:
    folder = experiment_folder(job, experiment)
    stamp = _stamp(job, experiment, configs)
    return stamp is not None and (folder / MANIFEST).exists() and read_manifest(folder)["stamp"] == stamp


def _plan(job: DictConfig, todo: list[DictConfig], configs: dict[RunSeed, DictConfig]) -> dict[RunSeed, float]:
    """Print what is going to be done; seconds of training a run on one thread."""
    seconds = {}
    print(f"{len(todo)} experiment(s) at scale {job.scale.name}: {', '.join(e.name for e in todo)}")
    from torch import cuda

    from pma.model.build import parameter_counts

    gpu = job.device == "cuda" or (job.device == "auto" and cuda.is_available())
    where = "minutes, 1 GPU" if gpu else "minutes, 1 thread"
    print(f"  {'run':28} {'tokens to train':>16} {where:>18} {'snapshots, MB':>14}")

    total_megabytes = 0.0
    for (run, seed), cfg in configs.items():
        tokens = missing_tokens(cfg)
        seconds[run, seed] = training_seconds(cfg, tokens, gpu) if tokens else 0.0
        size = 4 if cfg.train.snapshot_dtype == "float32" else 2
        at = cfg.train.snapshots_at
        many = tokens / cfg.train.snapshot_interval if at is None else sum(p > cfg.stop - tokens for p in at)
        megabytes = many * parameter_counts(cfg.model).total * size / 1e6
        total_megabytes += megabytes
        if tokens:
            print(f"  {cfg.run_id:28} {tokens:16,} {seconds[run, seed] / 60:18.1f} {megabytes:14,.0f}")
        else:
            print(f"  {cfg.run_id:28} {'trained':>16}")
    merges = sum(
        len(recipes(part, job.scale.merge_interval)) * len(part.runs) * len(job.seeds or range(part.seeds))
        for experiment in todo
        for part in experiment.parts
    )
    at_once = 1 if gpu else min(job.jobs, cpu_threads(job.threads))  # several runs share one GPU
    print(
        f"  in all {sum(seconds.values()) / 60 / at_once:.0f} minutes of training with {at_once} at once, "
        f"{total_megabytes / 1000:.1f} GB of snapshots; at most {merges} models to score",
        flush=True,
    )
    return seconds


def reproduce(job: DictConfig) -> list[Path]:
    """Do what is missing of one experiment or of all; returns the folders of their records.

    Raises:
        ValueError: for impossible values, before any work; when a training run fails.
    """
    if job.minutes is not None and job.minutes <= 0:
        raise ValueError(f"minutes={job.minutes}: give more than 0, or null for no limit")
    if job.jobs < 1 or (job.seeds is not None and not job.seeds):
        raise ValueError(f"seeds={job.seeds} jobs={job.jobs}: give at least one seed and one job")
    if job.launcher not in (None, "slurm", "local"):
        raise ValueError(f"launcher={job.launcher}: choose slurm, local, or null for processes of this machine")
    if job.merges_per_job < 1:
        raise ValueError(f"merges_per_job={job.merges_per_job}: give at least 1")
    if job.launcher is not None and job.minutes is not None:
        raise ValueError("minutes: goes without launcher; jobs have the scheduler's time (timeout_min)")
    if job.scale.name == "paper" and not job.dry_run and job.launcher != "slurm":
        raise ValueError("scale=paper needs a cluster: add launcher=slurm, or dry_run=true, or take scale=cpu")
    experiments = trainable(job, expand(job))
    configs = required(job, experiments)
    if job.scale.snapshots == "needed":
        keep_needed(job, configs)
    clock = Clock(job.minutes)
    folders = [experiment_folder(job, experiment) for experiment in experiments]
    todo = [experiment for experiment in experiments if not _done(job, experiment, configs)]
    if not todo:
        print(f"{job.experiment.name}: nothing to do, the records stand in {Path(job.runs_dir) / job.scale.name}")
        return folders
    seconds = _plan(job, todo, configs)
    if job.dry_run:
        return folders
    if any(part.points for experiment in todo for part in experiment.parts):
        _check_scoring(job)
    began = time.perf_counter()
    try:
        if any(seconds.values()):
            _prepare_corpora(list(configs.values()))
            labels = _labels(job, experiments, configs)
            if job.launcher is None:
                _train_missing(job, configs, seconds, labels, clock)
            else:
                _submit_missing(job, configs, seconds, labels)
        left = sum(missing_tokens(cfg) for cfg in configs.values())
        print(f"training: {time.perf_counter() - began:.0f} s, {left:,} tokens left", flush=True)
        if left:
            raise OutOfTime
        if job.launcher is not None:
            _submit_scoring(job, todo, configs)
        suites = Suites(job)
        for experiment in todo:
            _write(job, experiment, configs, suites, clock)
    except OutOfTime:
        print(f"{job.experiment.name}: the {job.minutes:g} minutes are over; the same command goes on", flush=True)
        return folders
    print(f"{job.experiment.name}: done in {time.perf_counter() - began:.0f} s", flush=True)
    return folders


def _check_scoring(job: DictConfig) -> None:
    """Refuse what scoring would find missing only after days of training.

    Raises:
        ValueError: for an interpreter that is not there, no vLLM, or what the paper suite needs.
    """
    if job.scoring_python is not None:  # sees to its own packages
        if job.launcher is None or shutil.which(job.scoring_python) is None:
            raise ValueError(f"scoring_python={job.scoring_python}: give a Python interpreter, together with launcher")
        return
    if job.scale.scoring == "vllm":
        from pma.evaluate import vllm_class

        vllm_class()
    if job.scale.suite == "paper":
        from pma.evaluate.suites import check_paper_needs

        check_paper_needs()


def _write(
    job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig], suites: Suites, clock: Clock
) -> None:
    """Score and measure one experiment and publish its records, the manifest last."""
    folder, began = experiment_folder(job, experiment), time.perf_counter()
    records, items = _score(job, experiment, configs, suites, clock)
    if records:
        write_records(folder / "records.csv", records)
        write_items(folder / "items.parquet", items)
    if experiment.measurements:
        clock.check()
        if job.launcher is None:
            from pma.reproduce.measure import measure

            measure(job, experiment, configs, suites, folder)
        else:
            executor = _executor(job, _one_gpu(job))[0]
            _wait_for("measuring", {experiment.name: executor.submit(_measure_task, job, experiment, configs, folder)})
    stamp = _stamp(job, experiment, configs)
    assert stamp is not None
    seconds = time.perf_counter() - began
    runs = {run_folder(configs[key]).name: identity(configs[key]) for key in runs_of(job, experiment)}
    write_json(
        folder / MANIFEST,
        {
            "stamp": stamp,
            "experiment": OmegaConf.to_container(experiment, resolve=True),
            "runs": runs,
            "merge_interval": job.scale.merge_interval,
            "seconds": round(seconds, 1),
        },
    )
    if any(part.noise_points for part in experiment.parts):
        _print_signal_to_noise(folder / "records.csv")
    print(f"{experiment.name}: {len(records)} records in {folder} (merging and scoring {seconds:.0f} s)", flush=True)


def _print_signal_to_noise(records: Path) -> None:
    table = signal_to_noise_table(read_records(records))
    moves = table["signal_to_noise"] >= SIGNAL_TO_NOISE_MINIMUM
    table["verdict"] = moves.map({True: "", False: "does not move at this scale"})
    print("signal to noise: rise over training against scatter over the last snapshots")
    print(table.to_string(index=False, float_format="{:.1f}".format))


def _prepare_corpora(configs: list[DictConfig]) -> None:
    # Once, before several training processes would each find it missing.
    from pma.corpus import prepare

    for cfg in configs:
        prepare(cfg.data, Path(cfg.data_dir))
