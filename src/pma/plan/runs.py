"""What each run of a scale takes: FLOPs, GPUs, memory, hours, disk.

Model shapes are built on the meta device. Memory follows from the formulas of `pma.plan.memory`, hours from FLOPs and
from a utilisation that the job names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from pma.config import ModelConfig, ScaleConfig
from pma.model.build import flops_per_token
from pma.plan.memory import Memory, Sizes, activation_bytes, sizes, training_memory
from pma.reproduce.cost import CHECKPOINT_BYTES, SNAPSHOT_BYTES, gpu_seconds, thread_seconds
from pma.reproduce.runs import start_tokens

RECOMPUTATION = 4 / 3  # FLOPs of a step with a second forward pass, over those without
GPU_SCALES = ("gpu", "paper")


@dataclass(frozen=True)
class SizedModel:
    """A model and what the plan needs of it: parameters, training FLOPs a token, seconds a token on one CPU thread."""

    config: ModelConfig
    sizes: Sizes
    flops: float
    thread_seconds: float

    @classmethod
    def of(cls, cfg: DictConfig) -> SizedModel:
        """The model of a run."""
        m: ModelConfig = OmegaConf.to_object(cfg.model)
        flops = flops_per_token(m, cfg.scale.sequence_length)
        return cls(m, sizes(m), flops, thread_seconds(m.kind, flops, 1))


def training_time(job: DictConfig, model: SizedModel, tokens: int, recompute: bool) -> float:
    """Seconds of training on one GPU; for scales smoke and cpu on one thread."""
    if job.scale not in GPU_SCALES:
        return tokens * model.thread_seconds
    flops = tokens * model.flops * (RECOMPUTATION if recompute else 1)
    return gpu_seconds(flops, job.mfu_moe if model.config.kind == "moe" else job.mfu_dense, job.peak_flops)


@dataclass(frozen=True)
class Layout:
    """How a run is spread: micro-batches of a whole batch, as scale.micro_batches, a multiple of the GPUs."""

    gpus: int
    micro_batches: int
    recompute: bool
    memory: Memory


def layout(job: DictConfig, cfg: DictConfig, model: SizedModel, tokens: int) -> Layout:
    """Return the layout with the fewest GPUs, then the fewest micro-batches, on which a run fits and ends in time.

    Both are powers of two. In time is within the job's days for `tokens`. Layers are recomputed only where no layout
    without that is there.

    Raises:
        ValueError: when no layout fits, or gpus does not divide the batch.
    """
    scale, sequences = ScaleConfig(**cfg.scale), cfg.scale.batch_tokens // cfg.scale.sequence_length

    def memory(gpus: int, micro_batches: int, recompute: bool) -> Memory:
        at_once, gpu = scale.batch_tokens // micro_batches, scale.name in GPU_SCALES
        return training_memory(model.config, model.sizes, gpus, at_once, scale.sequence_length, recompute, gpu)

    if scale.name not in GPU_SCALES:
        return Layout(1, scale.micro_batches, False, memory(1, scale.micro_batches, False))
    if job.gpus is not None and (job.gpus < 1 or sequences % job.gpus):
        raise ValueError(f"gpus={job.gpus}: give a divisor of the {sequences} sequences of a batch")
    usable = job.gpu_memory * (1 - job.headroom)
    least = math.inf
    for recompute in (False, True):
        days = training_time(job, model, tokens, recompute) / 86400
        for gpus in [job.gpus] if job.gpus else _doublings(1, sequences):
            for micro_batches in _doublings(math.lcm(scale.micro_batches, gpus), sequences):
                candidate = Layout(gpus, micro_batches, recompute, memory(gpus, micro_batches, recompute))
                least = min(least, candidate.memory.total)
                if candidate.memory.total <= usable and (job.gpus or days / gpus <= job.days):
                    return candidate
    raise ValueError(
        f"{cfg.run_id} (model={model.config.name}): no plan for it. It needs at least {least / 1e9:.3g} GB a GPU, of "
        f"{usable / 1e9:.3g} usable, and {days:.3g} days of one GPU. Give GPUs with more memory (gpu_memory=BYTES), "
        f"more of them (gpus=N up to {sequences}, or null) or more days (days={job.days:g} now)"
    )


def _doublings(first: int, last: int) -> Iterator[int]:
    while first <= last and last % first == 0:
        yield first
        first *= 2


@dataclass(frozen=True)
class RunPlan:
    """What one run takes; disk is in bytes, flops are model FLOPs."""

    run: str
    model: str
    kind: str
    tokens: int
    flops: float
    layout: Layout
    tokens_at_once: int  # on one GPU
    activations: tuple[float, float]  # bytes that a GPU keeps without and with recomputation
    hours: float
    disk: float

    @property
    def shape(self) -> tuple[str, Layout]:
        """What two runs with the same memory share."""
        return self.model, self.layout

    @property
    def gpu_hours(self) -> float:
        """Hours times GPUs."""
        return self.hours * self.layout.gpus


def disk_bytes(cfg: DictConfig, parameters: int) -> float:
    """Bytes of a run's snapshots and of the checkpoints kept (parameters and moments)."""
    t, start = cfg.train, start_tokens(cfg)
    every = range((start // t.snapshot_interval + 1) * t.snapshot_interval, cfg.stop + 1, t.snapshot_interval)
    at = set(every if t.snapshots_at is None else (p for p in t.snapshots_at if start < p <= cfg.stop))
    at |= {cfg.stop} if cfg.stop == t.total_tokens else set()
    at |= {start} if cfg.init.parent.run is not None else set()
    checkpoints = t.checkpoints_kept + sum(start < p <= cfg.stop for p in t.fork_points)
    return parameters * (len(at) * SNAPSHOT_BYTES[t.snapshot_dtype] + checkpoints * CHECKPOINT_BYTES)


def run_plan(job: DictConfig, cfg: DictConfig, model: SizedModel) -> RunPlan:
    """The plan of one run, from its start to its `stop`."""
    m, scale, tokens = model.config, cfg.scale, cfg.stop - start_tokens(cfg)
    spread = layout(job, cfg, model, tokens)
    at_once, element = scale.batch_tokens // spread.micro_batches, 2 if scale.name in GPU_SCALES else 4
    kept = [activation_bytes(m, at_once, scale.sequence_length, element, recompute) for recompute in (False, True)]
    seconds = training_time(job, model, tokens, spread.recompute) / spread.gpus
    return RunPlan(
        run=cfg.run_id,
        model=m.name if m.qk_norm else f"{m.name}, no QK-norm",
        kind=m.kind,
        tokens=tokens,
        flops=tokens * model.flops,
        layout=spread,
        tokens_at_once=at_once,
        activations=(kept[0], kept[1]),
        hours=seconds / 3600,
        disk=disk_bytes(cfg, model.sizes.total),
    )
