"""What the README holds between markers, and the list of docs/deviations.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from finding import finding
from formats import listed, minutes, quantity
from records import OPEN_EXPERIMENTS, ROOT, Study
from sizes import sizes

from pma.words import count
from verdicts.decide import Decision, Family
from verdicts.judge import Judged
from verdicts.tables import BITS, counts_text, estimate_text, interim_text, markdown_table, parts_text

DEVIATIONS = ROOT / "docs" / "deviations.md"


def blocks(claims: Family, studies: Mapping[str, Study]) -> dict[str, str]:
    """What the README holds between <!-- NAME:begin --> and <!-- NAME:end -->, by name.

    Raises:
        Missing: when records that a block needs are not there.
    """
    default = next(iter(studies.values()))
    return {
        "finding": finding_block(default),
        "cost": cost_block(default),
        "claims": claims_block(claims, "docs/claims.md"),
        "sizes": sizes_block(default),
        "deviations": largest_deviations(default),
    }


def finding_block(study: Study) -> str:
    """The finding in one sentence, and what follows from it."""
    result = finding(study)
    return "\n".join([f"**{result.sentence}** {result.second}", "", *(f"- {sentence}" for sentence in result.advice)])


def cost_block(study: Study) -> str:
    """What one seed of `make reproduce` takes, by the published records."""
    experiments = [name for name in study.experiments() if name not in OPEN_EXPERIMENTS]
    seeds, cost = study.recorded_seeds(), minutes(study.cost(experiments))
    return (
        f"One seed of everything takes {cost} on 2 cores, without set-up: the middle of the "
        f"{count(len(seeds), 'published seed')} ({listed(seeds)})."
    )


def claims_block(family: Family, page: str = "") -> str:
    """The claims in four columns, for every scale, part by part, and how many have which verdict.

    Args:
        page: link to the document with a section for each; empty for the one that the block stands in.
    """
    blocks = []
    for scale, decisions in family.decided.items():
        rows = [
            [
                f"{decision.claim.name}: {decision.claim.text}",
                "<br>".join(map(_number, decision.counted)),
                _verdict(decision),
                f"[{decision.claim.source}]({page}#{decision.claim.name.lower()})",
            ]
            for decision in decisions
        ]
        header = ["claim", f"our numbers, scale {scale}", "verdict, part by part", "details"]
        blocks += [f"**{text}**" for text in [interim_text(decisions)] if text]
        blocks += ["\n".join(markdown_table(header, rows)), f"Scale {scale}: {counts_text(decisions)}."]
    return "\n\n".join(blocks)


def _verdict(decision: Decision) -> str:
    """The verdict, and every part that it rests on with what the part says."""
    if len(decision.counted) < 2 or decision.verdict == "not run":
        return f"**{decision.verdict}**: {parts_text(decision)}"
    parts = [f"{judged.said}: {judged.part.says}" for judged in decision.counted]
    return "<br>".join([f"**{decision.verdict}**", *parts])


def _number(judged: Judged) -> str:
    """A part's letter, number and interval; with the unit where it is not bits per byte."""
    unit = "" if judged.part.unit == BITS or not judged.headline.n else f" {judged.part.unit}"
    return f"{judged.part.name} {estimate_text(judged)}{unit}"


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
