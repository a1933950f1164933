"""Experiments of the paper: train what is missing, score the merges, write the records.

python -m pma.reproduce experiment=figure_4 scale=cpu
python -m pma.reproduce experiment=all dry_run=true
"""

from __future__ import annotations

from omegaconf import DictConfig

from pma import cli
from pma.reproduce.job import ReproduceJob


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.reproduce`."""
    from pma.reproduce.experiment import reproduce

    folders = reproduce(job)
    if not job.dry_run:
        names = " ".join(folder.name for folder in folders) if job.experiment.includes == [] else ""
        print(f"next: python analysis/draw.py --scale {job.scale.name} {names}".rstrip(), flush=True)


def command() -> None:
    """The console script."""
    cli.run(main, ReproduceJob, "reproduce")


if __name__ == "__main__":
    command()
