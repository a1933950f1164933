"""What the page says of one claim, as plain data: verdict, parts, the number of each seed, rules, limits, cost."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from drawing.description import Panel
from drawing.strips import describe_claim
from formats import column_words, listed
from verdicts.decide import VERDICTS, Decision
from verdicts.judge import Judged
from verdicts.rules import Common, Rules
from verdicts.tables import estimate_text, number_text, parts_text, rule_text

from page.panels import group
from pma.words import duration, experiment_title

_OUTCOMES = ("holds", "open", "fails", "not run", "shown")  # their colours are those of the verdicts, by place
_ROW_NAME = 18  # letters on a line


def anchor(name: str, scale: str) -> str:
    """The claim's place on the page, which lasts: C6, and C6-gpu at another scale than the default."""
    return name if scale == "cpu" else f"{name}-{scale}"


def claim_fields(decision: Decision, scale: str, shown: Collection[str], rules: Rules) -> dict[str, Any]:
    """A claim as the page shows it.

    Args:
        shown: experiments that have a section on the page, to link to.
        rules: that decided it.
    """
    claim, common, figure = decision.claim, rules.common, describe_claim(decision)
    return {
        "name": claim.name,
        "anchor": anchor(claim.name, scale),
        "text": claim.text,
        "source": claim.source,
        "who": rules.who,
        "reported": claim.paper,
        "verdict": decision.verdict,
        "rank": VERDICTS.index(decision.verdict),
        "why": "" if decision.parts else parts_text(decision),
        "parts": [_part(judged, common) for judged in decision.parts],
        "strips": group("", [_strip(panel, decision) for panel in figure.panels]) if figure else None,
        "caption": figure.caption if figure else "",
        "seeds": _seed_rows(decision, common),
        "measure": claim.measure,
        "limits": claim.limits,
        "command": claim.command + ("" if scale == "cpu" else f" SCALE={scale}"),
        "scale": scale,
        "cost": "" if math.isnan(decision.seconds) else f"{duration(decision.seconds)} a seed on 2 cores",
        "figures": [(f"{scale}-{name}", experiment_title(name)) for name in claim.experiments if name in shown],
    }


def _strip(panel: Panel, decision: Decision) -> Panel:
    """A panel of dots whose rows have short names, b: 3B/30B: what a part says stands in the table beneath."""
    names = {}
    for at, name in panel.yticks.items():
        words, letters = " ".join(name.split()), _letters(name)
        for judged in decision.parts:
            said = _letters(judged.part.name + judged.part.says)
            if letters == said:
                words = judged.part.name
            elif letters.startswith(f"{said}:"):
                words = f"{judged.part.name}: {words.rpartition(': ')[2]}"
        names[at] = textwrap.fill(words, _ROW_NAME)
    return replace(panel, yticks=names)


def _letters(text: str) -> str:
    """A text without its spaces and line breaks."""
    return "".join(text.split())


def _part(judged: Judged, common: Common) -> dict[str, Any]:
    part, headline = judged.part, judged.headline
    several = len(judged.columns) > 1
    return {
        "letter": part.name,
        "says": part.says,
        "outcome": judged.outcome,
        "rank": _OUTCOMES.index(judged.outcome),
        "number": estimate_text(judged) if headline.n else "",
        "unit": part.unit,
        "least": f"least of {len(judged.columns)}: {column_words(judged.headline_column)}" if several else "",
        "contradictions": [contradiction.text for contradiction in judged.contradictions],
        "reason": judged.reason,
        "rule": rule_text(judged, common),
        "p": _p_text(judged.p_holm),
        "seeds": f"{headline.n}: {listed(judged.seeds)}" if headline.n else "0",
    }


def _p_text(p: float) -> str:
    """A p-value with three digits; empty where there is no test."""
    return "" if math.isnan(p) else "< 0.001" if p < 0.0005 else f"{p:.3f}"


def _seed_rows(decision: Decision, common: Common) -> list[list[str]]:
    """The numbers that the verdict rests on, a row a number of a part, a column a seed; the head first.

    Seeds that do not count stand in parentheses.
    """
    cells: dict[str, dict[int, str]] = {}
    for judged in decision.parts:
        for numbers in filter(None, (judged.evidence.exploratory, judged.evidence.numbers)):
            columns = numbers.values.columns
            for column in columns:
                own = f": {column_words(column)}" if len(columns) > 1 else ""
                of_seeds = {seed: number_text(judged.part, x) for seed, x in numbers.values[column].items()}
                cells.setdefault(judged.part.name + own, {}).update(of_seeds)
    seeds = sorted({seed for of_seeds in cells.values() for seed in of_seeds})
    head = ["part", *(f"({seed})" if seed in common.exploratory else f"{seed}" for seed in seeds)]
    return [head, *([name, *(of_seeds.get(seed, "") for seed in seeds)] for name, of_seeds in cells.items())]


def seeds_fields(common: Common, seeds: Collection[int]) -> dict[str, Any]:
    """What stands over all claims of a scale: which seeds count.

    Args:
        seeds: that were trained.
    """
    counted = [seed for seed in common.confirmatory if seed in seeds]
    hollow = [seed for seed in common.exploratory if seed in seeds]
    return {
        "counted": listed(counted),
        "count": len(counted),
        "hollow": listed(hollow),
        "hollow_count": len(hollow),
        "least": common.least_seeds,
    }
