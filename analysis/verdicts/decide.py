"""From the records of a scale to the verdict of each claim, part by part."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from records import Missing, Study

from pma.json_files import MANIFEST
from verdicts.judge import VERDICTS as VERDICTS
from verdicts.judge import Evidence, Judged, Numbers, judge, verdict_of
from verdicts.rules import Claim, Common, Part, Rules, all_rules, evidence_functions

SECOND_MEASURES = ("tasks", "choice")  # that a part on text is computed on too
SEEDS_COLUMNS = ["claim", "part", "column", "seed", "value"]
_DIGITS = 9  # below these, differences are rounding
Functions = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Decision:
    """A claim at one scale."""

    claim: Claim
    verdict: str
    why: str = ""  # of a claim without outcomes: what was tried, or which record is missing
    parts: tuple[Judged, ...] = ()
    seconds: float = math.nan  # what its records took

    @property
    def counted(self) -> list[Judged]:
        """The parts that take part in the verdict."""
        return [judged for judged in self.parts if judged.counted]

    @property
    def outcomes(self) -> str:
        """The counted parts in a few words: a holds, but tasks: -0.020 [-0.030, -0.010]; b fails."""
        return "; ".join(judged.said for judged in self.counted)


@dataclass(frozen=True)
class Decisions:
    """All claims of a scale, in the order of claims.yaml."""

    claims: tuple[Decision, ...]
    confirmatory: tuple[int, ...] = ()  # seeds that are to decide

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.claims)

    def __len__(self) -> int:
        return len(self.claims)

    def __getitem__(self, name: str) -> Decision:
        return next(decision for decision in self.claims if decision.claim.name == name)

    @property
    def seeds(self) -> list[int]:
        """Confirmatory seeds that some part has a number of."""
        return sorted({seed for decision in self.claims for judged in decision.parts for seed in judged.seeds})

    def seeds_table(self) -> pd.DataFrame:
        """Every number that a verdict rests on, a row each: claim, part, column, seed, value.

        Exploratory seeds stand there too. Where a margin is a share of another number, column `margin_of NAME` holds
        that number of the same seed: x + share times it is what the t-test sees.
        """
        tables = [_rows(judged) for decision in self.claims for judged in decision.parts]
        filled = [table for table in tables if len(table)]
        return pd.concat(filled, ignore_index=True)[SEEDS_COLUMNS] if filled else pd.DataFrame(columns=SEEDS_COLUMNS)


def _rows(judged: Judged) -> pd.DataFrame:
    part, tables = judged.part, []
    for numbers in (judged.evidence.exploratory, judged.evidence.numbers):
        if numbers is not None:
            values = numbers.values
            if numbers.margin_of is not None:
                values = values.assign(**{f"margin_of {part.margin_of}": numbers.margin_of})
            long = values.rename_axis(index="seed").reset_index()
            tables.append(long.melt("seed", var_name="column", value_name="value"))
    if not tables:
        return pd.DataFrame()
    rows = pd.concat(tables, ignore_index=True).assign(claim=judged.claim, part=part.name)
    order = {column: i for i, column in enumerate(dict.fromkeys(rows["column"]))}
    return rows.sort_values(["column", "seed"], key=lambda s: s.map(order) if s.name == "column" else s)


def decide(root: Path, rules: Rules, functions: Functions | None = None) -> Decisions:
    """All claims from the records below `root`.

    Args:
        root: runs/SCALE or runs/SCALE/published.
        rules: of claims.yaml.
        functions: evidence by name; those of verdicts.evidence by default.

    Raises:
        ValueError: when the numbers of a part are not one row for each of the seeds asked for.
    """
    study, functions = Study(root), evidence_functions() if functions is None else functions
    gathered = {claim.name: _gather(study, claim, rules.common, functions) for claim in rules.claims}
    judged = iter(judge([evidence for parts in gathered.values() for evidence in parts], rules.common))
    decisions = []
    for claim in rules.claims:
        parts = tuple(next(judged) for _ in gathered[claim.name])
        why = claim.tried or next((part.reason for part in parts if part.outcome == "not run"), "")
        verdict = verdict_of(parts, claim.tried)
        decisions.append(Decision(claim, verdict, why, parts, study.cost(claim.experiments)))
    wanted = {seed for claim in rules.claims for seed in claim.seeds or rules.common.confirmatory}
    return Decisions(tuple(decisions), tuple(sorted(wanted)))


def recorded(study: Study, rules: Rules) -> bool:
    """Whether some experiment of these claims has records."""
    return any(study.has(name, MANIFEST) for name in rules.experiments)


def trained_seeds(study: Study, experiments: Sequence[str]) -> set[int]:
    """Seeds with which every run of these experiments was trained and recorded.

    Raises:
        Missing: when an experiment has no finished records.
    """
    by_run: dict[str, set[int]] = {}
    for experiment in experiments:
        if not study.has(experiment, MANIFEST):
            target = f"make reproduce-{experiment.replace('_', '-')} SCALE={study.scale}"
            raise Missing(f"{experiment}: no records of it here; {target} makes them")
        for folder in study.manifest(experiment)["runs"]:
            run, _, seed = folder.rpartition("-seed")
            by_run.setdefault(f"{experiment}/{run}", set()).add(int(seed))
    return set.intersection(*by_run.values()) if by_run else set()


def _gather(study: Study, claim: Claim, common: Common, functions: Functions) -> list[Evidence]:
    """The evidence of every part of a claim; of a claim whose condition was not reached there is none."""
    if claim.tried:
        return []
    try:
        trained = trained_seeds(study, claim.experiments)
    except Missing as missing:
        return [Evidence(claim.name, part, missing=str(missing)) for part in claim.parts]
    counted = [seed for seed in claim.seeds or common.confirmatory if seed in trained]
    shown = [seed for seed in common.exploratory if seed in trained]
    return [_evidence(study, claim.name, part, counted, shown, functions) for part in claim.parts]


def _evidence(
    study: Study, claim: str, part: Part, counted: list[int], shown: list[int], functions: Functions
) -> Evidence:
    where = f"{claim} {part.name}"
    try:
        numbers = numbers_of(study, part, part.measure, counted, functions, where) if counted else None
    except Missing as missing:
        return Evidence(claim, part, missing=str(missing))
    others = {}
    for measure in SECOND_MEASURES if part.measure == "text" and counted else ():
        try:
            others[measure] = numbers_of(study, part, measure, counted, functions, where)
        except Missing:
            continue  # records without it can still decide the part
    exploratory = None
    if shown:
        try:  # the seeds that count too, for what is chosen or forecast from other seeds; their rows are left out
            exploratory = numbers_of(study, part, part.measure, [*shown, *counted], functions, where).of_seeds(shown)
        except Missing as missing:
            if not counted:
                return Evidence(claim, part, missing=str(missing))
    return Evidence(claim, part, numbers, others, exploratory)


def numbers_of(
    study: Study, part: Part, measure: str, seeds: Sequence[int], functions: Functions, where: str
) -> Numbers:
    """A part's numbers, a row a seed, rounded so that equal scores tie on every machine.

    A seed without a number in some column is left out of all of them.

    Args:
        where: the claim and the part, for errors.

    Raises:
        Missing: when a record is not there.
        ValueError: when the evidence gives other rows or columns than the part asks for.
    """
    values = functions[part.evidence](study, measure, seeds, **part.settings)
    columns = [str(column) for column in values.columns]
    table = values.set_axis(columns, axis=1).astype(float)
    _check_seeds(table.index, seeds, f"{where}, {part.evidence}")
    if part.rule in ("above", "at_least", "level", "bound") and len(columns) != 1:
        raise ValueError(f"{where}: rule {part.rule} judges one column, and {part.evidence} gives {len(columns)}")
    margin = None
    if part.margin_of:
        share_of = functions[part.margin_of]
        margin = share_of(study, measure, seeds, **_taken(share_of, part.settings))
        _check_seeds(margin.index, seeds, f"{where}, {part.margin_of}")
        margin = margin.astype(float).round(_DIGITS)
        table = table.loc[table.index.isin(margin.dropna().index)]
    table = table.dropna().sort_index().round(_DIGITS)
    left_out = tuple(sorted(set(seeds) - set(table.index)))
    return Numbers(table, None if margin is None else margin.loc[table.index], left_out)


def _taken(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings of a part that the function of its margin takes."""
    taken = inspect.signature(function).parameters
    everything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    return {key: value for key, value in settings.items() if everything or key in taken}


