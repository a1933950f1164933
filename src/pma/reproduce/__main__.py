"""Experiments of the paper: train what is missing, score the merges, write the records.

python -m pma.reproduce experiment=figure_4 scale=cpu
python -m pma.reproduce experiment=all dry_run=true
"""

from __future__ import annotations

from omegaconf import DictConfig

from pma import cli
from pma.reproduce.job import ReproduceJob
from pma.words import print_next


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.reproduce`."""
    from pma.reproduce.command import reproduce

    folders = reproduce(job)
    if folders and not job.dry_run:
        names = "" if job.experiment.includes else f" {folders[0].name}"
        elsewhere = "" if job.runs_dir == ReproduceJob().runs_dir else f" --runs-dir {job.runs_dir}"
        print_next(f"python analysis/draw.py --scale {job.scale.name}{elsewhere}{names}")


def command() -> None:
    """The console script."""
    cli.run(main, ReproduceJob, "reproduce")


if __name__ == "__main__":
    command()
