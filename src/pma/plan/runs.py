"""What the runs and experiments of a scale take, before anything is started: FLOPs, memory, time, money, disk.

    python -m pma.plan scale=paper

Nothing is trained. Model shapes are built on the meta device and sharded under a fake process group of the planned
size; memory follows from the formulas of pma.memory, hours from FLOPs and a utilisation that the output states.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from pma.config import CONF_DIR, ModelConfig, ScaleConfig, lacks_part, register
from pma.model.build import flops_per_token
from pma.plan.memory import Memory, Sizes, activation_bytes, check_shards, sizes, training_memory
from pma.reproduce.experiment import RunSeed, expand, keep_needed, recipes, required, training_seconds
from pma.reproduce.job import ReproduceJob
from pma.reproduce.measure import RESOLUTION, SEQUENCES
from pma.run import is_fork

RECOMPUTATION = 4 / 3  # FLOPs of a step with a second forward pass, over those without
GPU_SCALES = ("gpu", "paper")
_SCORING_TOKENS = {"paper": 70_000_000}  # fifteen benchmarks by lm-eval's items and shots: an estimate
_PROXY_TOKENS = 140_000  # the suite proxy of scale cpu, counted


# ---- runs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """What the plan needs of a model: parameters, training FLOPs a token, and seconds a token on one thread."""

    config: ModelConfig
    sizes: Sizes
    flops: float
    thread_seconds: float

    @classmethod
    def of(cls, cfg: DictConfig) -> Model:
        """The model of a run."""
        m: ModelConfig = OmegaConf.to_object(cfg.model)
        return cls(m, sizes(m), flops_per_token(m, cfg.scale.sequence_length), training_seconds(cfg, 1, gpu=False))


def training_seconds_of(job: DictConfig, model: Model, tokens: int, recompute: bool) -> float:
    """Seconds of training on one GPU; scales smoke and cpu: on one thread."""
    if job.scale not in GPU_SCALES:
        return tokens * model.thread_seconds
    mfu = job.mfu_moe if model.config.kind == "moe" else job.mfu_dense
    return tokens * model.flops * (RECOMPUTATION if recompute else 1) / (job.peak_flops * mfu)


@dataclass(frozen=True)
class Layout:
    """How a run is spread: micro-batches of a whole batch, as scale.micro_batches, a multiple of the GPUs."""

    gpus: int
    micro_batches: int
    recompute: bool
    memory: Memory


def layout(job: DictConfig, cfg: DictConfig, model: Model, tokens: int) -> Layout:
    """The fewest GPUs, then the fewest micro-batches, in powers of two, on which a run of `tokens` fits and ends within
    the days of the job; layers are recomputed only if there are none without.

    Raises:
        ValueError: when there are none, or gpus does not divide the batch.
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
        days = training_seconds_of(job, model, tokens, recompute) / 86400
        for gpus in [job.gpus] if job.gpus else _doublings(1, sequences):
            for micro_batches in _doublings(math.lcm(scale.micro_batches, gpus), sequences):
                found = Layout(gpus, micro_batches, recompute, memory(gpus, micro_batches, recompute))
                least = min(least, found.memory.total)
                if found.memory.total <= usable and (job.gpus or days / gpus <= job.days):
                    return found
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


def start_tokens(cfg: DictConfig) -> int:
    """Position that a run starts at, tokens."""
    return cfg.init.parent.tokens if is_fork(cfg) else cfg.init.tokens or 0


