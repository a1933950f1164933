"""What the runs of a scale would take: GPUs, memory, hours, money, disk. Nothing is trained.

python -m pma.plan scale=paper
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from pma import cli
from pma.merge.options import MERGE_RATE


@dataclass
class PlanJob:
    """Everything `python -m pma.plan` reads. The rates are assumptions, which its output states."""

    scale: str = "paper"
    experiment: str = "all"
    gpus: int | None = None  # of every run; null: the fewest on which each fits and ends within `days`
    days: float = 30.0
    mfu_dense: float = 0.40  # share of the peak FLOP/s in training: assumed, not measured
    mfu_moe: float = 0.25
    mfu_scoring: float = 0.20
    peak_flops: float = 989.4e12  # of an H100 SXM, dense bf16
    gpu_memory: float = 80.0e9  # bytes
    headroom: float = 0.05  # share of it left to the allocator and the communication library
    price: float = 2.5  # USD a GPU-hour, assumed
    scoring_tokens: int | None = None  # that a merge is scored on; null: an estimate of the scale's suite
    merge_rate: float = MERGE_RATE  # bytes of snapshots a second and core
    merge_cores: int = 2
    docs: str = "docs"  # folder of scale.md and plan.svg, written for all experiments of scale=paper


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.plan`."""
    from pma.plan.runs import check, plans
    from pma.plan.show import draw, text, write_docs

    check(job)
    runs, experiments = plans(job)
    plan = text(job, runs, experiments)
    print(plan)
    if job.scale == "paper" and job.experiment == "all":
        docs = Path(job.docs)
        command = "`make plan SCALE=paper` wrote what follows; nothing of it has been run."
        picture = "![GPU-hours by run and memory of one GPU by part](plan.svg)"
        draw(job, runs, docs / "plan.svg")
        write_docs(docs / "scale.md", f"{command}\n\n{plan}\n\n{picture}")
        print(f"\nwritten: {docs / 'scale.md'}, {docs / 'plan.svg'}")


def command() -> None:
    """The console script."""
    cli.run(main, PlanJob, "plan", "command")


if __name__ == "__main__":
    command()
