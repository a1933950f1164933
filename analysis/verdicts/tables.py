"""Verdicts in words and tables: claims.csv, and what stands wherever a claim or a part is shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from formats import column_words, listed, seeds_words, with_interval

from verdicts.decide import VERDICTS, Decision, Decisions
from verdicts.judge import Judged
from verdicts.rules import Common, Part

BITS = "bits per byte"  # the unit of most parts, which some tables leave out
_FORMS = {"steps": "+z.1f", "doublings": "+z.2f"}  # "z" of Python's format: what rounds to zero has no sign
_DIGITS = 6  # significant ones, of claims.csv


def published_table(runs_dir: Path, scale: str) -> Path:
    """Where the published verdicts of a scale stand, a row a part."""
    return runs_dir / scale / "published" / "claims.csv"


def seeds_csv(decisions: Decisions) -> str:
    """seeds.csv: every number that a verdict rests on, with nine digits after the point, as they are judged."""
    return decisions.seeds_table().to_csv(index=False)


def published_seeds(runs_dir: Path, scale: str) -> Path:
    """Where the published numbers behind the verdicts of a scale stand, a row a part, column and seed."""
    return runs_dir / scale / "published" / "seeds.csv"


# ---- claims.csv


def result_table(decisions: Decisions, scale: str) -> pd.DataFrame:
    """claims.csv: one row a part; a claim without parts has one row. Numbers with six significant digits."""
    rows = []
    for decision in decisions:
        claim = {"claim": decision.claim.name, "scale": scale}
        shared = {"verdict": decision.verdict, "command": decision.claim.command, "seconds": decision.seconds}
        parts = [_row(judged) for judged in decision.parts] or [{"n": 0, "reason": decision.why}]
        rows += [{**claim, **part, **shared} for part in parts]
    columns = dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row)
    table = pd.DataFrame(rows, columns=list(columns))
    floats = table.select_dtypes("float").columns
    table[floats] = table[floats].map(lambda number: float(f"{number:.{_DIGITS}g}"))
    return table


def _row(judged: Judged) -> dict[str, Any]:
    part, headline = judged.part, judged.headline
    (low, high), (next_low, next_high) = headline.interval(), headline.prediction()
    return {
        "part": part.name,
        "says": part.says,
        "rule": part.rule,
        "unit": part.unit,
        "column": judged.headline_column,
        "n": headline.n,
        "mean": headline.mean,
        "low": low,
        "high": high,
        "prediction_low": next_low,
        "prediction_high": next_high,
        "smallest": part.smallest if part.rule in ("above", "all_above") else math.nan,
        "margin": judged.margin,
        "p": judged.p,
        "p_holm": judged.p_holm,
        "outcome": judged.outcome,
        "reason": judged.reason,
        "contradiction": "; ".join(contradiction.text for contradiction in judged.contradictions),
    }


# ---- words


def number_text(part: Part, number: float) -> str:
    """One number of a part, in the digits of its unit; with a sign unless it is a share that a bound judges."""
    return format(number, _form(part))


def estimate_text(judged: Judged) -> str:
    """The headline number with its 95 % interval, without its unit: +0.039 [+0.030, +0.047]; a dash where it lacks."""
    headline = judged.headline
    if headline.n == 0:
        return "-"
    low, high = headline.interval()
    return with_interval(headline.mean, low, high, _form(judged.part))


def _form(part: Part) -> str:
    form = _FORMS.get(part.unit, "+z.3f")
    return form.replace("+", "") if part.rule == "bound" else form


def rule_text(judged: Judged, common: Common) -> str:
    """What has to be so for a part to hold: above 0, smallest effect 0.005."""
    part = judged.part
    unknown = math.isnan(judged.margin)
    margin, least = ("the margin", "-the margin") if unknown else (f"{judged.margin:.3g}", f"{-judged.margin:.3g}")
    of = f", {common.margin_share:.3g} times the {part.margin_of.replace('_', ' ')}" if part.margin_of else ""
    smallest = f", smallest effect {part.smallest:g}" if part.smallest else ""
    return {
        "above": f"above 0{smallest}",
        "all_above": f"each above 0{smallest}",
        "at_least": f"above {least}{of}",
        "all_at_least": f"each above {least}{of}",
        "level": f"within ±{margin}{of}",
        "bound": f"mean at least {part.margin:g}",
        "report": "-",
    }[part.rule]


def parts_text(decision: Decision) -> str:
    """Every counted part with its outcome, as it stands wherever a claim is shown: a holds; b fails.

    Of a claim without parts, what was tried, or which record is missing.
    """
    if not decision.parts or decision.verdict == "not run":
        return decision.why
    return decision.outcomes


def part_line(judged: Judged) -> str:
    """A part in one line: a holds: on average over the sizes, +0.039 [+0.030, +0.047] bits per byte."""
    reason = f" ({judged.reason})" if judged.reason else ""
    parts = [judged.part.says, f"{estimate_text(judged)} {judged.part.unit}" if judged.headline.n else ""]
    if len(judged.columns) > 1:
        parts.append(f"the least of {len(judged.columns)}: {column_words(judged.headline_column)}")
    parts += [contradiction.text for contradiction in judged.contradictions]
    return f"{judged.part.name} {judged.verb}{reason}: {', '.join(filter(None, parts))}"


def interim_text(decisions: Decisions) -> str:
    """What a reader must know while some of the seeds that decide are not trained yet; empty where all are."""
    there, wanted = decisions.seeds, decisions.confirmatory
    if len(there) >= len(wanted):
        return ""
    have = seeds_words(there) if there else "none"
    if any(0 < judged.headline.n < len(there) for decision in decisions for judged in decision.counted):
        have += ", of some claims fewer"
    return (
        f"Interim: of the seeds that decide ({listed(wanted)}) these records have {have}. The numbers are theirs, "
        "and the verdicts stand when all seeds are there."
    )


def counts_text(decisions: Iterable[Decision]) -> str:
    """How many claims have each verdict: 8 replicated, 3 partly."""
    verdicts = [decision.verdict for decision in decisions]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in verdicts)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
