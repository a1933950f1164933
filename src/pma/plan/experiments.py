"""What each experiment of a scale takes: training that it shares with none before it, merging, scoring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from pma.config import CONF_DIR, lacks_part, register
from pma.plan.memory import check_shards
from pma.plan.runs import GPU_SCALES, RunPlan, SizedModel, run_plan
from pma.reproduce.cost import SNAPSHOT_BYTES, gpu_seconds
from pma.reproduce.experiment import RunSeed, expand, measured_windows, recipes
from pma.reproduce.job import GRID_POINTS, HELDOUT_SEQUENCES, ReproduceJob
from pma.reproduce.runs import keep_needed, required, start_tokens

_SCORING_TOKENS = {"paper": 70_000_000}  # fifteen benchmarks by lm-eval's items and shots: an estimate
_PROXY_TOKENS = 140_000  # the suite proxy of scale cpu, counted


def scoring_hours(job: DictConfig, model: SizedModel, tokens: float) -> float:
    """GPU-hours (scales smoke and cpu: thread-hours) of forward passes, a third of training's FLOPs."""
    if job.scale not in GPU_SCALES:
        return model.thread_seconds * tokens / 3 / 3600
    return gpu_seconds(model.flops / 3 * tokens, job.mfu_scoring, job.peak_flops) / 3600


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
        for run in part.runs:
            for recipe in recipes(part, interval):
                yield _Work((run, part.suite, recipe), (run, 0), recipe.n, scored_tokens(job))
    for m in experiment.measurements:
        snapshots = len({at for window in measured_windows(m, interval) for at in window.window})
        if m.kind == "landscape":  # a grid of models, on one of four axes
            tokens = (GRID_POINTS**2 + snapshots) * scored_tokens(job) / 4
        else:  # Hessian products, of two gradients each
            tokens = 2 * 3 * snapshots * HELDOUT_SEQUENCES * sequence_length
        yield _Work((experiment.name, str(m)), (m.run, 0), snapshots, tokens)


def plans(job: DictConfig) -> tuple[list[RunPlan], list[ExperimentPlan]]:
    """Plan all runs and all experiments of a job, in order; what several share counts in the first.

    Raises:
        ValueError: for a run that does not fit.
    """
    GlobalHydra.instance().clear()  # this command's own Hydra, which knows no config groups
    register(ReproduceJob)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        reproduction = compose("reproduce", [f"scale={job.scale}", f"experiment={job.experiment}", "device=cpu"])
        experiments = expand(reproduction)
        configs = required(reproduction, experiments)
        if reproduction.scale.snapshots == "needed":
            keep_needed(reproduction, experiments, configs)
        configs_by_experiment = [required(reproduction, [experiment]) for experiment in experiments]
    distinct = {str(cfg.model): cfg for cfg in configs.values()}
    sized = {key: SizedModel.of(cfg) for key, cfg in distinct.items()}
    models = {key: sized[str(cfg.model)] for key, cfg in configs.items()}
    runs = {key: run_plan(job, cfg, models[key]) for key, cfg in configs.items()}
    if job.scale in GPU_SCALES:
        spread = {(str(configs[key].model), run.layout.gpus): models[key] for key, run in runs.items()}
        for (_, gpus), model in spread.items():
            check_shards(model.config, model.sizes, gpus)

    seen_runs: set[RunSeed] = set()
    seen_work: set[tuple] = set()
    planned = []
    for experiment, own in zip(experiments, configs_by_experiment, strict=True):
        new = [runs[key] for key in own if key not in seen_runs]
        seen_runs.update(own)
        work = list(_work(job, experiment, reproduction.scale.sequence_length, reproduction.scale.merge_interval))
        hours = {w.key: scoring_hours(job, models[w.run], w.tokens) for w in work}
        bytes_read = [
            w.snapshots * models[w.run].sizes.total * SNAPSHOT_BYTES[configs[w.run].train.snapshot_dtype] for w in work
        ]
        alone = [runs[key].gpu_hours * (cfg.stop - start_tokens(cfg)) / runs[key].tokens for key, cfg in own.items()]
        planned.append(
            ExperimentPlan(
                experiment=experiment.name,
                runs=[run.run for run in new],
                merges=len(work),
                merge_hours=sum(bytes_read) / (job.merge_rate * job.merge_cores) / 3600,
                training=sum(run.gpu_hours for run in new),
                scoring=sum(value for key, value in hours.items() if key not in seen_work),
                alone=sum(alone) + sum(hours.values()),
                without_text=any(map(lacks_part, own.values())),
            )
        )
        seen_work.update(hours)
    return list(runs.values()), planned
