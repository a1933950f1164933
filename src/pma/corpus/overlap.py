"""Overlap of training documents with evaluation items: word 13-grams, as in GPT-3 (arXiv 2005.14165, appendix C)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from pma.corpus.clean import Document
from pma.corpus.generated import Generated

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
        """Whether a document shares a 13-gram with an item; `hit` remembers the items that it shares one with."""
        words = [self._words.get(word, 0) for word in _WORD.findall(text.lower())]
        grams = _hashes(words)
        if not len(grams) or not len(self._grams):
            return False
        places = np.minimum(np.searchsorted(self._grams, grams), len(self._grams) - 1)
        shared = grams[self._grams[places] == grams]
        for gram in shared.tolist():
            for name, number in self._owners[gram]:
                self.hit[name].add(number)
        return len(shared) > 0

    def report(self) -> dict[str, dict[str, int]]:
        """For each set: items, items under 13 words, items hit by a training document."""
        return {
            name: {"items": count, "under_13_words": self.short[name], "hit": len(self.hit[name])}
            for name, count in self.items.items()
        }


def remove_overlap(
    train: list[Document],
    texts: dict[str, list[str]],
    generated: dict[str, Generated],
    benchmarks: dict[str, list[str]],
) -> tuple[list[Document], dict[str, Any]]:
    """Training documents that share no 13-gram with an item or a benchmark, and overlap.json.

    Args:
        train: documents; generated ones are only counted, see the rule in the report.
        texts: of items that are not generated and of benchmarks, by set.
        generated: by domain.
        benchmarks: texts by benchmark.
    """
    index = Overlap(texts)
    templates = Overlap(benchmarks)
    kept: list[Document] = []
    dropped: dict[str, int] = defaultdict(int)
    for document in train:
        if document.domain in generated:
            templates.check(document.text)
            kept.append(document)
        elif index.check(document.text):
            dropped[document.domain] += 1
        else:
            kept.append(document)
    domains = sorted({document.domain for document in train} - generated.keys())
    return kept, {
        "rule": "a training document is dropped when it shares a word 13-gram (lower-cased, letters and digits) with "
        "an item; `hit` counts the items that were found in documents since dropped",
        "sets": index.report(),
        "train_documents_dropped": {domain: dropped[domain] for domain in domains},
        "generated": {
            "rule": "all questions of a generator share its template, so a training question is dropped when it "
            "equals an evaluation question; its 13-grams shared with benchmarks are counted but not dropped",
            "questions_dropped": {domain: part.dropped for domain, part in generated.items()},
            "sets": templates.report(),
        },
    }


def _hashes(words: Iterable[int]) -> np.ndarray:
    ids = np.array(words, dtype=np.uint64)
    count = max(0, len(ids) - N + 1)
    total = np.zeros(count, dtype=np.uint64)
    for offset in range(N):  # uint64 arithmetic wraps around, which is what a hash wants
        total = total * _BASE + ids[offset : offset + count]
    return total
