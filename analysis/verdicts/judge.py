"""Judges the parts of a scale by the rules at the head of claims.yaml: outcomes of parts, and verdicts of claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import pandas as pd
from formats import column_words, with_interval

from verdicts.rules import Common, Part
from verdicts.student import Student, holm

REPLICATED, PARTLY, NOT, OPEN, NOT_REACHED, NOT_RUN = VERDICTS = (
    "replicated",
    "partly",
    "not replicated",
    "open",
    "condition not reached",
    "not run",
)


_VERBS = {"open": "is open", "not run": "was not run", "shown": "is shown, not counted"}


@dataclass(frozen=True)
class Numbers:
    """What a part's evidence gives on one measure, a row a seed."""

    values: pd.DataFrame  # float columns; positive favours the claim
    margin_of: pd.Series | None = None  # the number of the same seeds that the margin is a share of
    left_out: tuple[int, ...] = ()  # seeds that were trained and gave no number

    def only(self, columns: Sequence[str]) -> Numbers:
        """The same with these columns."""
        return replace(self, values=self.values[list(columns)])

    def of_seeds(self, seeds: Sequence[int]) -> Numbers:
        """The same with these seeds."""
        rows = self.values.index[self.values.index.isin(seeds)]
        return Numbers(self.values.loc[rows], None if self.margin_of is None else self.margin_of.loc[rows])

    def margin(self, part: Part, common: Common) -> pd.Series:
        """The margin of each seed; 0 for a rule without one."""
        if self.margin_of is None:
            return pd.Series(part.margin, index=self.values.index)
        return common.margin_share * self.margin_of

    def sides(self, part: Part, common: Common) -> list[tuple[str, Student]]:
        """(column, numbers) that are all above 0 where the claim is right: x, x + margin, or both sides of a level."""
        margin = self.margin(part, common)
        sides = []
        for column, x in self.values.items():
            if part.rule == "level":  # two one-sided tests (Schuirmann 1987)
                sides.append((column, Student.of(margin - x)))
            sides.append((column, Student.of(x + margin)))
        return sides


@dataclass(frozen=True)
class Evidence:
    """A part of a claim with what the records say of it. Only `numbers` and `others` count."""

    claim: str
    part: Part
    numbers: Numbers | None = None  # of the confirmatory seeds; none where there is no such seed, or no record
    others: Mapping[str, Numbers] = field(default_factory=dict)  # the same on other measures, by measure
    exploratory: Numbers | None = None  # of seeds that were looked at before the rules: for figures
    missing: str = ""  # which record is not there


@dataclass(frozen=True)
class Contradiction:
    """A second measure that says the opposite, significantly."""

    measure: str
    column: str
    mean: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """As a verdict shows it: but tasks: -0.020 [-0.030, -0.010]."""
        return f"but {self.measure}: {with_interval(self.mean, self.low, self.high, '+z.3f')}"


@dataclass(frozen=True)
class Judged:
    """A part with its numbers and its outcome."""

    evidence: Evidence
    outcome: str  # holds | fails | open | not run | shown
    reason: str = ""  # of an outcome that the numbers alone do not explain
    p: float = math.nan  # one-sided; the largest, where several tests must hold
    p_holm: float = math.nan
    margin: float = math.nan  # mean over the seeds; NaN for a rule without one, and without numbers
    contradictions: tuple[Contradiction, ...] = ()

    @property
    def claim(self) -> str:
        """Name of the claim."""
        return self.evidence.claim

    @property
    def part(self) -> Part:
        """The part that is judged."""
        return self.evidence.part

    @property
    def counted(self) -> bool:
        """Whether it takes part in the claim's verdict."""
        return self.part.counted

    @property
    def said(self) -> str:
        """Its letter and outcome, and what contradicts it: a holds, but tasks: -0.020 [-0.030, -0.010]."""
        return f"{self.part.name} {self.verb}" + "".join(f", {c.text}" for c in self.contradictions)

    @property
    def verb(self) -> str:
        """The outcome as a sentence has it: holds, is open."""
        return _VERBS.get(self.outcome, self.outcome)

    @cached_property
    def columns(self) -> dict[str, Student]:
        """The numbers of every column over the confirmatory seeds."""
        numbers = self.evidence.numbers
        return {} if numbers is None else {name: Student.of(x) for name, x in numbers.values.items()}

    @property
    def headline_column(self) -> str:
        """The column with the least mean: the one that decides; empty where there is none."""
        return min(self.columns, key=lambda name: self.columns[name].mean, default="")

    @property
    def headline(self) -> Student:
        """The headline number over the confirmatory seeds."""
        return self.columns.get(self.headline_column, Student.of([]))

    @property
    def seeds(self) -> list[int]:
        """Confirmatory seeds with numbers."""
        return [] if self.evidence.numbers is None else list(self.evidence.numbers.values.index)


