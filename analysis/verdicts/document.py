"""docs/claims.md: a section for each claim, from the paper's sentence to our records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from formats import minutes
from pictures import picture
from records import Study

from pma.words import experiment_title
from verdicts.decide import Decision
from verdicts.tables import count_text, counts_text, estimate_text, markdown_table
from verdicts.words import Words, plain_words

_OUTCOMES = {"open": "undecided", "shown": "shown, not counted"}


def claims_sections(decided: Mapping[str, Sequence[Decision]], studies: Mapping[str, Study]) -> str:
    """All claims, each with its numbers at every scale."""
    plain = {scale: plain_words(study) for scale, study in studies.items()}
    counts = [f"Scale {scale}: {counts_text(decisions)}." for scale, decisions in decided.items()]
    sections = [
        _section(dict(zip(decided, same, strict=True)), studies, plain) for same in zip(*decided.values(), strict=True)
    ]
    return "\n\n".join([*counts, *sections])


def _section(of_scales: Mapping[str, Decision], studies: Mapping[str, Study], plain: Mapping[str, Words]) -> str:
    """One claim: question, design, numbers and picture of each scale, command."""
    claim = next(iter(of_scales.values())).claim
    limits = [f"**Limits.** {claim.limits}"] if claim.limits else []
    numbers = [_numbers(scale, decision, studies[scale], plain[scale]) for scale, decision in of_scales.items()]
    return "\n\n".join(
        [
            f'## <a id="{claim.name.lower()}"></a>{claim.name}. {claim.text}',
            f"**The paper** ({claim.source}). {claim.paper}.",
            f"**What we measure.** {claim.measure}",
            f"**What decides.** Rule: {_stopped(claim.decides)} {_stopped(claim.reason)}",
            *limits,
            *numbers,
            f"Make it again: `{claim.command}`",
        ]
    )


def _numbers(scale: str, decision: Decision, study: Study, plain: Words) -> str:
    """The verdict at one scale, and a row for each test."""
    if not decision.judged:
        return f"**Scale {scale}: {decision.verdict}.** {decision.why}"
    rows = [
        [
            *(plain(judged.test.statistic), f"{estimate_text(judged)} {judged.test.unit}"),
            *(f"{judged.test.margin_value:.3f}" if judged.test.margin_value else "", count_text(judged)),
            _OUTCOMES.get(judged.outcome, judged.outcome) + (" (control)" if judged.test.control else ""),
        ]
        for judged in decision.judged
    ]
    table = markdown_table(["test", "estimate [95 % interval]", "margin or bound", "from", "outcome"], rows)
    folders = ", ".join(
        f"[{name}](../runs/{scale}/published/{name})"
        for name in decision.claim.experiments
        if (study.root / name).is_dir()
    )
    cost = f"Records: {folders}. They took {minutes(decision.seconds)} of training, merging and scoring."
    shown = "\n\n".join(
        f"![{experiment_title(name)}, scale {scale}]({picture(Path('figures'), scale, name).as_posix()})"
        for name in decision.claim.experiments
        if (study.root / name).is_dir()
    )
    sentence = f"**Scale {scale}: {decision.verdict}.** {plain(decision.sentence)}"
    return "\n".join([sentence, "", *table, "", cost, "", shown])


def _stopped(text: str) -> str:
    return text.removesuffix(".") + "."
