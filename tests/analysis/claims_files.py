"""What tests of rules and verdicts share: seeds, common numbers, eight numbers of a given mean, a file of one claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.stats
import yaml
from verdicts.rules import Common

SEEDS = [2, 3, 4, 5, 6, 7, 8, 9]
COMMON = Common(
    alpha=0.05,
    least_seeds=3,
    exploratory=(0, 1),
    confirmatory=tuple(SEEDS),
    smallest={"text": 0.005, "tasks": 0.005, "choice": 0.005, "nats": 0.01},
    margin_share=1 / 3,
)
PART = {"says": "a gain", "rule": "above", "evidence": "gain"}
# Eight numbers of mean 0 and standard deviation 1.
NOISE = scipy.stats.zscore([-3.0, 1.0, 4.0, -1.0, 5.0, -9.0, 2.0, 6.0], ddof=1)


def x(mean: float, sd: float = 0.01, n: int = 8) -> np.ndarray:
    """n numbers; with all eight, of exactly this mean and standard deviation."""
    return (mean + sd * NOISE)[:n]


def write_claims(path: Path, part_a: dict, **claim) -> Path:
    """A claims file of one claim."""
    entry = {"source": "Figure 1", "text": "t", "paper": "p", "experiments": ["mine"], "parts": {"a": part_a}, **claim}
    common = {**vars(COMMON), "exploratory": [0, 1], "confirmatory": SEEDS}
    path.write_text(yaml.safe_dump({"common": common, "claims": {"C1": entry}}))
    return path
