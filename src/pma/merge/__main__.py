"""Merge snapshots of a run, or models from elsewhere.

python -m pma.merge run_dir=DIR method=sma n=10 interval=TOKENS end=TOKENS output=OUT
python -m pma.merge 'sources=[A,B,C]' method=ema alpha=0.2 output=OUT      (oldest first)
python -m pma.merge 'sources=[A,B,C]' 'weights=[0.2,0.3,0.5]' output=OUT
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from pma import cli
from pma.config import TrackingConfig
from pma.layout import run_window, tokens_of
from pma.merge.options import Merge, Options, Policy, select
from pma.merge.ranks import is_first
from pma.merge.weights import equivalent_decay, explicit, method_weights
from pma.words import count, print_next


@dataclass
class MergeRecipeConfig:
    """One of several merges made in one pass over the snapshots of run_dir."""

    method: str = MISSING
    n: int = MISSING
    interval: int = MISSING  # tokens
    end: int = MISSING  # tokens
    alpha: float | None = None
    output: str = MISSING


@dataclass
class MergeJob(Options, Policy):
    """Everything `python -m pma.merge` reads: a recipe or several, and the fields of `Options` and `Policy`."""

    run_dir: str | None = None
    sources: list[str] = field(default_factory=list)  # folders or repo@revision of the hub, oldest first
    method: str | None = None  # sma | wma | ema | linear | cosine | 1-sqrt
    weights: list[float] | None = None  # explicit, oldest first
    alpha: float | None = None  # of ema
    positions: list[float] | None = None  # of the sources in training, for the shapes of a decay; null: evenly spaced
    n: int | None = None
    interval: int | None = None  # tokens
    end: int | None = None  # tokens
    output: str | None = None
    merges: list[MergeRecipeConfig] = field(default_factory=list)  # many at once, instead of method .. output
    dry_run: bool = False  # only check, and print the plan
    tracking: TrackingConfig = field(default_factory=lambda: TrackingConfig(mode="off"))
    group: str | None = None  # W&B group


_RECIPE = ("method", "weights", "alpha", "positions", "n", "interval", "end")


def _folders(job: DictConfig) -> list[str]:
    by_window = {key: job[key] for key in ("n", "interval", "end")}
    if (job.run_dir is None) == (not job.sources):
        raise ValueError("give either run_dir=DIR with n, interval and end, or sources=[A,B,...] (oldest first)")
    if job.run_dir is None:
        given = [key for key, value in by_window.items() if value is not None]
        if given:
            raise ValueError(f"{', '.join(given)}: goes with run_dir; sources=[...] names the models themselves")
        return list(job.sources)
    if job.positions is not None:
        raise ValueError("positions: goes with sources; the snapshots of a run say themselves where they are")
    missing = [key for key, value in by_window.items() if value is None]
    if missing:
        raise ValueError(f"run_dir={job.run_dir}: also give {', '.join(missing)} (interval and end in tokens)")
    return [str(folder) for folder in run_window(Path(job.run_dir), **by_window)]


def _single(job: DictConfig) -> tuple[list[str], list[Merge]]:
    if (job.method is None) == (job.weights is None):
        raise ValueError(
            "give either method=sma|wma|ema|linear|cosine|1-sqrt or weights=[...] (one for each source, oldest first)"
        )
    if job.output is None:
        raise ValueError("give output=DIR, the folder to be made")
    folders = _folders(job)
    if job.weights is not None:
        weights = explicit(job.weights, len(folders))
    else:
        weights = method_weights(job.method, len(folders), job.alpha, job.positions)
    recipe = {key: value for key, value in OmegaConf.to_container(job).items() if key in _RECIPE and value is not None}
    return folders, [Merge(tuple(weights), Path(job.output), recipe)]


def _many(job: DictConfig) -> tuple[list[str], list[Merge]]:
    """One list of sources for all recipes; what a recipe does not use has weight 0 in it."""
    single = [key for key in (*_RECIPE, "output", "sources") if job[key] not in (None, [])]
    if single or job.run_dir is None:
        raise ValueError(f"merges=[...]: goes with run_dir=DIR, and instead of {', '.join(single) or 'sources'}")
    windows = [run_window(Path(job.run_dir), m.n, m.interval, m.end) for m in job.merges]
    folders = sorted({folder for window in windows for folder in window}, key=tokens_of)
    merges = []
    for recipe, window in zip(job.merges, windows, strict=True):
        by_folder = dict(zip(window, method_weights(recipe.method, recipe.n, recipe.alpha), strict=True))
        weights = tuple(by_folder.get(folder, 0.0) for folder in folders)
        kept: dict[str, Any] = {
            k: v for k, v in OmegaConf.to_container(recipe).items() if k != "output" and v is not None
        }
        merges.append(Merge(weights, Path(recipe.output), kept))
    return [str(folder) for folder in folders], merges


def _show(folders: Sequence[str], merges: Sequence[Merge]) -> None:
    for merge in merges:
        used = [(weight, folder) for weight, folder in zip(merge.weights, folders, strict=True) if weight]
        for weight, folder in used:
            print(f"{weight:10.6f}  {folder}")
        total = sum(merge.weights)
        print(f"{count(len(used), 'snapshot')}, weights sum to {total:.6g} -> {merge.output}")
        if total and len(used) > 1:
            factors = equivalent_decay([weight for weight, _ in used])
            curve = " ".join(f"{factor:.3g}" for factor in factors)
            print(f"like training on with the learning rate, from each snapshot to the next, times {curve}")


def _track(job: DictConfig, folders: Sequence[str], merges: Sequence[Merge]) -> None:
    """A W&B run a merge: its sources with a weight as inputs, the merged model as output."""
    from pma.files import read_manifest
    from pma.tracking import Run, model_artifact

    for merge in merges:
        manifest = read_manifest(merge.output)
        contents = {source["folder"]: source["content"] for source in manifest["sources"]}
        used = [model_artifact(Path(folder), contents[folder]) for folder in folders if folder in contents]
        identity = {"id": manifest["content"].rpartition(":")[2], "name": merge.output.name, "group": job.group}
        with Run(Path(), job.tracking, **identity, job_type="merge", config=manifest) as run:
            run.used(used)
            run.made([model_artifact(merge.output)], merge.output if job.tracking.upload else None)


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.merge`.

    Raises:
        ValueError: for options that do not go together, or sources that cannot be merged.
    """
    began = time.perf_counter()
    options, policy = select(Options, job), select(Policy, job)
    options.check()
    policy.check()
    folders, merges = _many(job) if job.merges else _single(job)
    if is_first():
        _show(folders, merges)
    from pma.merge.disk import merge_all, preview

    if job.dry_run:
        print("\n".join(preview(folders, merges, options, policy)))
        return
    merge_all(folders, merges, options, policy)
    if is_first():
        if job.tracking.mode != "off":
            _track(job, folders, merges)
        made = count(len(merges), "model")
        print(f"merged {count(len(folders), 'snapshot')} into {made} in {time.perf_counter() - began:.1f} s")
        print_next(f"python -m pma.evaluate model={merges[0].output}")


def command() -> None:
    """The console script."""
    gc.disable()  # a merge leaves no cycles of objects; looking for them takes a tenth of a second while it starts
    cli.run(main, MergeJob, "merge", "command")


if __name__ == "__main__":
    command()