def disk_bytes(cfg: DictConfig, parameters: int) -> float:
    """Bytes of a run's snapshots and of the checkpoints kept (parameters and moments in fp32, 12 bytes a parameter)."""
    t, start = cfg.train, start_tokens(cfg)
    every = range((start // t.snapshot_interval + 1) * t.snapshot_interval, cfg.stop + 1, t.snapshot_interval)
    at = set(every if t.snapshots_at is None else (p for p in t.snapshots_at if start < p <= cfg.stop))
    at |= {cfg.stop} if cfg.stop == t.total_tokens else set()
    at |= {start} if cfg.init.parent.run is not None else set()
    checkpoints = t.checkpoints_kept + sum(start < p <= cfg.stop for p in t.fork_points)
    return parameters * (len(at) * element_bytes(cfg) + checkpoints * 12.0)


def element_bytes(cfg: DictConfig) -> int:
    """Bytes a parameter of a run's snapshots."""
    return 4 if cfg.train.snapshot_dtype == "float32" else 2


def run_plan(job: DictConfig, cfg: DictConfig, model: Model) -> RunPlan:
    """The plan of one run, from its start to its `stop`."""
    m, scale, tokens = model.config, cfg.scale, cfg.stop - start_tokens(cfg)
    found = layout(job, cfg, model, tokens)
    at_once, element = scale.batch_tokens // found.micro_batches, 2 if scale.name in GPU_SCALES else 4
    kept = [activation_bytes(m, at_once, scale.sequence_length, element, recompute) for recompute in (False, True)]
    seconds = training_seconds_of(job, model, tokens, found.recompute) / found.gpus
    return RunPlan(
        run=cfg.run_id,
        model=m.name if m.qk_norm else f"{m.name}, no QK-norm",
        kind=m.kind,
        tokens=tokens,
        flops=tokens * model.flops,
        layout=found,
        tokens_at_once=at_once,
        activations=(kept[0], kept[1]),
        hours=seconds / 3600,
        disk=disk_bytes(cfg, model.sizes.total),
    )


# ---- merging and scoring ---------------------------------------------------------------------------------------------


def scoring_hours(job: DictConfig, model: Model, tokens: float) -> float:
    """GPU-hours (scales smoke and cpu: thread-hours) of forward passes, a third of training's FLOPs."""
    if job.scale not in GPU_SCALES:
        return model.thread_seconds * tokens / 3 / 3600
    return model.flops / 3 * tokens / (job.peak_flops * job.mfu_scoring) / 3600


def scored_tokens(job: DictConfig) -> int:
    """Tokens that a merge is scored on."""
    return job.scoring_tokens or _SCORING_TOKENS.get(job.scale, _PROXY_TOKENS)


@dataclass(frozen=True)
class ExperimentPlan:
    """What an experiment adds to those before it, and what it takes alone."""

    experiment: str
    runs: list[str]  # trained for it first
    merges: int
    merge_hours: float  # on the host
    training: float  # GPU-hours of `runs`
    scoring: float  # GPU-hours of merges that none before it has scored
    alone: float  # GPU-hours of training and scoring
    without_text: bool  # the data have nothing for some of its runs, so experiment=all leaves it out


@dataclass(frozen=True)
class _Work:
    """One merge, or measurement, of an experiment."""

    key: tuple  # the same for the same score
    run: RunSeed
    snapshots: int
    tokens: float  # of forward passes


def _work(job: DictConfig, experiment: DictConfig, sequence_length: int, interval: int) -> Iterator[_Work]:
    for part in experiment.parts:
        for run in ((run, seed) for run in part.runs for seed in range(part.seeds)):
            for recipe in recipes(part, interval):
                yield _Work((run, part.suite, recipe), run, recipe.n, scored_tokens(job))
    for m in experiment.measurements:
        if m.kind == "landscape":  # a grid of models, on one of four axes
            tokens = (m.n + 1 + 2 * (RESOLUTION**2 + m.n)) * scored_tokens(job) / 4
        else:  # Hessian products, of two gradients each
            tokens = 2 * 3 * m.n * SEQUENCES * sequence_length
        yield _Work((experiment.name, str(m)), (m.run, 0), m.n, tokens)


def plans(job: DictConfig) -> tuple[list[RunPlan], list[ExperimentPlan]]:
    """Plans of all runs and of all experiments, in order; what several share counts in the first.

    Raises:
        ValueError: for a run that does not fit.
    """
    GlobalHydra.instance().clear()  # this command's own, which knows no groups
    register(ReproduceJob)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        reproduction = compose("reproduce", [f"scale={job.scale}", f"experiment={job.experiment}", "device=cpu"])
        experiments = expand(reproduction)
        configs = required(reproduction, experiments)
        if reproduction.scale.snapshots == "needed":
            keep_needed(reproduction, configs)
        needed = [required(reproduction, [experiment]) for experiment in experiments]
    by_config = {str(cfg.model): Model.of(cfg) for cfg in {str(c.model): c for c in configs.values()}.values()}
    models = {key: by_config[str(cfg.model)] for key, cfg in configs.items()}
    runs = {key: run_plan(job, cfg, models[key]) for key, cfg in configs.items()}
    if job.scale in GPU_SCALES:
        spread = {(str(configs[key].model), run.layout.gpus): models[key] for key, run in runs.items()}
        for (_, gpus), model in spread.items():
            check_shards(model.config, model.sizes, gpus)

    seen: set[tuple] = set()
    found = []
    for experiment, wanted in zip(experiments, needed, strict=True):
        new = [runs[key] for key in wanted if key not in seen]
        seen.update(wanted)
        work = list(_work(job, experiment, reproduction.scale.sequence_length, reproduction.scale.merge_interval))
        hours = {one.key: scoring_hours(job, models[one.run], one.tokens) for one in work}
        bytes_read = [w.snapshots * models[w.run].sizes.total * element_bytes(configs[w.run]) for w in work]
        alone = [runs[key].gpu_hours * (cfg.stop - start_tokens(cfg)) / runs[key].tokens for key, cfg in wanted.items()]
        found.append(
            ExperimentPlan(
                experiment=experiment.name,
                runs=[run.run for run in new],
                merges=len(work),
                merge_hours=sum(bytes_read) / (job.merge_rate * job.merge_cores) / 3600,
                training=sum(run.gpu_hours for run in new),
                scoring=sum(value for key, value in hours.items() if key not in seen),
                alone=sum(alone) + sum(hours.values()),
                without_text=any(map(lacks_part, wanted.values())),
            )
        )
        seen.update(hours)
    return list(runs.values()), found


def check(job: DictConfig) -> None:
    """Refuse impossible options.

    Raises:
        ValueError: naming the option, its value and the mend.
    """
    for key in ("mfu_dense", "mfu_moe", "mfu_scoring"):
        if not 0 < job[key] <= 1:
            raise ValueError(f"{key}={job[key]}: give a fraction of the peak above 0 and at most 1")
    for key in ("peak_flops", "gpu_memory", "merge_rate", "merge_cores", "days"):
        if job[key] <= 0:
            raise ValueError(f"{key}={job[key]}: give a number above 0")
    if not 0 <= job.headroom < 1 or job.price < 0:
        raise ValueError(f"headroom={job.headroom} price={job.price}: give a fraction below 1, and no negative price")
