"""The claims on a terminal: verdict and parts of each; one line instead where there are too few seeds for any."""

from __future__ import annotations

import textwrap

from formats import listed, minutes, seeds_words
from records import Study

from verdicts.decide import Decision, Decisions
from verdicts.rules import Rules
from verdicts.tables import counts_text, part_line

_WIDTH = 112  # of a terminal's lines
_LABEL = 27  # of them, for a claim's name and verdict


def screen(decisions: Decisions, rules: Rules, study: Study) -> str:
    """What a terminal shows of a scale's claims.

    Args:
        rules: that decided them.
    """
    lines = []
    if study.scale == "smoke":
        lines = ["Scale smoke only proves that everything runs: its numbers and verdicts say nothing about the claims."]
    if len(decisions.seeds) < rules.common.least_seeds:
        return "\n".join([*lines, _too_few(decisions, study, rules)])
    lines += [
        f"{rules.title}, at scale {study.scale}, judged over seeds {listed(decisions.seeds)}.",
        "A number above 0 favours its claim. Behind it stands its 95 % interval over seeds.",
        "",
    ]
    for decision in decisions:
        lines += _claim(decision)
    return "\n".join([*lines, "", f"In all: {counts_text(decisions)}."])


def _too_few(decisions: Decisions, study: Study, rules: Rules) -> str:
    """Why there are no verdicts: one sentence for all claims."""
    least = rules.common.least_seeds
    first = decisions.confirmatory[:least]
    there = set(study.experiments())
    cost = study.cost([name for name in rules.experiments if name in there])
    seeds = ",".join(map(str, sorted({*study.recorded_seeds(), *first})))  # records hold the seeds of one call
    has = seeds_words(decisions.seeds) if decisions.seeds else "none of these"
    text = (
        f"{rules.title}: verdicts need at least {least} of the seeds {listed(decisions.confirmatory)}, and "
        f"these records have {has}. To add some: make {rules.target} SCALE={study.scale} SEEDS={seeds} "
        f"({minutes(cost)} a seed)."
    )
    return "\n".join(textwrap.wrap(text, _WIDTH))


def _claim(decision: Decision) -> list[str]:
    """A claim: its text beside its verdict, then a line a part; why it has none, where it has none."""
    label = f"{decision.claim.name:4}{decision.verdict}"
    lines = _hanging(label, decision.claim.text)
    if not decision.parts or decision.verdict == "not run":
        return lines + _hanging("", decision.why)
    return lines + [line for judged in decision.parts for line in _hanging("", part_line(judged))]


def _hanging(label: str, text: str) -> list[str]:
    """A text wrapped beside its label."""
    indent = " " * _LABEL
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{label:{_LABEL}}", subsequent_indent=indent)
