"""Verdicts as tables: claims.csv, claims.md, the terminal, and what differs from the published ones."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from formats import minutes, with_interval
from records import Study

from verdicts.decide import VERDICTS, Decision
from verdicts.rules import Judged
from verdicts.words import plain_words

_WIDTH = 112  # of a terminal's lines
_NAMED = 2  # tests that did not hold, by name


def published_table(runs_dir: Path, scale: str) -> Path:
    """Where the published verdicts of a scale stand."""
    return runs_dir / scale / "published" / "claims.csv"


# ---- claims.csv


def result_table(decisions: Sequence[Decision], scale: str) -> pd.DataFrame:
    """One row a test; a claim without tests has one row. Numbers with six digits."""
    rows = []
    for decision in decisions:
        shared = {
            "verdict": decision.verdict,
            "sentence": decision.sentence,
            "experiments": " ".join(decision.claim.experiments),
            "command": decision.claim.command,
            "seconds": decision.seconds,
        }
        for judged in decision.judged or [None]:
            numbers = {} if judged is None else _test_row(judged)
            rows.append({"claim": decision.claim.name, "scale": scale, **numbers, **shared})
    columns = list(dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row))
    return pd.DataFrame(rows, columns=columns).round(6)


def _test_row(judged: Judged) -> dict[str, Any]:
    test = judged.test
    accuracy, accuracy_low, accuracy_high = judged.accuracy
    return {
        "statistic": test.statistic,
        "rule": "control" if test.control else test.rule,
        "unit": test.unit,
        "estimate": test.estimate,
        "low": judged.low,
        "high": judged.high,
        "margin": test.margin_value,
        "items": test.items,
        "seeds": test.seeds,
        "snapshots": test.snapshots,
        "steps": test.steps,
        "p": judged.p,
        "p_holm": judged.p_holm,
        "outcome": judged.outcome,
        "accuracy": accuracy,
        "accuracy_low": accuracy_low,
        "accuracy_high": accuracy_high,
        "note": "; ".join(filter(None, [judged.undecidable, test.note])),
    }


# ---- words and Markdown


def estimate_text(judged: Judged) -> str:
    """The estimate with its interval."""
    # "z" of Python's format: what rounds to zero has no sign
    form = ".2f" if judged.test.rule in ("most", "bound") else "+z.3f"
    return with_interval(judged.test.estimate, judged.low, judged.high, form)


def count_text(judged: Judged) -> str:
    """Items, steps, seeds and snapshots behind a test."""
    test = judged.test
    parts = [(test.items, "items"), (test.steps, "steps"), (test.seeds, "seed" if test.seeds == 1 else "seeds")]
    counts = [f"{n} {word}" for n, word in parts if n]
    return ", ".join(counts + [f"N = {test.snapshots}"] * (test.snapshots > 1))


def ours(decision: Decision) -> str:
    """The first statistic with its interval and n, and how many tests hold; why there is none, without tests."""
    if not decision.judged:
        return decision.why
    first = decision.judged[0]
    test = first.test
    margin = f" (margin {test.margin_value:.3f})" if test.rule in ("at_least", "level") else ""
    return (
        f"{test.statistic}: {estimate_text(first)} {test.unit}{margin} ({count_text(first)}); "
        f"{decision.held} of {len(decision.counted)} tests hold"
    )


def headline(decision: Decision) -> str:
    """The first statistic with its interval and unit, no more: +0.039 [+0.030, +0.047] bits per byte; else a dash."""
    if not decision.judged:
        return "-"
    first = decision.judged[0]
    return f"{estimate_text(first)} {first.test.unit}"


def shortfall(decision: Decision) -> str:
    """What did not hold, or could not be decided: the names of the tests; empty where every test holds."""
    if not decision.judged:
        return decision.why
    parts = []
    for outcome, words in (("fails", "does not hold"), ("open", "undecided")):
        names = [judged.test.statistic for judged in decision.counted if judged.outcome == outcome]
        if names:
            rest = len(names) - _NAMED
            parts.append(f"{words}: {_once(names[:_NAMED])}{f' and {rest} more' if rest > 0 else ''}")
    return "; ".join(parts)


def _once(names: Sequence[str]) -> str:
    """Names in a row; what those share that differ after the last comma alone is said once."""
    groups: dict[str, list[str]] = {}
    for name in names:
        shared, _, own = name.rpartition(", ")
        groups.setdefault(shared or own, []).extend([own] if shared else [])
    return "; ".join(f"{shared}, {' and '.join(own)}" if own else shared for shared, own in groups.items())


def counts_text(decisions: Sequence[Decision]) -> str:
    """How many claims have each verdict."""
    return ", ".join(f"{sum(d.verdict == verdict for d in decisions)} {verdict}" for verdict in VERDICTS)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def claims_markdown(decisions: Sequence[Decision], scale: str) -> str:
    """claims.md: the claims, then every test."""
    lines = [f"# The claims at scale {scale}", "", "Rules and thresholds: `analysis/claims.yaml`.", ""]
    header = ["claim", "paper", "ours, 95 % interval (n)", "verdict", "in words", "command", "cost"]
    rows = [
        [f"{d.claim.name} ({d.claim.source}): {d.claim.text}", d.claim.paper, ours(d), f"**{d.verdict}**"]
        + [d.sentence, f"`{d.claim.command}`", minutes(d.seconds)]
        for d in decisions
    ]
    lines += [*markdown_table(header, rows), "", "## Every test", ""]
    header = ["claim", "statistic", "rule", "estimate [95 %]", "unit", "n", "p (Holm)", "outcome", "accuracy, points"]
    tests = [[d.claim.name, *_test_cells(judged)] for d in decisions for judged in d.judged]
    limits = [f"- {d.claim.name}: {d.claim.limits}" for d in decisions if d.claim.limits]
    return "\n".join([*lines, *markdown_table(header, tests), "", "## Limits", "", *limits, ""])


def _test_cells(judged: Judged) -> list[str]:
    test = judged.test
    p = "-" if math.isnan(judged.p) else f"{judged.p:.4f} ({judged.p_holm:.3f})"
    accuracy = "-"
    if test.accuracy is not None:
        factor = 1 if test.unit == "doublings" else 100
        estimate, low, high = (factor * number for number in judged.accuracy)
        numbers = with_interval(estimate, low, high, "+.1f")
        accuracy = numbers + (" contradicts" if judged.contradicted else "")
    margin = f" ({test.margin_value:.3f})" if test.margin_value else ""
    rule = f"{'control: ' if test.control else ''}{test.rule}{margin}"
    return [test.statistic, rule, estimate_text(judged), test.unit, count_text(judged), p, judged.outcome, accuracy]


# ---- the terminal


def screen(decisions: Sequence[Decision], study: Study) -> str:
    """The compact table for a terminal: each claim with its verdict, the first number, and what did not hold."""
    scale, plain = study.scale, plain_words(study)
    lines = [f"The paper's claims, judged at scale {scale}. Each number has its 95 % interval."]
    if scale == "smoke":
        lines.append("Scale smoke only proves that everything runs: these verdicts say nothing about the claims.")
    lines.append("")
    for d in decisions:
        lines += _hanging(f"{d.claim.name:4} {d.verdict.upper() if d.judged else d.verdict:20}", d.claim.text)
        if d.judged:
            held = f"{d.held} of {len(d.counted)} tests hold ({count_text(d.judged[0])})"
            lines += _hanging("", f"{plain(d.judged[0].test.statistic)}: {headline(d)}; {held}")
        if short := plain(shortfall(d)):
            lines += _hanging("", short)
    return "\n".join([*lines, "", f"In all: {counts_text(decisions)}."])


def _hanging(first: str, text: str) -> list[str]:
    """A text wrapped beside its label."""
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{first:25}", subsequent_indent=" " * 25)


def compare(decisions: Sequence[Decision], published: Path) -> str:
    """Where verdicts differ from the published ones."""
    if not published.exists():
        return "No verdicts are published at this scale, so there are none to compare with."
    before = pd.read_csv(published).groupby("claim")["verdict"].first()
    lines = [
        f"  {d.claim.name}: {d.verdict} here, {before.get(d.claim.name, 'missing')} published"
        for d in decisions
        if d.verdict != before.get(d.claim.name)
    ]
    if not lines:
        return "These are the same verdicts as published."
    return "\n".join(["Verdicts that differ from the published ones:", *lines])
