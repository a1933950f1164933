"""How numbers, seeds and columns of evidence are written in captions, tables and on the page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from pma.words import quantity as quantity  # the same in figures as in the terminal

# Columns of evidence are named as the records name runs and methods.
_WORDS = {
    r"\bsma\b": "SMA",
    r"\bwma\b": "WMA",
    r"\bema_([\d.]+)": r"EMA(\1)",
    r"\bover annealed_moe_main\b": "over annealing",
    r"\bover moe_main\b": "over the constant run",
    r"\bmoe_main\b": "1.3B/13B",
    r"\bmoe_(\d+)b_(\d+)b\b": r"\1B/\2B",
    r"\bdense_(\d+)([mb])\b": lambda match: match[1] + match[2].upper(),
    r"\bsft_pma_half\b": "half the rate",
    r"\bsft_pma_double\b": "twice the rate",
    r"\bsft_pma\b": "the same rate",
}


def millions(tokens: float) -> str:
    """Tokens in millions, two decimals: 4_915_200 is 4.92M tokens."""
    return f"{tokens / 1e6:.2f}M tokens"


def rate(number: float) -> str:
    """A learning rate with two significant digits: 0.0004 is 4e-4."""
    return f"{number:.2g}".replace("e-0", "e-")


def minutes(seconds: float) -> str:
    """Seconds as minutes; a dash where they are not known (NaN)."""
    return "-" if math.isnan(seconds) else f"{seconds / 60:.1f} min"


def hours(seconds: float) -> str:
    """Seconds as hours."""
    return f"{seconds / 3600:.1f} hours"


def with_interval(estimate: float, low: float, high: float, form: str) -> str:
    """`estimate [low, high]`, each in the format `form`; without the brackets where there is no interval (NaN)."""
    texts = [format(number, form) for number in (estimate, low, high)]
    return texts[0] if math.isnan(low) else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def listed(numbers: Sequence[int]) -> str:
    """Whole numbers in a row, neighbours as a range: 0, 2 to 9."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in ranges)


def seeds_words(seeds: Iterable[int]) -> str:
    """Seeds by name: seed 0; seeds 2 to 9."""
    there = list(seeds)
    return f"{'seed' if len(there) == 1 else 'seeds'} {listed(there)}"


def column_words(column: str) -> str:
    """A column of evidence in words: moe_3b_30b is the stand-in for 3B/30B, ema_0.1 is EMA(0.1)."""
    for pattern, words in _WORDS.items():
        column = re.sub(pattern, words, column)
    return column
