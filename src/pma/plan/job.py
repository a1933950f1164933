"""The schema of `python -m pma.plan`: a scale, its GPUs, and the rates that the plan assumes."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from pma.merge.options import MERGE_RATE
from pma.reproduce import cost


@dataclass
class PlanJob:
    """Everything `python -m pma.plan` reads. The rates are assumptions, which its output states."""

    scale: str = "paper"
    experiment: str = "all"
    gpus: int | None = None  # of every run; null: the fewest on which each fits and ends within `days`
    days: float = 30.0
    mfu_dense: float = cost.MFU_DENSE  # share of the peak FLOP/s in training: assumed, not measured
    mfu_moe: float = cost.MFU_MOE
    mfu_scoring: float = cost.MFU_SCORING
    peak_flops: float = cost.PEAK_FLOPS  # of an H100 SXM, dense bf16
    gpu_memory: float = 80.0e9  # bytes
    headroom: float = 0.05  # share of it left to the allocator and the communication library
    price: float = 2.5  # USD a GPU-hour, assumed
    scoring_tokens: int | None = None  # that a merge is scored on; null: an estimate of the scale's suite
    merge_rate: float = MERGE_RATE  # bytes of snapshots a second and core
    merge_cores: int = 2
    docs: str | None = None  # folder whose plan.md and plan.svg the plan is written to, as well as printed


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


def overrides(job: DictConfig) -> str:
    """Return what the job changes of the defaults, as on the command line: `scale=gpu price=9`; `docs` aside."""
    defaults = PlanJob()
    return " ".join(f"{key}={job[key]}" for key in job if key != "docs" and job[key] != getattr(defaults, key))
