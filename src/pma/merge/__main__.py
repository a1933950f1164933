"""Merge checkpoints of a run, of any trainer, or models from elsewhere.

python -m pma.merge run_dir=DIR last=10 method=sma output=OUT
python -m pma.merge run_dir=DIR method=sma n=10 interval=TOKENS end=TOKENS output=OUT
python -m pma.merge 'sources=[A,B,C]' method=ema alpha=0.2 output=OUT      (oldest first)
python -m pma.merge 'sources=[A,B,C]' 'weights=[0.2,0.3,0.5]' output=OUT
"""

from __future__ import annotations

import gc
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING, DictConfig

from pma import cli
from pma.config import ROOT, TrackingConfig
from pma.merge.options import Merge, Options, Policy, select
from pma.merge.ranks import is_first
from pma.merge.weights import equivalent_decay
from pma.words import count, disk_size, print_next

if TYPE_CHECKING:
    from pma.merge.recipes import Chosen


@dataclass
class MergeRecipeConfig:
    """One of several merges made in one pass; what it leaves open is as in the job."""

    method: str | None = None
    weights: list[float] | None = None
    alpha: float | None = None
    last: int | None = None
    n: int | None = None
    every: int | None = None
    interval: int | None = None
    end: int | None = None
    output: str = MISSING


@dataclass
class MergeJob(Options, Policy):
    """Everything `python -m pma.merge` reads: a recipe or several, and the fields of `Options` and `Policy`."""

    run_dir: str | None = None  # folder that a trainer wrote its checkpoints into
    sources: list[str] = field(default_factory=list)  # folders or repo@revision of the hub, oldest first
    method: str | None = None  # sma | wma | ema | linear | cosine | 1-sqrt; null, without weights: sma
    weights: list[float] | None = None  # explicit, oldest first
    alpha: float | None = None  # of ema
    positions: list[float] | None = None  # of the sources in training, for the shapes of a decay; null: evenly spaced
    last: int | None = None  # checkpoints: the newest ones up to end
    n: int | None = None  # the same, by the paper's name
    every: int = 1  # 2 takes every second checkpoint
    interval: int | None = None  # exact distance between checkpoints; null: as they lie
    end: int | None = None  # position of the newest; null: the newest there is
    tokens_per_step: int = 1  # turns the steps in names into tokens, for interval and end; 1: they are as in the names
    output: str | None = None
    merges: list[MergeRecipeConfig] = field(default_factory=list)  # many at once, each with its output
    push_to_hub: str | None = None  # NAME/REPOSITORY of the Hugging Face hub, for the merge when it is whole
    revision: str | None = None  # branch there; null: main
    dry_run: bool = False  # only check, and print the plan
    tracking: TrackingConfig = field(default_factory=lambda: TrackingConfig(mode="off"))
    group: str | None = None  # W&B group


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
    from pma.json_files import read_manifest
    from pma.tracking import Run, model_artifact

    for merge in merges:
        manifest = read_manifest(merge.output)
        contents = {source["folder"]: source["content"] for source in manifest["sources"]}
        used = [model_artifact(Path(folder), contents[folder]) for folder in folders if folder in contents]
        identity = {"id": manifest["content"].rpartition(":")[2], "name": merge.output.name, "group": job.group}
        with Run(Path(), job.tracking, **identity, job_type="merge", config=manifest) as run:
            run.used(used)
            run.made([model_artifact(merge.output)], merge.output if job.tracking.upload else None)


def _report(job: DictConfig, chosen: Chosen, seconds: float) -> None:
    """Say what was made, and which command comes next where one can succeed."""
    from pma.json_files import read_manifest
    from pma.merge.resume import advice
    from pma.merge.write import WEIGHTS

    output = chosen.merges[0].output
    manifest = read_manifest(output)
    resumable = manifest.get("resumable")
    files = output.rglob("*") if resumable else (path for path in output.iterdir() if path.name.endswith(WEIGHTS))
    size = sum(path.stat().st_size for path in files)
    what, each = "checkpoint" if resumable else "model", ", each" if len(chosen.merges) > 1 else ":"
    stored = "types as in the newest source" if manifest["dtype"] == "newest" else manifest["dtype"]
    print(
        f"merged {count(len(chosen.sources), 'snapshot')} into {count(len(chosen.merges), what)}{each} "
        f"{stored}, {disk_size(size / 1e6)}, in {seconds:.1f} s"
    )
    if resumable:
        print(f"optimizer={resumable['optimizer']}; train on with {advice(resumable['layout'], output)}")
    elif not (output / "config.json").is_file():
        print(
            f"no config.json lies beside {chosen.sources[-1]}, so {output} holds weights alone; assets=FOLDER takes "
            f"config and tokenizer from a folder that has them"
        )
    elif job.format == "safetensors" and any(output.glob("tokenizer*")):
        ours = "corpus" in manifest and (ROOT / manifest["corpus"] / "items").is_dir()
        rest = "" if ours else ' text=FILE  # FILE: held-out text of yours, a line {"text": "..."} a document'
        print_next(f"python -m pma.evaluate model={shlex.quote(str(output))}{rest}")


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.merge`.

    Raises:
        ValueError: for options that do not go together, or sources that cannot be merged.
    """
    from pma.merge.checkpoints import warn  # what follows imports NumPy
    from pma.merge.disk import merge_all, preview
    from pma.merge.hub import check_target, push
    from pma.merge.recipes import choose

    began = time.perf_counter()
    options, policy = select(Options, job), select(Policy, job)
    options.check()
    policy.check()
    if job.push_to_hub is not None and job.merges:
        raise ValueError(f"push_to_hub={job.push_to_hub}: goes with one merge; push each of merges=[...] by itself")
    check_target(job.push_to_hub, job.revision)
    chosen = choose(job)
    folders, merges = chosen.sources, chosen.merges
    if is_first():
        warn(chosen.warnings)
        _show(folders, merges)
    if job.dry_run:
        print("\n".join(preview(folders, merges, options, policy)))
        return
    merge_all(folders, merges, options, policy)
    if is_first():
        if job.tracking.mode != "off":
            _track(job, folders, merges)
        _report(job, chosen, time.perf_counter() - began)
        if job.push_to_hub is not None:
            print(f"pushed to {push(merges[0].output, job.push_to_hub, job.revision)}")


def command() -> None:
    """The console script."""
    gc.disable()  # a merge leaves no cycles of objects; looking for them takes a tenth of a second while it starts
    cli.run(main, MergeJob, "merge", "command")


if __name__ == "__main__":
    command()
