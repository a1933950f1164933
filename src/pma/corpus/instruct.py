"""Instruction pairs: a prompt in a plain-text chat template, and the completion that is learnt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pma.corpus.clean import Document
from pma.corpus.generated import Question

ENTRY = re.compile(r"([^\n(]+) \((\w+)\):( [^\n]+?[a-z]{3}\.)(?=[ \n]|$)")  # word, part of speech, first definition
_COMPLETION_CHARACTERS = (12, 100)
_PROMPT_CHARACTERS = 320
_EXCHANGE = 3  # turns of a dialogue a pair: two to answer, and the answer


class Pair(NamedTuple):
    """Text and what follows it, without a space at the seam: the second begins with a blank or a line end."""

    prompt: str
    completion: str
    source: str
    group: str  # wrong choices of an item come from pairs of the same group


def chat(instruction: str) -> str:
    """The prompt of an instruction."""
    return f"Instruction: {instruction}\nResponse:"


def question_pair(question: Question) -> Pair:
    """A generated question as an instruction."""
    return Pair(chat(question.question), f" {question.answer}", f"reasoning-gym/{question.task}", question.task)


def _dictionary(document: Document) -> Iterator[Pair]:
    """What a word means, as its first definition says."""
    if entry := ENTRY.match(document.text):
        yield Pair(chat(f"What does {entry[1]} ({entry[2]}) mean?"), entry[3], document.source, "")


def _dialogue(document: Document) -> Iterator[Pair]:
    """The next turn of a conversation after two; no turn is in two pairs."""
    turns = document.text.split("\n")
    for start in range(0, len(turns) - _EXCHANGE + 1, _EXCHANGE):
        *before, answer = turns[start : start + _EXCHANGE]
        yield Pair(chat("\n".join(["Reply.", *before])), f" {answer.partition(': ')[2]}", document.source, "")


_READERS: dict[str, Callable[[Document], Iterator[Pair]]] = {"dictionary": _dictionary, "dialogue": _dialogue}
DOMAINS = tuple(_READERS)


def pairs(document: Document) -> list[Pair]:
    """The instruction pairs of a document of one of DOMAINS that are neither trivial nor long."""
    shortest, longest = _COMPLETION_CHARACTERS
    every = _READERS[document.domain](document)
    return [p for p in every if shortest <= len(p.completion) <= longest and len(p.prompt) <= _PROMPT_CHARACTERS]
