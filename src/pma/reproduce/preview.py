"""Say what a reproduction is going to do, in plain words: runs, minutes and disk, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig
from torch import cuda

from pma.device import cpu_threads
from pma.model.build import ParameterCounts, flops_per_token, parameter_counts
from pma.reproduce.cost import SNAPSHOT_BYTES, training_seconds
from pma.reproduce.experiment import RunSeed, recipes
from pma.reproduce.progress import missing_tokens
from pma.words import count, disk_size, duration, experiment_title, quantity, run_in_words, size_label, wrapped


@dataclass(frozen=True)
class _Left:
    """What is left of one run."""

    tokens: int
    seconds: float
    megabytes: float
    label: str


def print_preview(
    job: DictConfig, experiments: list[DictConfig], configs: dict[RunSeed, DictConfig]
) -> dict[RunSeed, float]:
    """Print what is left to do; return the rough seconds of training by run, 0 for a run that is trained."""
    gpu = job.device == "cuda" or (job.device == "auto" and cuda.is_available())
    left = {key: _left(cfg, gpu) for key, cfg in configs.items()}
    todo = {key: run for key, run in left.items() if run.tokens}
    at_once = 1 if gpu else min(job.jobs, cpu_threads(job.threads))  # several runs share one GPU
    print(_heading(job, experiments))
    if todo:
        _print_runs(configs, todo)
        tokens, seconds, megabytes = (
            sum(getattr(run, part) for run in todo.values()) for part in ("tokens", "seconds", "megabytes")
        )
        place = "on one GPU" if gpu else f"{at_once} at a time" if at_once > 1 else "one after the other"
        print(
            f"to train: {count(len(todo), 'run')}, {quantity(tokens)} tokens, {_rough(seconds / at_once)}, "
            f"{place}; {disk_size(megabytes)} of snapshots"
        )
    if trained := [configs[key].run_id for key in configs if key not in todo]:
        print(wrapped(f"trained already: {count(len(trained), 'run')},", trained))
    if merges := _merges(job, experiments):
        print(f"then to score: at most {count(merges, 'model')}, single snapshots and merges; known scores are reused")
    print(f"everything goes to {job.runs_dir}/{job.scale.name}; stop at any time, the same command goes on", flush=True)
    return {key: run.seconds for key, run in left.items()}


def _heading(job: DictConfig, experiments: list[DictConfig]) -> str:
    if len(experiments) == 1:
        return f"{experiment_title(experiments[0].name)}, scale {job.scale.name}: {experiments[0].title}"
    names = [experiment_title(experiment.name) for experiment in experiments]
    return wrapped(f"{len(experiments)} experiments, scale {job.scale.name}:", names)


def _print_runs(configs: dict[RunSeed, DictConfig], todo: dict[RunSeed, _Left]) -> None:
    width = max(len(run.label) for run in todo.values())
    names = max(len(configs[key].run_id) for key in todo)
    print(f"  {'run':{names}}  {'what it is':{width}}  {'tokens':>7}  {'time':>7}  {'disk':>8}")
    for key, run in todo.items():
        print(
            f"  {configs[key].run_id:{names}}  {run.label:{width}}  {quantity(run.tokens):>7}  "
            f"{_rough(run.seconds):>7}  {disk_size(run.megabytes):>8}"
        )
    if any("× rate" in run.label for run in todo.values()):
        print("  rate: the usual learning rate of this scale")


def _rough(seconds: float) -> str:
    """A time that is estimated: what takes seconds depends on more than the rates of training."""
    return "< 1 min" if seconds < 60 else duration(seconds)


def _left(cfg: DictConfig, gpu: bool) -> _Left:
    tokens = missing_tokens(cfg)
    if not tokens:
        return _Left(0, 0.0, 0.0, "")
    counts = parameter_counts(cfg.model)
    flops = flops_per_token(cfg.model, cfg.scale.sequence_length)
    label = run_in_words(cfg)
    if cfg.init.parent.run is None:  # else the model is that of the run that it starts from
        label = f"{size_label(cfg.model.kind, counts.total, cfg.model.stands_for)}, {label}"
    seconds = training_seconds(cfg.model.kind, flops, tokens, gpu)
    return _Left(tokens, seconds, _megabytes(cfg, tokens, counts), label)


def _megabytes(cfg: DictConfig, tokens: int, counts: ParameterCounts) -> float:
    """Disk that the snapshots of the next `tokens` tokens of a run take, MB."""
    positions = cfg.train.snapshots_at
    if positions is None:
        snapshots = tokens / cfg.train.snapshot_interval
    else:
        snapshots = sum(position > cfg.stop - tokens for position in positions)
    return snapshots * counts.total * SNAPSHOT_BYTES[cfg.train.snapshot_dtype] / 1e6


def _merges(job: DictConfig, experiments: list[DictConfig]) -> int:
    return sum(
        len(recipes(part, job.scale.merge_interval)) * len(part.runs) * len(job.seeds)
        for experiment in experiments
        for part in experiment.parts
    )
