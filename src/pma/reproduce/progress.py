"""What the disk holds of a plan: tokens trained, snapshots that are missing, records that are up to date."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pma.config import SCORING_VERSION, hash_json
from pma.json_files import MANIFEST, read_manifest
from pma.layout import checkpoints, snapshots
from pma.reproduce.experiment import RunSeed, deciding
from pma.reproduce.runs import add_parent_window, runs_of, start_tokens, windows_read
from pma.run import identity, parent_folder, run_folder, trained_tokens

_USUAL_SCORING = {"scoring": "memory", "suite": None}  # left out of a stamp, which is older than these keys


def missing_tokens(cfg: DictConfig) -> int:
    """Return the tokens still to train up to the config's `stop`.

    Raises:
        ValueError: when the run's folder holds another run.
    """
    parent, start = parent_folder(cfg), start_tokens(cfg)
    if parent is not None and not (parent / MANIFEST).exists():
        return cfg.stop - start
    return max(0, cfg.stop - max(trained_tokens(cfg), start))


def experiment_folder(job: DictConfig, experiment: DictConfig) -> Path:
    """Return the folder of an experiment's records."""
    return Path(job.runs_dir) / job.scale.name / experiment.name


def stamp(job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig]) -> str | None:
    """Return the hash of what an experiment's records depend on; None while one of its runs is not trained."""
    runs = [configs[key] for key in runs_of(job, experiment)]
    if any(missing_tokens(cfg) for cfg in runs):
        return None
    return hash_json(
        {
            "experiment": deciding(experiment),
            "runs": [identity(cfg) for cfg in runs],
            "version": SCORING_VERSION,
            **{key: job.scale[key] for key, usual in _USUAL_SCORING.items() if job.scale[key] != usual},
        }
    )


def is_done(job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig]) -> bool:
    """Whether the records of an experiment are there and made from its runs as they are now."""
    folder, now = experiment_folder(job, experiment), stamp(job, experiment, configs)
    return now is not None and (folder / MANIFEST).exists() and read_manifest(folder).get("stamp") == now


def check_snapshots(job: DictConfig, experiments: list[DictConfig], configs: dict[RunSeed, DictConfig]) -> None:
    """Refuse experiments that read a snapshot which their runs did not save, or are not going to save.

    A run can lack one that is needed now because another seed or experiment was added since it was trained: with
    scale.snapshots=needed a run keeps only what the experiments of conf/experiment read.

    Raises:
        ValueError: naming the run, the positions in tokens and the mend.
    """
    reads: dict[RunSeed, set[int]] = {}
    for experiment in experiments:
        for key, positions in windows_read(job, [experiment], configs).items():
            _check_positions(configs[key], experiment.name, positions)
            reads.setdefault(key, set()).update(positions)
    for cfg in configs.values():
        if not _has_begun(cfg) and cfg.init.parent.optimizer != "last":  # a fork starts from a checkpoint
            add_parent_window(reads, configs, cfg)
    lacking = []
    for key, positions in reads.items():
        folder, there = run_folder(configs[key]), snapshots(run_folder(configs[key]))
        lost = sorted(at for at in positions if at <= _resumes_at(configs[key]) and at not in there)
        if lost:
            lacking.append(f"{folder} lacks the snapshots at {_some(lost)} tokens")
    if lacking:
        raise ValueError(
            f"{'; '.join(lacking)}. They were not needed when these runs were trained. Remove the folders of these "
            f"runs, and the same command trains them again"
        )


def _check_positions(cfg: DictConfig, experiment: str, positions: set[int]) -> None:
    interval, end = cfg.train.snapshot_interval, cfg.train.total_tokens
    never = sorted(at for at in positions if not 0 < at <= end or (at % interval and at != end))
    if never:
        raise ValueError(
            f"experiment {experiment} reads snapshots of run={cfg.run_name} at {_some(never)} tokens, which it never "
            f"saves: it saves each {interval:,} tokens up to {end:,}. Give other points, intervals or n"
        )


def _resumes_at(cfg: DictConfig) -> int:
    """Position in tokens up to which a run is not trained again; 0 before it has begun."""
    if not _has_begun(cfg):
        return 0
    return max(cfg.stop - missing_tokens(cfg), *checkpoints(run_folder(cfg)), 0)


def _has_begun(cfg: DictConfig) -> bool:
    return bool(snapshots(run_folder(cfg)) or checkpoints(run_folder(cfg)))


def _some(positions: list[int]) -> str:
    shown = ", ".join(f"{tokens:,}" for tokens in positions[:3])
    return shown + (f", ... ({len(positions)} in all)" if len(positions) > 3 else "")
