"""Overlap of training documents with evaluation items: word 13-grams, as in GPT-3 (arXiv 2005.14165, appendix C)."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

N = 13
_WORD = re.compile(r"[^\W_]+")
_BASE = np.uint64(0x9E3779B97F4A7C15)


class Overlap:
    """Index of the 13-grams of named sets of items, which training documents are streamed past.

    A 13-gram is hashed to 64 bits as a polynomial in the numbers of its words, so that a document is checked with a
    few numpy calls; two different 13-grams share a hash once in about 10^19.
    """

    def __init__(self, items: dict[str, list[str]]) -> None:
        self._words: dict[str, int] = {}
        self.items = {name: len(texts) for name, texts in items.items()}
        self.short = dict.fromkeys(items, 0)  # items of less than 13 words, which have no 13-gram
        self.hit: dict[str, set[int]] = {name: set() for name in items}
        owners: dict[int, list[tuple[str, int]]] = {}
        for name, texts in items.items():
            for number, text in enumerate(texts):
                words = [self._words.setdefault(w, len(self._words) + 1) for w in _WORD.findall(text.lower())]
                self.short[name] += len(words) < N
                for gram in set(_hashes(words).tolist()):
                    owners.setdefault(gram, []).append((name, number))
        self._owners = owners
        self._grams = np.array(sorted(owners), dtype=np.uint64)

    def check(self, text: str) -> bool:
        """Whether a document shares a 13-gram with an item; the items it hits are remembered in `hit`."""
        words = [self._words.get(word, 0) for word in _WORD.findall(text.lower())]
        grams = _hashes(words)
        if not len(grams) or not len(self._grams):
            return False
        places = np.minimum(np.searchsorted(self._grams, grams), len(self._grams) - 1)
        found = grams[self._grams[places] == grams]
        for gram in found.tolist():
            for name, number in self._owners[gram]:
                self.hit[name].add(number)
        return len(found) > 0

    def report(self) -> dict[str, dict[str, int]]:
        """For each set: items, items under 13 words, items hit by a training document."""
        return {
            name: {"items": count, "under_13_words": self.short[name], "hit": len(self.hit[name])}
            for name, count in self.items.items()
        }


def _hashes(words: Iterable[int]) -> np.ndarray:
    ids = np.array(words, dtype=np.uint64)
    count = max(0, len(ids) - N + 1)
    total = np.zeros(count, dtype=np.uint64)
    for offset in range(N):  # uint64 arithmetic wraps around, which is what a hash wants
        total = total * _BASE + ids[offset : offset + count]
    return total