def judge(parts: Sequence[Evidence], common: Common) -> list[Judged]:
    """All parts of a scale; those that count and have a p-value share one Holm correction."""
    p_values = [_p(evidence, common) for evidence in parts]
    tested = [i for i, p in enumerate(p_values) if not math.isnan(p)]
    adjusted = dict(zip(tested, holm([p_values[i] for i in tested]), strict=True))
    judged = []
    for i, evidence in enumerate(parts):
        p_holm = adjusted.get(i, math.nan)
        outcome, reason = _outcome(evidence, p_holm, common)
        if evidence.numbers is not None and evidence.numbers.left_out:
            reason = "; ".join(filter(None, [reason, _left_out(evidence.numbers.left_out)]))
        margin, contradictions = _margin(evidence, common), _contradictions(evidence, common)
        judged.append(Judged(evidence, outcome, reason, p_values[i], p_holm, margin, contradictions))
    return judged


def _left_out(seeds: Sequence[int]) -> str:
    return f"no number of seed {', '.join(map(str, seeds))}"


def _margin(evidence: Evidence, common: Common) -> float:
    numbers = evidence.numbers
    if numbers is None or not evidence.part.has_margin:
        return math.nan
    return Student.of(numbers.margin(evidence.part, common)).mean


def _enough(numbers: Numbers | None, common: Common) -> bool:
    return numbers is not None and len(numbers.values) >= common.least_seeds


def _has_share(numbers: Numbers, common: Common) -> bool:
    """Whether the number that the margin is a share of is there at all: its mean is above 0."""
    return numbers.margin_of is None or Student.of(numbers.margin_of).p_above < common.alpha


def _p(evidence: Evidence, common: Common) -> float:
    """One-sided p of a part: the largest of its sides (intersection-union, Berger 1982); NaN where there is no test."""
    part = evidence.part
    if part.rule in ("report", "bound") or not _enough(evidence.numbers, common):
        return math.nan
    return max(side.p_above for _, side in evidence.numbers.sides(part, common))


def _outcome(evidence: Evidence, p_holm: float, common: Common) -> tuple[str, str]:
    """Outcome of a part and the reason for it, in the order of the rules."""
    part, numbers = evidence.part, evidence.numbers
    if evidence.missing:
        return "not run", evidence.missing
    if not part.counted:
        return "shown", ""
    if not _enough(numbers, common):
        n = 0 if numbers is None else len(numbers.values)
        return "open", f"{n} {'seed' if n == 1 else 'seeds'}; {common.least_seeds} are needed"
    columns = {name: Student.of(x) for name, x in numbers.values.items()}
    if part.rule == "bound":
        # Shares such as 12 of 15 may miss a bound of .8 by rounding alone.
        return ("holds" if all(round(x.mean - part.margin, 9) >= 0 for x in columns.values()) else "fails"), ""
    if not _has_share(numbers, common):
        return "open", f"nothing to take a share of: the {part.margin_of.replace('_', ' ')} is not above 0"
    if part.rule in ("above", "all_above"):
        # First of all: an effect too small to name fails, however sure its sign is.
        for name, x in sorted(columns.items(), key=lambda column: column[1].mean):
            if (high := x.interval(common.alpha)[1]) < part.smallest:
                below = "0" if high < 0 else f"the smallest effect, {part.smallest:g}"
                return "fails", f"below {below}{_where(name, columns)}"
    for name, side in sorted(numbers.sides(part, common), key=lambda side: side[1].mean):
        if part.rule == "level":
            if side.interval(common.alpha)[1] < 0:
                return "fails", f"outside the margin{_where(name, columns)}"
        elif side.p_below < common.alpha:
            below = "minus the margin" if part.has_margin else "0"
            return "fails", f"below {below}{_where(name, columns)}"
    return ("holds" if p_holm < common.alpha else "open"), ""


def _where(column: str, columns: Mapping[str, Student]) -> str:
    return f": {column_words(column)}" if len(columns) > 1 else ""


def _contradictions(evidence: Evidence, common: Common) -> tuple[Contradiction, ...]:
    """Columns whose sign another measure turns round significantly, the surest of each measure.

    "Level" and "bound" have no sign to turn round.
    """
    part = evidence.part
    if not part.counted or part.rule in ("level", "bound") or not _enough(evidence.numbers, common):
        return ()
    found = []
    for measure, other in evidence.others.items():
        if not _enough(other, common) or not _has_share(other, common):
            continue
        shared = [column for column in evidence.numbers.values if column in other.values]
        mine, theirs = (n.only(shared).sides(part, common) for n in (evidence.numbers, other))
        against = []
        for (column, side), (_, second) in zip(mine, theirs, strict=True):
            p = second.p_below if side.mean > 0 else second.p_above if side.mean < 0 else math.nan
            if p < common.alpha:
                against.append((p, column))
        if against:
            column = min(against)[1]
            x = Student.of(other.values[column])
            found.append(Contradiction(measure, column, x.mean, *x.interval(common.alpha)))
    return tuple(found)


def verdict_of(parts: Sequence[Judged], tried: str = "") -> str:
    """The verdict of a claim from its parts, by the rule at the head of claims.yaml.

    A part that was not run can neither hold nor fail.
    """
    if tried:
        return NOT_REACHED
    outcomes = {judged.outcome for judged in parts if judged.counted}
    if outcomes == {"not run"}:
        return NOT_RUN
    if outcomes == {"holds"}:
        return REPLICATED
    if "holds" in outcomes:
        return PARTLY
    return NOT if "fails" in outcomes else OPEN
