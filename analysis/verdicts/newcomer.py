"""What closes `make reproduce`: your numbers beside the published ones, part by part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from formats import listed, seeds_words
from records import Missing, Study

from verdicts.bits import bits_lines
from verdicts.decide import SEEDS_COLUMNS, Functions, numbers_of, trained_seeds
from verdicts.overlay import Overlay
from verdicts.rules import Claim, Part, Rules, evidence_functions
from verdicts.student import Student
from verdicts.tables import number_text

_DIGITS = 9  # below these, differences are rounding: seeds that all agree have an interval of one point
_MARGIN = "margin_of "  # begins the columns of seeds.csv that hold what a margin is a share of


@dataclass(frozen=True)
class Beside:
    """One part's number of your seeds, and what the published seeds say that it should be.

    Args:
        number: of the column that decides; the mean over your seeds. NaN where there is none.
        why: there is none.
        others: the published confirmatory seeds that are not yours.
        seeds: how many are yours.
    """

    claim: Claim
    part: Part
    number: float = math.nan
    why: str = ""
    others: Student = field(default_factory=lambda: Student.of([]))
    seeds: int = 0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % prediction interval of your number; NaN without two published seeds."""
        return self.others.prediction(seeds=max(self.seeds, 1))

    @property
    def within(self) -> bool | None:
        """Whether your number lies in it; None where one of them is not there."""
        low, high, number = (round(x, _DIGITS) for x in (*self.interval, self.number))
        return None if math.isnan(low + number) else low <= number <= high

    @property
    def line(self) -> str:
        """C1 a   +0.041  within [+0.012, +0.066]: on average over the sizes."""
        name = f"{self.claim.name} {self.part.name}"
        if self.why:
            return f"{name:6} {'-':>8}  {self.why}"
        place = ""
        if self.within is not None:
            low, high = (number_text(self.part, bound) for bound in self.interval)
            place = f"  {'within' if self.within else 'outside'} [{low}, {high}]"
        return f"{name:6} {number_text(self.part, self.number):>8}{place}: {self.part.says}"


def closing_lines(own: Study, published: Study, published_seeds: Path, judged: Sequence[Rules]) -> str:
    """What your records say beside the published ones.

    Args:
        published_seeds: seeds.csv of the published records; without it, the numbers of your seeds alone.
    """
    seeds = own.recorded_seeds()
    whose = f"of seed {seeds[0]}" if len(seeds) == 1 else f"in the mean over your seeds {listed(seeds)}"
    table = pd.read_csv(published_seeds) if published_seeds.is_file() else pd.DataFrame(columns=SEEDS_COLUMNS)
    rows = [row for rules in judged for row in beside(own, published, table, rules)]
    compared = [row for row in rows if row.within is not None]
    lines = [f"Each part's number {whose}, and the 95 % prediction interval of the published seeds for it:"]
    lines += [row.line for row in rows]
    if not compared:
        return "\n".join([*lines, f"Nothing is published at scale {own.scale}, so there is nothing to compare with."])
    inside = sum(bool(row.within) for row in compared)
    lines += [
        f"{inside} of {len(compared)} numbers lie within. Of many, one in twenty lies outside by chance.",
        *bits_lines(own, published),
    ]
    return "\n".join(lines)


# ---- numbers


def beside(
    own: Study, published: Study, table: pd.DataFrame, rules: Rules, functions: Functions | None = None
) -> list[Beside]:
    """Every part's number of your seeds beside the published ones of others, in the order of claims.yaml.

    Args:
        table: the published seeds.csv.
    """
    functions = evidence_functions() if functions is None else functions
    rows = []
    for claim in rules.claims:
        try:
            seeds = sorted(trained_seeds(own, claim.experiments))
        except Missing as missing:
            rows += [Beside(claim, part, why=str(missing)) for part in claim.parts]
            continue
        others = [seed for seed in rules.common.confirmatory if seed not in seeds]
        for part in claim.parts:
            known = table[(table["claim"] == claim.name) & (table["part"] == part.name)]
            known = known[known["seed"].isin(others) & ~known["column"].str.startswith(_MARGIN)]
            rows.append(_beside(own, published, claim, part, seeds, known, functions))
    return rows


def _beside(
    own: Study,
    published: Study,
    claim: Claim,
    part: Part,
    seeds: Sequence[int],
    known: pd.DataFrame,
    functions: Functions,
) -> Beside:
    """One part; `known` are its published numbers of seeds that are not yours."""
    others = sorted(set(known["seed"]))
    study = Overlay(own, published, seeds) if others else own
    try:
        numbers = numbers_of(study, part, part.measure, [*seeds, *others], functions, f"{claim.name} {part.name}")
    except Missing as missing:
        return Beside(claim, part, why=str(missing))
    mine = numbers.of_seeds(seeds).values
    if mine.empty:
        return Beside(claim, part, why=f"no number of {seeds_words(seeds)}")
    means = known.groupby("column", sort=False)["value"].mean() if others else mine.mean()
    column = str(means.idxmin())  # the one that decides
    if column not in mine:
        return Beside(claim, part, why=f"{column} is published, and your records have {', '.join(mine)}")
    published_values = known.loc[known["column"] == column, "value"]
    return Beside(claim, part, float(mine[column].mean()), "", Student.of(published_values), len(mine))
