"""docs/claims.md and docs/beyond.md: a section for each claim, from whose sentence it is to our eight numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from formats import column_words, listed, minutes
from pictures import claim_picture, picture
from records import Study
from sizes import sizes

from pma.words import experiment_title
from verdicts.decide import Decision, Family
from verdicts.frozen import change_text
from verdicts.judge import Judged
from verdicts.rules import Common
from verdicts.tables import counts_text, estimate_text, interim_text, markdown_table, number_text, parts_text, rule_text

FIGURES = Path("figures")  # from docs/claims.md on
_OUTCOMES = {"not run": "not run", "shown": "shown, not counted"}


def claims_sections(family: Family, studies: Mapping[str, Study]) -> str:
    """All claims, each with its numbers at every scale, below what holds for all of them.

    Args:
        studies: the published records, by scale.
    """
    rules = family.rules
    studies = {scale: study for scale, study in studies.items() if scale in family.decided}
    head = [f"Rules: sha256 `{rules.sha256}`; see [the protocol](protocol.md)."]
    if not family.decided:
        return "\n\n".join([*head, f"Nothing is published: `make {rules.target}` makes the records of a seed."])
    for scale, decisions in family.decided.items():
        tests = sum(not math.isnan(judged.p) for decision in decisions for judged in decision.counted)
        seeds = listed(decisions.seeds) or "none that counts"
        head.append(f"Scale {scale}, seeds {seeds}: {counts_text(decisions)}. {tests} tests share one Holm correction.")
        head += [f"**{text}**" for text in [interim_text(decisions)] if text]
    changes = [change_text(rules, study.root) for study in studies.values()]
    head += dict.fromkeys(filter(None, changes))
    scales = {
        scale: _Scale(scale, study, rules.common, {run: size.name for size in sizes(study) for run in size.runs})
        for scale, study in studies.items()
    }
    sections = [
        _section({scale: decisions[claim.name] for scale, decisions in family.decided.items()}, scales, rules.who)
        for claim in rules.claims
    ]
    return "\n\n".join([*head, *sections])


@dataclass(frozen=True)
class _Scale:
    """What the sections of a scale share."""

    name: str
    study: Study
    common: Common
    sizes: Mapping[str, str]  # of runs, as 576k MoE


def _section(of_scales: Mapping[str, Decision], scales: Mapping[str, _Scale], who: str) -> str:
    """One claim: question, design, numbers and pictures of each scale, command.

    Args:
        who: raised it.
    """
    claim = next(iter(of_scales.values())).claim
    measure = [f"**What we measure.** {claim.measure}"] if claim.measure else []
    limits = [f"**Design and limits.** {claim.limits}"] if claim.limits else []
    return "\n\n".join(
        [
            f'## <a id="{claim.name.lower()}"></a>{claim.name}. {claim.text}',
            f"**{who}** ({claim.source}). {claim.paper.removesuffix('.')}.",
            *measure,
            *limits,
            *(_at_scale(decision, scales[scale]) for scale, decision in of_scales.items()),
        ]
    )


def _at_scale(decision: Decision, at: _Scale) -> str:
    """The verdict at one scale, a row for each part, the number of every seed, pictures, command."""
    study, common, scale, claim = at.study, at.common, at.name, decision.claim
    blocks = [f"**Scale {scale}: {decision.verdict}.** {parts_text(decision).removesuffix('.')}."]
    if decision.parts:
        blocks.append("\n".join(_parts_table(decision, common)))
    numbers = [row for judged in decision.parts for row in _seed_rows(judged, at.sizes)]
    if numbers:
        seeds = sorted({seed for row in numbers for seed in row[1]})
        header = ["part", "of", *(f"({seed})" if seed in common.exploratory else f"{seed}" for seed in seeds)]
        rows = [[*row[0], *(row[1].get(seed, "") for seed in seeds)] for row in numbers]
        note = "The number of every seed; those in parentheses were looked at before the rules and do not count:"
        blocks += [note, "\n".join(markdown_table(header, rows))]
        blocks.append(_image(f"{claim.name}, every seed", scale, claim_picture(FIGURES, scale, claim.name)))
    there = [name for name in claim.experiments if (study.root / name).is_dir()]
    blocks += [_image(experiment_title(name), scale, picture(FIGURES, scale, name)) for name in there]
    if there:
        folders = ", ".join(f"[{name}](../runs/{scale}/published/{name})" for name in there)
        cost = "" if math.isnan(decision.seconds) else f" ({minutes(decision.seconds)} for one seed on 2 cores)"
        blocks.append(f"Records: {folders}. Make them again: `{claim.command}`{cost}.")
    return "\n\n".join(blocks)


def _image(title: str, scale: str, path: Path) -> str:
    return f"![{title}, scale {scale}]({path.as_posix()})"


def _parts_table(decision: Decision, common: Common) -> list[str]:
    rows = []
    for judged in decision.parts:
        least = f"; the least: {column_words(judged.headline_column)}" if len(judged.columns) > 1 else ""
        number = f"{estimate_text(judged)} {judged.part.unit}" if judged.headline.n else "-"
        reason = f" ({judged.reason})" if judged.reason else ""
        also = "".join(f", {contradiction.text}" for contradiction in judged.contradictions)
        outcome = f"{_OUTCOMES.get(judged.outcome, f'**{judged.outcome}**')}{reason}{also}"
        what = f"{judged.part.says}{least}"
        rows.append([judged.part.name, what, number, f"{judged.headline.n}", rule_text(judged, common), outcome])
    return markdown_table(["part", "what", "mean [95 % interval]", "n", "holds if", "outcome"], rows)


def _seed_rows(judged: Judged, by_run: Mapping[str, str]) -> list[tuple[list[str], dict[int, str]]]:
    """Of each column of a part: its letter and name, and the number of every seed; at last what its margin is of."""
    evidence, part = judged.evidence, judged.part
    groups = [(evidence.exploratory, "({})"), (evidence.numbers, "{}")]
    cells: dict[str, dict[int, str]] = {}
    for numbers, form in groups:
        if numbers is None:
            continue
        table = numbers.values
        if numbers.margin_of is not None:
            table = table.assign(**{f"margin_of {part.margin_of}": numbers.margin_of})
        for column, values in table.items():
            of_seeds = {seed: form.format(number_text(part, x)) for seed, x in values.items()}
            cells.setdefault(str(column), {}).update(of_seeds)
    names = _names(list(cells), by_run)
    return [([part.name, names[column]], of_seeds) for column, of_seeds in cells.items()]


def _names(columns: list[str], by_run: Mapping[str, str]) -> dict[str, str]:
    """Columns as a table names them; where each is a run of another size, with the size."""
    found = [by_run[column] for column in columns if column in by_run]
    clear = len(set(found)) == len(found) > 1
    return {
        column: f"{column_words(column)} (`{column}`, {by_run[column]})"
        if clear and column in by_run
        else column_words(column).replace("_", " ")
        for column in columns
    }
