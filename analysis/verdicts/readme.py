"""What the README holds between markers, and the list of docs/deviations.md."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from finding import finding
from formats import quantity
from records import ROOT, Study
from sizes import sizes

from verdicts.decide import Decision
from verdicts.rules import BITS_UNIT
from verdicts.tables import counts_text, headline, markdown_table, shortfall
from verdicts.words import plain_words

DEVIATIONS = ROOT / "docs" / "deviations.md"


def blocks(decided: Mapping[str, Sequence[Decision]], studies: Mapping[str, Study]) -> dict[str, str]:
    """What the README holds between <!-- NAME:begin --> and <!-- NAME:end -->, by name.

    Raises:
        Missing: when records that a block needs are not there.
    """
    default = next(iter(studies.values()))
    return {
        "finding": finding_block(default),
        "cost": cost_block(default),
        "claims": claims_block(decided, studies),
        "sizes": sizes_block(default),
        "deviations": largest_deviations(default),
    }


def finding_block(study: Study) -> str:
    """The finding in one sentence, and what follows from it."""
    result = finding(study)
    return "\n".join([f"**{result.sentence}** {result.second}", "", *(f"- {sentence}" for sentence in result.advice)])


def cost_block(study: Study) -> str:
    """What the published records took."""
    training, scoring = (seconds / 60 for seconds in (study.training_seconds(), study.scoring_seconds()))
    return (
        f"The published records took {training:.0f} minutes of training, one core a run, and {scoring:.0f} minutes of "
        f"merging and scoring."
    )


def claims_block(decided: Mapping[str, Sequence[Decision]], studies: Mapping[str, Study]) -> str:
    """The claims in four columns, for every scale, and how many have which verdict."""
    parts = []
    for scale, decisions in decided.items():
        plain = plain_words(studies[scale])
        rows = []
        for decision in decisions:
            claim, anchor = decision.claim, f"docs/claims.md#{decision.claim.name.lower()}"
            number = headline(decision).removesuffix(f" {BITS_UNIT}")
            what = f"{plain(decision.judged[0].test.statistic)}: " if decision.judged else ""
            verdict = "; ".join(filter(None, [f"**{decision.verdict}**", plain(shortfall(decision))]))
            rows.append([f"{claim.name}: {claim.text}", f"{what}{number}", verdict, f"[{claim.source}]({anchor})"])
        header = ["the paper's claim", f"our number [95 % interval], scale {scale}", "verdict", "details"]
        family = sum(not math.isnan(judged.p) for decision in decisions for judged in decision.counted)
        count = f"Scale {scale}: {counts_text(decisions)}. {family} tests share one Holm correction."
        parts += [*markdown_table(header, rows), "", count, ""]
    return "\n".join(parts[:-1])


def sizes_block(study: Study) -> str:
    """The stand-ins: name, real size, and the paper's size that each stands for."""
    rows = [
        [f"`{size.model}`", size.name, quantity(size.active) if size.kind == "moe" else "all", size.stands_for]
        for size in sizes(study)
    ]
    header = ["name in `conf/model`", "its real size", "active for a token", "the paper's size (active/total)"]
    return "\n".join(markdown_table(header, rows))


# ---- what differs from the paper


def largest_deviations(study: Study) -> str:
    """The three points in which this replication differs most from the paper."""
    models = sizes(study)
    tokens = max(study.manifest(folder)["tokens"] for folder in study.run_folders())
    low, high = (quantity(limit(size.total for size in models)) for limit in (min, max))
    return "\n".join(
        [
            f"- Sizes: models of {low} to {high} parameters instead of 411M to 200B. The paper gives no architectures, "
            "so they are ours.",
            f"- Training: at most {quantity(tokens)} tokens a run instead of trillions, of text from software "
            "packages instead of an undisclosed corpus.",
            "- Benchmarks: two suites of our own, `proxy` and `instruct`, that small models can answer, instead of the "
            "paper's sixteen.",
        ]
    )


def deviations(path: Path = DEVIATIONS) -> list[str]:
    """The points of the list of what differs from the paper, as Markdown.

    Raises:
        ValueError: when the file has no list.
    """
    text = re.sub(r"<!-- .*? -->\n?", "", path.read_text(encoding="utf-8"))
    _, bullet, text = text.partition("\n- ")
    if not bullet:
        raise ValueError(f"{path}: no list in it; each point begins with '- '")
    return [" ".join(point.split()) for point in text.split("\n- ")]
