"""What the README holds between markers: the claims' table, and the list of docs/deviations.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from formats import minutes
from records import ROOT

from verdicts.decide import Decision
from verdicts.tables import counts_text, markdown_table, ours

DEVIATIONS = ROOT / "docs" / "deviations.md"


def claims_block(decided: Mapping[str, Sequence[Decision]]) -> str:
    """The claims, one column a scale, and what the numbers are."""
    header = ["claim", "paper"]
    for scale in decided:
        header += [f"ours, {scale}: estimate [95 % interval] (n)", f"verdict, {scale}"]
    header += ["command", "cost" if len(decided) == 1 else f"cost ({', '.join(decided)})"]
    rows = []
    for same in zip(*decided.values(), strict=True):
        claim = same[0].claim
        row = [f"{claim.name} ({claim.source}) {claim.text}", claim.paper]
        for decision in same:
            row += [ours(decision), f"**{decision.verdict}**"]
        rows.append([*row, f"`{claim.command}`", ", ".join(minutes(decision.seconds) for decision in same)])
    notes = []
    for scale, decisions in decided.items():
        family = sum(not math.isnan(judged.p) for d in decisions for judged in d.counted)
        notes.append(f"Scale {scale}: {counts_text(decisions)}; {family} tests share one Holm correction.")
    notes.append(
        "Cost: minutes of training of the runs that are scored, one core each, and of merging and scoring on two; a "
        "run that several claims share counts in each of them."
    )
    return "\n".join([*markdown_table(header, rows), "", *notes])


def deviations(path: Path = DEVIATIONS) -> list[str]:
    """The points of the list of what differs from the paper, as Markdown.

    Raises:
        ValueError: when the file has no list.
    """
    _, bullet, text = path.read_text(encoding="utf-8").partition("\n- ")
    if not bullet:
        raise ValueError(f"{path}: no list in it; each point begins with '- '")
    return [" ".join(point.split()) for point in text.split("\n- ")]


def deviations_block(path: Path = DEVIATIONS) -> str:
    """The list of what differs from the paper, as it stands in its file."""
    _, bullet, text = path.read_text(encoding="utf-8").partition("\n- ")
    return (bullet + text).strip("\n")


def blocks(decided: Mapping[str, Sequence[Decision]]) -> dict[str, str]:
    """What the README holds between <!-- NAME:begin --> and <!-- NAME:end -->, by name."""
    return {"claims": claims_block(decided), "deviations": deviations_block()}


def _split(readme: Path, text: str, name: str) -> tuple[str, str, str]:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found_begin, rest = text.partition(begin + "\n")
    block, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{readme}: no lines {begin} and {end}; put them where {name} belong")
    return before + begin + "\n", block, end + after


def read_block(readme: Path, name: str) -> str:
    """What stands between a README's markers.

    Raises:
        ValueError: when a marker is missing.
    """
    return _split(readme, readme.read_text(encoding="utf-8"), name)[1].strip("\n")


def with_blocks(readme: Path, contents: Mapping[str, str]) -> str:
    """A README's text with new blocks between its markers.

    Raises:
        ValueError: when a marker is missing.
    """
    text = readme.read_text(encoding="utf-8")
    for name, content in contents.items():
        before, _, after = _split(readme, text, name)
        text = f"{before}{content}\n{after}"
    return text
