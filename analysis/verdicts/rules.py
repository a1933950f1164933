"""The rules of claims.yaml: what they are, and how one test is judged by them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from records import ROOT

from verdicts.resampling import Statistic, holm, interval, p_value

BITS_UNIT, LOSS_UNIT = "bits per byte", "nats per token"
_WITH_P = ("above", "at_least", "level")


@dataclass(frozen=True)
class Common:
    """Numbers that hold for every claim."""

    alpha: float
    draws: int  # bootstrap resamples
    seed: int  # of the resampling
    smallest_effect: float  # worth naming, bits per byte
    margin_share: float  # of annealing's gain: the margin of "on a par"


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, and what decides it."""

    name: str  # C1, C2, ...
    source: str
    text: str
    paper: str  # what the paper shows for it
    decides: str
    reason: str
    experiments: tuple[str, ...]
    command: str
    evidence: str  # name of a function in verdicts/across_runs.py, along_run.py, curves.py or weight_space.py
    settings: Mapping[str, Any]
    measure: str = ""  # what is measured, and why that is the same question, in plain words
    limits: str = ""
    control: Mapping[str, str] = field(default_factory=dict)  # what, if_all_hold


@dataclass(frozen=True)
class Rules:
    """claims.yaml."""

    common: Common
    claims: tuple[Claim, ...]


def load_rules(path: Path = ROOT / "analysis" / "claims.yaml") -> Rules:
    """The rules and claims of a file."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    claims = (
        Claim(name, **{**entry, "experiments": tuple(entry["experiments"])})
        for name, entry in content["claims"].items()
    )
    return Rules(Common(**content["common"]), tuple(claims))


@dataclass(frozen=True)
class Test:
    """One statistic, positive where it favours the claim, and the rule that judges it (see the head of claims.yaml)."""

    __test__ = False  # pytest: not a test case

    statistic: str
    rule: str  # above | at_least | level | bound | most | report
    values: Statistic  # 1 + draws; a single number for bound and most
    unit: str = BITS_UNIT
    margin: Statistic | float = 0.0  # of at_least and level; of bound, the bound
    smallest: float = 0.0  # effect worth naming, of above
    interval: tuple[float, float] | None = None  # where it is not the bootstrap's
    accuracy: Statistic | None = None  # the same in accuracy, positive favours the claim
    accuracy_margin: Statistic | float = 0.0  # of at_least, in accuracy
    items: int = 0
    seeds: int = 0  # of the run with the fewest
    snapshots: int = 0  # merged
    steps: int = 0
    control: bool = False
    undecidable: str = ""  # why the test stays open whatever its numbers
    note: str = ""

    @property
    def estimate(self) -> float:
        """The statistic on the data."""
        return float(self.values[0])

    @property
    def margin_value(self) -> float:
        """The margin on the data."""
        return float(np.atleast_1d(self.margin)[0])

    @property
    def counted(self) -> bool:
        """Whether it takes part in the verdict."""
        return self.rule != "report" and not self.control

    def favourable(self) -> list[Statistic]:
        """Statistics that are all above 0 when the test holds; of the rules that have a p-value."""
        if self.rule == "above":
            return [self.values]
        if self.rule == "at_least":
            return [self.values + self.margin]
        return [self.margin - self.values, self.margin + self.values]  # level: two one-sided tests


@dataclass(frozen=True)
class Judged:
    """A test with its numbers and its outcome: what one row of claims.csv holds."""

    test: Test
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    outcome: str = ""  # holds | fails | open | shown
    undecidable: str = ""  # why it stays open
    accuracy: tuple[float, float, float] = (math.nan, math.nan, math.nan)  # estimate, low, high
    accuracy_p: float = math.nan
    contradicted: bool = False  # by accuracy, significantly

    @property
    def counted(self) -> bool:
        """Whether it takes part in the verdict."""
        return self.test.counted


def judge(tests: Sequence[Test], alpha: float, accuracy_moves: bool) -> list[Judged]:
    """All tests of a scale, which share one Holm correction.

    Args:
        tests: of all claims, in the order of claims.yaml.
        alpha: level of the tests and of the intervals.
        accuracy_moves: whether accuracy says anything at this scale; only then can it contradict.
    """
    measured = [_measure(test, alpha) for test in tests]
    in_family = [judged.counted and not math.isnan(judged.p) for judged in measured]
    corrected = iter(holm([judged.p for judged, member in zip(measured, in_family, strict=True) if member]))
    # Accuracy is a second family: it can only take a verdict back.
    in_second = [
        member and judged.test.accuracy is not None for judged, member in zip(measured, in_family, strict=True)
    ]
    second = iter(holm([judged.accuracy_p for judged, member in zip(measured, in_second, strict=True) if member]))
    result = []
    for judged, member, has_accuracy in zip(measured, in_family, in_second, strict=True):
        p_holm = next(corrected) if member else math.nan if judged.counted else judged.p  # a control as it is
        contradicted = has_accuracy and next(second) < alpha and accuracy_moves and _against(judged.test)
        complete = replace(judged, p_holm=p_holm, contradicted=bool(contradicted))
        result.append(replace(complete, outcome=outcome(complete, alpha)))
    return result


def _measure(test: Test, alpha: float) -> Judged:
    """Interval and p-value of a test, and the same of its accuracy."""
    low, high = test.interval or (interval(test.values, alpha) if len(test.values) > 1 else (math.nan, math.nan))
    judged = Judged(test, low, high, undecidable=test.undecidable)
    # A margin that is a share of an effect says nothing where the effect is not there.
    if isinstance(test.margin, np.ndarray) and interval(test.margin, alpha)[0] <= 0:
        judged = replace(judged, undecidable="the effect that the margin is a share of is not there")
    if test.rule in _WITH_P:
        judged = replace(judged, p=max(p_value(statistic) for statistic in test.favourable()))
    if test.accuracy is not None:
        accuracy = (float(test.accuracy[0]), *interval(test.accuracy, alpha))
        judged = replace(judged, accuracy=accuracy, accuracy_p=p_value(test.accuracy + test.accuracy_margin))
    return judged


def _against(test: Test) -> bool:
    return (test.accuracy + test.accuracy_margin)[0] < 0


def outcome(judged: Judged, alpha: float) -> str:
    """holds, fails, open or shown, by the rules at the head of claims.yaml, in their order."""
    test, estimate, low, high = judged.test, judged.test.estimate, judged.low, judged.high
    if test.rule == "report":
        return "shown"
    if judged.undecidable:
        return "open"
    if test.rule == "bound":
        highest = estimate if math.isnan(high) else max(estimate, high)
        return "holds" if highest < test.margin else "fails" if estimate >= test.margin else "open"
    if test.rule == "most":
        return "holds" if low > 0.5 else "fails" if estimate <= 0.5 else "open"
    # First of all: an effect too small to name fails, however sure its sign is.
    if test.rule == "above" and high < test.smallest:
        return "fails"
    sure, sides = judged.p_holm < alpha, test.favourable()
    if sure and all(side[0] > 0 for side in sides):
        return "holds"
    if test.rule == "level":
        return "fails" if any(interval(side, alpha)[1] < 0 for side in sides) else "open"
    return "fails" if sure else "open"
