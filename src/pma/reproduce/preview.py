"""Say what a reproduction is going to do: tokens, minutes and disk by run, before anything is trained."""

from __future__ import annotations

from omegaconf import DictConfig
from torch import cuda

from pma.device import cpu_threads
from pma.model.build import flops_per_token, parameter_counts
from pma.reproduce.cost import SNAPSHOT_BYTES, training_seconds
from pma.reproduce.experiment import RunSeed, recipes
from pma.reproduce.progress import missing_tokens


def print_preview(
    job: DictConfig, experiments: list[DictConfig], configs: dict[RunSeed, DictConfig]
) -> dict[RunSeed, float]:
    """Print what is left to do; return the rough seconds of training by run, 0 for a run that is trained."""
    gpu = job.device == "cuda" or (job.device == "auto" and cuda.is_available())
    print(f"{len(experiments)} experiment(s) at scale {job.scale.name}: {', '.join(e.name for e in experiments)}")
    where = "minutes, 1 GPU" if gpu else "minutes, 1 thread"
    print(f"  {'run':28} {'tokens to train':>16} {where:>18} {'snapshots, MB':>14}")
    seconds: dict[RunSeed, float] = {}
    disk = 0.0  # MB
    for key, cfg in configs.items():
        tokens = missing_tokens(cfg)
        if tokens:
            flops = flops_per_token(cfg.model, cfg.scale.sequence_length)
            seconds[key], megabytes = training_seconds(cfg.model.kind, flops, tokens, gpu), _megabytes(cfg, tokens)
            disk += megabytes
            print(f"  {cfg.run_id:28} {tokens:16,} {seconds[key] / 60:18.1f} {megabytes:14,.0f}")
        else:
            seconds[key] = 0.0
            print(f"  {cfg.run_id:28} {'trained':>16}")
    at_once = 1 if gpu else min(job.jobs, cpu_threads(job.threads))  # several runs share one GPU
    print(
        f"  in all {sum(seconds.values()) / 60 / at_once:.0f} minutes of training with {at_once} at once, "
        f"{disk / 1000:.1f} GB of snapshots; at most {_merges(job, experiments)} models to score",
        flush=True,
    )
    return seconds


def _megabytes(cfg: DictConfig, tokens: int) -> float:
    """Disk that the snapshots of the next `tokens` tokens of a run take, MB."""
    positions = cfg.train.snapshots_at
    if positions is None:
        snapshots = tokens / cfg.train.snapshot_interval
    else:
        snapshots = sum(position > cfg.stop - tokens for position in positions)
    return snapshots * parameter_counts(cfg.model).total * SNAPSHOT_BYTES[cfg.train.snapshot_dtype] / 1e6


def _merges(job: DictConfig, experiments: list[DictConfig]) -> int:
    return sum(
        len(recipes(part, job.scale.merge_interval)) * len(part.runs) * len(job.seeds)
        for experiment in experiments
        for part in experiment.parts
    )
