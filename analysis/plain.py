"""Plain words for the names in records and tests: runs, methods, planes and units."""

from __future__ import annotations

import re

# Patterns of names, most special first, and what to say instead.
_WORDS = (
    (r"\bmoe_main \((\S+M)\)", r"the main run (\1)"),
    (r"\bmoe_(\w+?b)_(\w+?b) \((\S+M)\)", lambda found: f"{found[3]} MoE, standing for {_size(found[1], found[2])}"),
    (r"\bdense_(\d+[bm]) \((\S+M)\)", lambda found: f"{found[2]} dense model, standing for {_size(found[1])}"),
    (r"\bannealed_moe_main\b", "the annealed fork of the main run"),
    (r"\bannealed_(\w+)\b", r"the annealed fork of \1"),
    (r"\bcontinued_pma_half_end\b", "the run from PMA at half the rate and a higher end"),
    (r"\bcontinued_pma_half\b", "the run from PMA at half the rate"),
    (r"\bcontinued_pma\b", "the run from PMA at the same rate"),
    (r"\bsft_pma_half\b", "PMA at half the rate"),
    (r"\bsft_pma_double\b", "PMA at twice the rate"),
    (r"\bsft_pma\b", "PMA at the same rate"),
    (r"\bspike_pma\b", "the run resumed from PMA"),
    (r"\bspike_last\b", "the run resumed from the last good snapshot"),
    (r"^spike\b", "the run at a far too high rate"),
    (r"\bmoe_main\b", "the main run"),
    (r"\bmoe_(\w+?b)_(\w+?b)\b", lambda found: f"the MoE that stands for {_size(found[1], found[2])}"),
    (r"\bdense_(\d+[bm])\b", lambda found: f"the dense model that stands for {_size(found[1])}"),
    (r"\bema_(0\.\d+)\b", r"EMA(\1)"),
    (r"\b(sma|wma)\b", lambda found: found[1].upper()),
    (r"\bplane of principal\b", "plane of the principal directions"),
    (r"\bplane of weights\b", "plane of two norm gains"),
    (r"\bHessian at mean\b", "Hessian at their mean"),
    (r"\bdoublings of the best V over the sizes\b", "growth of the best V over the sizes"),
    (r"(\]|\d) doublings\b", r"\1 powers of two"),
)


def _size(*parts: str) -> str:
    return "/".join(part.upper() for part in parts)


def plain(text: str) -> str:
    """A test's name or number in plain words: `gain of ema_0.1 at 0.63M tokens` names EMA(0.1)."""
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text
