"""What the page says of one claim, as plain data: words, our number, verdict, what did not hold, every test."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from formats import minutes
from verdicts.decide import VERDICTS, Decision
from verdicts.tables import count_text, estimate_text, headline, shortfall
from verdicts.words import Words

from pma.words import experiment_title


def anchor(name: str, scale: str) -> str:
    """The claim's place on the page, which lasts: C6, and C6-gpu at another scale than the default."""
    return name if scale == "cpu" else f"{name}-{scale}"


def claim_fields(decision: Decision, scale: str, shown: Collection[str], plain: Words) -> dict[str, Any]:
    """A claim as the page shows it.

    Args:
        shown: experiments that have a section on the page, to link to.
        plain: plain words for the names of the scale's runs.
    """
    claim, seconds, judged = decision.claim, decision.seconds, decision.judged
    tests = [
        {
            "statistic": ("control: " if judgement.test.control else "") + plain(judgement.test.statistic),
            "rule": judgement.test.rule,
            "estimate": f"{estimate_text(judgement)} {judgement.test.unit}",
            "count": count_text(judgement),
            "outcome": judgement.outcome,
        }
        for judgement in judged
    ]
    return {
        "name": claim.name,
        "number": claim.name[1:],
        "anchor": anchor(claim.name, scale),
        "text": claim.text,
        "source": claim.source,
        "paper": claim.paper,
        "headline": headline(decision),
        "statistic": plain(judged[0].test.statistic) if judged else "",
        "held": f"{decision.held} of {len(decision.counted)} tests hold" if judged else "",
        "shortfall": plain(shortfall(decision)),
        "sentence": plain(decision.sentence),
        "verdict": decision.verdict,
        "rank": VERDICTS.index(decision.verdict),
        "decides": claim.decides,
        "reason": claim.reason,
        "limits": claim.limits,
        "command": claim.command,
        "scale": scale,
        "cost": "" if math.isnan(seconds) else minutes(seconds),
        "tests": tests,
        "figures": [(f"{scale}-{name}", experiment_title(name)) for name in claim.experiments if name in shown],
    }