def _check_seeds(index: pd.Index, seeds: Sequence[int], where: str) -> None:
    if index.has_duplicates:
        raise ValueError(
            f"{where}: seed {index[index.duplicated()][0]} stands there twice; records hold each seed once"
        )
    if strange := sorted(set(index) - set(seeds)):
        raise ValueError(f"{where}: gave seed {strange[0]}, which was not asked for")


def joined(decided: Iterable[Decisions]) -> Decisions:
    """Claims of several rules as one list, as claims.csv and seeds.csv hold them."""
    return Decisions(tuple(decision for decisions in decided for decision in decisions))


def published_scales(runs_dir: Path) -> list[str]:
    """Scales with published records, the default one first."""
    scales = sorted(path.parent.name for path in runs_dir.glob("*/published") if path.is_dir())
    return sorted(scales, key=lambda scale: scale != "cpu")


def decide_published(runs_dir: Path, rules: Rules) -> dict[str, Decisions]:
    """Every published scale, decided anew.

    Raises:
        ValueError: when nothing is published.
    """
    scales = published_scales(runs_dir)
    if not scales:
        raise ValueError(f"{runs_dir}: no records published there (SCALE/published)")
    return {scale: decide(runs_dir / scale / "published", rules) for scale in scales}


@dataclass(frozen=True)
class Family:
    """Claims that share one Holm correction, decided scale by scale."""

    rules: Rules
    decided: Mapping[str, Decisions]  # by scale


def families(runs_dir: Path) -> tuple[Family, Family]:
    """The paper's claims at every published scale, and what it left open at those with records for it.

    Raises:
        ValueError: when nothing is published.
    """
    claims, beyond = all_rules()
    decided = decide_published(runs_dir, claims)
    roots = {scale: runs_dir / scale / "published" for scale in decided}
    some = {scale: root for scale, root in roots.items() if recorded(Study(root), beyond)}
    return Family(claims, decided), Family(beyond, {scale: decide(root, beyond) for scale, root in some.items()})


def of_scales(decided: Iterable[Family]) -> dict[str, Decisions]:
    """All claims of every published scale, the paper's first."""
    decided = list(decided)
    scales = dict.fromkeys(scale for family in decided for scale in family.decided)
    return {scale: joined(f.decided[scale] for f in decided if scale in f.decided) for scale in scales}
