"""Decide which document goes where: held out, trained on, kept for continued training, or made into instructions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from pma.config import DataConfig
from pma.corpus import instruct
from pma.corpus.clean import Document, clean, order_key
from pma.corpus.generated import Generated
from pma.corpus.instruct import Pair

HELDOUT_SHARES = 16  # one held-out document gives at most this part of heldout_bytes

Unit = tuple[str, Callable[[], Iterable[str]]]  # key that the split goes by, and what reads its texts


class Split(NamedTuple):
    """Documents of one source."""

    train: list[Document]
    heldout: list[Document]


def split_units(
    units: Iterable[Unit], domain: str, name: str, seed: int, heldout_fraction: float, max_bytes: int | None
) -> Split:
    """Clean and split in the order of the hash of each unit's key: first the held-out units, then train.

    A unit is held out or trained on as a whole, so that no file or conversation is in both. At least one is held out.

    Args:
        units: of one source.
        domain, name: of the source, for its documents.
        seed, heldout_fraction: of the corpus; the fraction is of units.
        max_bytes: UTF-8 bytes of documents to train on, held-out documents come on top; None takes all.
    """
    ordered = sorted(units, key=lambda unit: order_key(seed, domain, unit[0]))
    heldout_units = max(1, round(heldout_fraction * len(ordered)))
    split, size = Split([], []), 0
    for position, (key, read) in enumerate(ordered):
        for text in filter(None, map(clean, read())):
            if max_bytes is not None and size >= max_bytes:
                return split
            document = Document(domain, f"{name}:{key}", text)
            if position < heldout_units:
                split.heldout.append(document)
            else:
                split.train.append(document)
                size += len(text.encode())
    return split


def deduplicate(
    parts: Sequence[Split | Generated], samples: Sequence[Split]
) -> tuple[list[Document], dict[str, list[Document]], dict[str, int]]:
    """Remove documents that equal an earlier one.

    Held-out documents come first, so that no training document equals one of them.

    Args:
        parts: packages and generated domains.
        samples: of data sets of the hub; only what they hold out is used, their training text comes from shards.

    Returns:
        Documents to train on; held-out documents by domain; how many were removed, by domain.
    """
    seen: set[bytes] = set()
    duplicates: dict[str, int] = defaultdict(int)

    def fresh(documents: list[Document]) -> Iterator[Document]:
        for document in documents:
            key = order_key(document.text)
            if key in seen:
                duplicates[document.domain] += 1
            else:
                seen.add(key)
                yield document

    heldout: dict[str, list[Document]] = defaultdict(list)
    for part in [*parts, *samples]:
        for document in fresh(part.heldout):
            heldout[document.domain].append(document)
    train = [document for part in parts for document in fresh(part.train)]
    return train, dict(sorted(heldout.items())), dict(sorted(duplicates.items()))


def reserve(config: DataConfig, train: list[Document]) -> tuple[list[Document], list[Document], list[Pair]]:
    """Divide documents into those of train.bin, those of continued.bin, and instruction pairs made of the others.

    Raises:
        ValueError: a domain has less text than data.continued and data.instruct.bytes ask for.
    """
    continued = dict(config.continued)  # bytes still to take, by domain
    paired = {domain: size for domain, size in config.instruct.bytes.items() if domain in instruct.DOMAINS}
    kept: list[Document] = []
    shifted: list[Document] = []
    pairs: list[Pair] = []
    for document in train:
        domain = document.domain
        if continued.get(domain, 0) > 0:
            shifted.append(document)
            continued[domain] -= len(document.text.encode())
        elif paired.get(domain, 0) > 0 and (own := instruct.pairs(document)):
            pairs += own
            paired[domain] -= sum(len((pair.prompt + pair.completion).encode()) for pair in own)
        else:
            kept.append(document)
    for key, left in {"continued": continued, "instruct.bytes": paired}.items():
        for domain, size in left.items():
            if size > 0:
                raise ValueError(
                    f"data.{key}.{domain}: the corpus has {size} bytes less than that; lower it, or raise max_bytes "
                    "of a source of the domain"
                )
    return kept, shifted, pairs


def take(documents: list[Document], max_bytes: int) -> list[Document]:
    """The first documents with at least `max_bytes` UTF-8 bytes between them, or all."""
    taken: list[Document] = []
    size = 0
    for document in documents:
        if size >= max_bytes:
            break
        taken.append(document)
        size += len(document.text.encode())
    return taken


def beginnings(documents: list[Document], max_bytes: int) -> list[Document]:
    """At most `max_bytes` UTF-8 bytes of held-out text, cut between words.

    A document gives at most 1/HELDOUT_SHARES of them: many documents say more of a domain than a few whole ones.
    """
    taken: list[Document] = []
    left = max_bytes
    for document in documents:
        limit = min(left, max(1, max_bytes // HELDOUT_SHARES))
        raw = document.text.encode()
        text = document.text if len(raw) <= limit else _before_a_blank(raw[:limit].decode(errors="ignore"))
        if text:
            taken.append(document._replace(text=text))
            left -= len(text.encode())
    return taken


def _before_a_blank(text: str) -> str:
    return text[: max(text.rfind(" "), text.rfind("\n"), 0)].rstrip()
