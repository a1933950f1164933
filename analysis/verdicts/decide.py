"""The verdict of each claim, from the outcomes of its tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from records import Missing, Study

from verdicts import across_runs, along_run, curves, weight_space
from verdicts.rules import Claim, Judged, Rules, Test, judge
from verdicts.sample import Sample

REPLICATED, PARTLY, NOT, NOT_TESTABLE, NOT_RUN = VERDICTS = (
    "replicated",
    "partly",
    "not replicated",
    "not testable here",
    "not run",
)
_SHOWN_TESTS = 3  # in a sentence


@dataclass(frozen=True)
class Decision:
    """A claim at one scale."""

    claim: Claim
    verdict: str
    why: str = ""  # of a claim without tests
    judged: tuple[Judged, ...] = ()
    seconds: float = math.nan  # what its records took

    @property
    def counted(self) -> list[Judged]:
        """The tests that take part in the verdict."""
        return [judged for judged in self.judged if judged.counted]

    @property
    def held(self) -> int:
        """How many of them hold."""
        return sum(judged.outcome == "holds" for judged in self.counted)

    @property
    def sentence(self) -> str:
        """What the records say, in words."""
        if not self.judged:
            return f"{self.claim.text}: {self.verdict}: {self.why}."
        parts = [f"{self.held} of {len(self.counted)} tests hold"]
        for outcome, word in (("fails", "Against it"), ("open", "Undecided")):
            names = [judged.test.statistic for judged in self.counted if judged.outcome == outcome]
            if names:
                rest = len(names) - _SHOWN_TESTS
                parts.append(f"{word}: {'; '.join(names[:_SHOWN_TESTS])}{f'; and {rest} more' if rest > 0 else ''}")
        parts += self._control()
        if any(judged.contradicted for judged in self.counted):
            parts.append("Accuracy contradicts")
        notes = dict.fromkeys(judged.test.note for judged in self.counted if judged.test.note)
        return ". ".join([*parts, *notes]) + "."

    def _control(self) -> list[str]:
        outcomes = [judged.outcome for judged in self.judged if judged.test.control]
        if not outcomes:
            return []
        control, held = self.claim.control, outcomes.count("holds")
        text = f"Control, {control['what']}: {held} of {len(outcomes)} hold"
        return [f"{text}: {control['if_all_hold']}" if held == len(outcomes) else text]


def verdict_of(tests: Sequence[Judged]) -> str:
    """The verdict from the tests that count, by the rule at the head of claims.yaml."""
    outcomes = [judged.outcome for judged in tests]
    if all(outcome == "holds" for outcome in outcomes):
        return PARTLY if any(judged.contradicted for judged in tests) else REPLICATED
    if "holds" in outcomes:
        return PARTLY
    return NOT if "fails" in outcomes else NOT_TESTABLE


def _evidence(name: str) -> Callable[..., list[Test]]:
    modules = (across_runs, along_run, curves, weight_space)
    return next(getattr(module, name) for module in modules if hasattr(module, name))


def decide(root: Path, rules: Rules) -> list[Decision]:
    """All claims from the records below `root`, in the order of claims.yaml.

    A claim whose records are missing is not run; one that the records cannot speak of is not testable here.
    """
    study = Study(root)
    sample = Sample(study, rules.common)
    tests: dict[str, list[Test]] = {}
    untested: dict[str, tuple[str, str]] = {}  # verdict, why
    for claim in rules.claims:
        try:
            tests[claim.name] = _evidence(claim.evidence)(sample, **claim.settings)
        except Missing as missing:
            untested[claim.name] = NOT_RUN, str(missing)
        except curves.NotTestable as reason:
            untested[claim.name] = NOT_TESTABLE, str(reason)
    everything = [test for of_claim in tests.values() for test in of_claim]
    judged = iter(judge(everything, rules.common.alpha, bool(everything) and sample.accuracy_moves))
    decisions = []
    for claim in rules.claims:
        if claim.name in untested:
            decisions.append(Decision(claim, *untested[claim.name]))
            continue
        of_claim = tuple(next(judged) for _ in tests[claim.name])
        verdict = verdict_of([j for j in of_claim if j.counted])
        decisions.append(Decision(claim, verdict, judged=of_claim, seconds=study.cost(claim.experiments)))
    return decisions


def published_scales(runs_dir: Path) -> list[str]:
    """Scales with published records, the default one first."""
    scales = sorted(path.parent.name for path in runs_dir.glob("*/published") if path.is_dir())
    return sorted(scales, key=lambda scale: scale != "cpu")


def decide_published(runs_dir: Path, rules: Rules) -> dict[str, list[Decision]]:
    """Every published scale, decided anew.

    Raises:
        ValueError: when nothing is published.
    """
    scales = published_scales(runs_dir)
    if not scales:
        raise ValueError(f"{runs_dir}: no records published there (SCALE/published)")
    return {scale: decide(runs_dir / scale / "published", rules) for scale in scales}
