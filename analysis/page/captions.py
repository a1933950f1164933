"""Captions of the page: what several figures say alike is said once, ahead of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_END = re.compile(r"(?<=[.]) +(?=[A-Z±])")


def said_once(captions: Sequence[str]) -> tuple[list[str], list[str]]:
    """The sentences that two or more captions share, in order, and each caption without them."""
    sentences = [list(dict.fromkeys(filter(None, _END.split(caption)))) for caption in captions]
    counts = Counter(sentence for caption in sentences for sentence in caption)
    common = [sentence for sentence, count in counts.items() if count > 1]
    return common, [" ".join(s for s in caption if counts[s] == 1) for caption in sentences]
