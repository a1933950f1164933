"""Evaluation items of the four axes: a context and choices, scored as context + choice.

| axis | stands in for | an item |
|---|---|---|
| code | HumanEval | lines of a held-out Python file; the true next line against lines of other held-out places |
| knowledge | MMLU | a held-out dictionary word; its definition against those of words of the same part of speech |
| reasoning | BBH | a generated question; the answer against wrong ones of the same form |
| math | GSM8K | the same; wrong numbers from near to far |
"""

from __future__ import annotations

import ast
import random
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from pma.corpus.generated import Question
from pma.corpus.text import Document, order_key

DOMAIN_OF_AXIS = {"code": "code", "knowledge": "dictionary", "reasoning": "reasoning", "math": "math"}
CHOICES = 4
CONTEXT_LINES, CONTEXT_CHARACTERS = 8, 320
LINE_CHARACTERS = (16, 72)
DEFINITION_CHARACTERS = (24, 100)
LENGTH_RATIO = 1.3  # of the longest allowed difference between the true choice and a wrong one


class _Candidate(NamedTuple):
    context: str
    choice: str
    source: str
    group: str  # wrong choices come from candidates of the same group


def from_heldout(axis: str, documents: list[Document], count: int, seed: int) -> list[dict[str, Any]]:
    """At most `count` items of the code or knowledge axis from the held-out documents of its domain."""
    read = {"code": _code_candidates, "knowledge": _knowledge_candidates}[axis]
    candidates = [candidate for document in documents for candidate in read(document)]
    candidates.sort(key=lambda c: order_key(seed, c.source, c.context, c.choice))
    groups: dict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.group].append(candidate)
    taken: dict[str, int] = defaultdict(int)  # files take turns, so that no large one dominates
    rounds = []
    for candidate in candidates:
        rounds.append(taken[candidate.source])
        taken[candidate.source] += 1
    items, used = [], set()
    for _, candidate in sorted(zip(rounds, candidates, strict=True), key=lambda pair: pair[0]):
        if len(items) == count:
            break
        wrong = _wrong_choices(candidate, groups[candidate.group], random.Random(f"{seed} {axis} {len(items)}"))
        if wrong and candidate.choice not in used:
            used.add(candidate.choice)
            items.append(_item(candidate.context, candidate.choice, wrong, candidate.source, seed))
    return items


def from_questions(questions: list[Question], seed: int) -> list[dict[str, Any]]:
    """One item for each generated question."""
    answers: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        if question.answer not in answers[question.task]:
            answers[question.task].append(question.answer)
    items = []
    for number, question in enumerate(questions):
        rng = random.Random(f"{seed} {question.task} {number}")
        wrong = wrong_answers(question, answers[question.task], rng)
        context, source = question.prompt(), f"reasoning-gym/{question.task}"
        items.append(_item(context, f" {question.answer}", [f" {w}" for w in wrong], source, seed))
    return items


def wrong_answers(question: Question, others: list[str], rng: random.Random) -> list[str]:
    """Wrong answers of the same form: the other of a pair, numbers from near to far, other orders of a list, other
    names that the question starts a sentence with, or `others`, the answers of the same task."""
    answer = question.answer
    for pair in (("Yes", "No"), ("True", "False")):
        if answer in pair:
            return [pair[1 - pair.index(answer)]]
    if re.fullmatch(r"-?\d+", answer):
        return _near_misses(int(answer), others, rng)
    parts = answer.split(", ")
    if len(set(parts)) >= 3:
        return _other_orders(parts, rng)
    names = re.findall(r"(?:^|\. )([^\s.]+)", question.question)
    pool = [other for other in (names if answer in names else others) if other != answer]
    return rng.sample(pool, min(CHOICES - 1, len(pool)))


