"""What the runs of a scale would take: GPUs, memory, hours, money, disk. Nothing is trained.

python -m pma.plan scale=paper
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pma import cli
from pma.plan.job import PlanJob, check
from pma.words import print_next


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.plan`."""
    check(job)
    from pma.plan.experiments import plans
    from pma.plan.show import text, write

    runs, experiments = plans(job)
    print(text(job, runs, experiments))
    following = f"python -m pma.reproduce experiment={job.experiment} scale={job.scale} dry_run=true"
    if job.docs is not None:
        print(f"\nwritten: {', '.join(map(str, write(job, runs, experiments, Path(job.docs))))}")
    print_next(f"{following} (what of it is left to do here)")


def command() -> None:
    """The console script."""
    cli.run(main, PlanJob, "plan", "command")


if __name__ == "__main__":
    command()
