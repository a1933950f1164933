"""Cleaning and cutting of text, and the hashes that fix every order and every split."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

END_OF_TEXT = "<|endoftext|>"

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_TRAILING = re.compile(r"[ \t]+$", re.M)
_BLANKS = re.compile(r"\n{4,}")
_MIN_CHARACTERS = 32


class Document(NamedTuple):
    """A piece of text that is trained on, or held out, as a whole."""

    domain: str
    source: str  # package==version:key, where the key names the file, conversation or entry it was cut from
    text: str


def order_key(*parts: object) -> bytes:
    """A hash of `parts` to sort by: a shuffle that no machine, thread count or input order can change."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).digest()


def clean(text: str) -> str:
    """NFC, "\\n" line ends, no control characters, no trailing blanks, at most two blank lines; "" when too short."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n").replace(END_OF_TEXT, ""))
    text = _BLANKS.sub("\n\n\n", _TRAILING.sub("", _CONTROL.sub("", text))).strip("\n")
    return text if len(text.strip()) >= _MIN_CHARACTERS else ""


def pieces(text: str, limit: int, boundaries: tuple[str, ...] = (r"\n\s*\n", r"\n", r"(?<=[.!?]) ")) -> Iterator[str]:
    """Cut `text` into pieces of at most about `limit` characters.

    It is cut at matches of the first regular expression of `boundaries`; a part that is still too long is cut at the
    next one, and kept whole when none is left. What matched stays inside a piece and is lost at its ends.
    """
    if len(text) <= limit or not boundaries:
        yield text
        return
    start = end = 0
    for part_start, part_end in _spans(text, boundaries[0]):
        if end > start and part_end - start > limit:
            yield from pieces(text[start:end], limit, boundaries[1:])
            start = part_start
        end = part_end
    yield from pieces(text[start:], limit, boundaries[1:])


def _spans(text: str, boundary: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in re.finditer(boundary, text):
        yield start, match.start()
        start = match.end()
    yield start, len(text)