def _near_misses(value: int, others: list[str], rng: random.Random) -> list[str]:
    """Wrong numbers of the same sign, from near to far, so that models of every size can tell some of them apart: off
    by at most 3, off by 10 (3 or 4 for one digit), the answer to another question."""
    sign = -1 if value < 0 else 1
    size = abs(value)
    smallest = 1 if value < 0 else 0
    tens = [size + 10, size - 10] if size >= 10 else []
    far = [abs(int(other)) for other in others if re.fullmatch(r"-?\d+", other) and (other[0] == "-") == (value < 0)]
    pools = [
        [size + offset for offset in (1, -1, 2, -2, 3, -3)],
        [*tens, size + 3, size + 4],
        rng.sample(far, min(10, len(far))) + [size + offset for offset in (5, 6, 7)],
    ]
    wrong: list[int] = []
    for number, pool in enumerate(pools):
        good = [n for n in dict.fromkeys(pool) if n >= smallest and n != size and n not in wrong]
        wrong.append(good[0] if number == 2 else rng.choice(good[:2] if number == 1 else good))
    return [str(sign * n) for n in wrong]


def _other_orders(parts: list[str], rng: random.Random) -> list[str]:
    orders: list[str] = []
    while len(orders) < CHOICES - 1:
        first, second = rng.sample(range(len(parts)), 2)
        swapped = list(parts)
        swapped[first], swapped[second] = parts[second], parts[first]
        if swapped != parts and (text := ", ".join(swapped)) not in orders:
            orders.append(text)
    return orders


def _item(context: str, right: str, wrong: list[str], source: str, seed: int) -> dict[str, Any]:
    choices = [right, *wrong]
    choices.sort(key=lambda choice: order_key(seed, context, choice))
    return {"context": context, "choices": choices, "answer": choices.index(right), "source": source}


def _wrong_choices(candidate: _Candidate, group: list[_Candidate], rng: random.Random) -> list[str]:
    length, found = len(candidate.choice), []
    for other in (group[rng.randrange(len(group))] for _ in range(50)):
        similar = max(length, len(other.choice)) <= LENGTH_RATIO * min(length, len(other.choice))
        new = other.choice != candidate.choice and other.choice not in found
        if similar and new and other.choice.strip() not in candidate.context:
            found.append(other.choice)
        if len(found) == CHOICES - 1:
            return found
    return []


def _code_candidates(document: Document) -> Iterator[_Candidate]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in somebody else's code
            tree = ast.parse(document.text)
    except (SyntaxError, ValueError):
        return  # a piece of a class, or of a table
    lines = document.text.split("\n")
    # Only first lines of statements: no docstrings, no comments, no continuation lines.
    starts = sorted({node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt) and not _is_string(node)})
    for start in starts:
        line, context = lines[start - 1], _preceding(lines[: start - 1])
        if context.endswith("\n"):  # a blank line before it: the newlines would be one token across the boundary
            continue
        if LINE_CHARACTERS[0] <= len(line.strip()) <= LINE_CHARACTERS[1] and context.count("\n") >= 2:
            indentation = len(line) - len(line.lstrip())
            if line.strip() not in context and not line.endswith("\\"):
                yield _Candidate(context, "\n" + line, document.source, str(indentation))


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _preceding(lines: list[str]) -> str:
    taken: list[str] = []
    for line in reversed(lines[-CONTEXT_LINES:]):
        if sum(map(len, taken)) + len(line) > CONTEXT_CHARACTERS:
            break
        taken.insert(0, line)
    return "\n".join(taken).lstrip("\n")


def _knowledge_candidates(document: Document) -> Iterator[_Candidate]:
    entry = re.match(r"([^\n(]+ \((\w+)\):)( [^\n]+?[a-z]{3}\.)(?=[ \n]|$)", document.text)
    if entry and DEFINITION_CHARACTERS[0] <= len(entry[3]) <= DEFINITION_CHARACTERS[1]:
        yield _Candidate(entry[1], entry[3], document.source, entry[2])
