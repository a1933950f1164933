"""What a job of `python -m pma.watch` must not say, found before any work."""

from __future__ import annotations

import math
from pathlib import Path

from omegaconf import DictConfig

from pma.watch.anneals import PUBLISHED, Anneals, Own, Published


def check_numbers(job: DictConfig) -> None:
    """Refuse numbers that nothing can be done with; NaN is none that is at least 0.

    Raises:
        ValueError: naming the first.
    """
    if job.keep < 0 or job.tokens_per_step < 1:
        raise ValueError(f"keep={job.keep} tokens_per_step={job.tokens_per_step}: give at least 0, and at least 1")
    if not 0 < job.poll < math.inf:
        raise ValueError(f"poll={job.poll}: give seconds between two looks, above 0")
    if job.idle is not None and not job.idle >= 0:
        raise ValueError(f"idle={job.idle}: give seconds without a new checkpoint, or null to wait for ever")
    if job.anneal is not None and not 0 < job.anneal < math.inf:
        raise ValueError(f"anneal={job.anneal}: give the length of a decay, above 0")


def open_anneals(job: DictConfig) -> Anneals | None:
    """The finished decays to estimate from; None where no estimate is asked for.

    Raises:
        ValueError: for keys that do not go together, or a file of decays that cannot be read.
    """
    if job.anneal is None:
        if job.anneals is not None:
            raise ValueError(f"anneals={job.anneals}: goes with anneal=TOKENS, the length of the decay to estimate")
        return None
    if job.suite is None and job.text is None:
        raise ValueError(f"anneal={job.anneal}: an estimate needs scores; give text=FILE or suite=NAME")
    if job.anneals is not None:
        return Own(Path(job.anneals))
    return Published(PUBLISHED, "text" if job.text is not None else job.suite)
