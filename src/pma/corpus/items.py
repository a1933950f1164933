"""Evaluation items of the suites proxy and instruct: a context and choices, scored as context + choice.

| suite | axis | stands in for | an item | wrong choices, so that models of every size can tell some of them |
|---|---|---|---|---|
| proxy | code | HumanEval | lines of a held-out Python file, and the next | corruptions |
| proxy | knowledge | MMLU | a held-out dictionary word, and its definition | corruptions |
| proxy | reasoning | BBH | a generated question, and its answer | No for Yes; other names; other orders of a list |
| proxy | math | GSM8K | the same | a near number, another question's answer, the other sign |
| instruct | math, reasoning | Table 1's | the same in the chat template | as in proxy |
| instruct | knowledge | MMLU | what a held-out dictionary word means | corruptions |
| instruct | dialogue | instruction following | two turns of a held-out conversation, and the next | corruptions |
| instruct | ood | OOD | a generated question of a task trained on nowhere | as in math and reasoning |

"corruptions" are the right choice of another place, of like length, and the right choice twice with its bytes in
another order: two neighbouring words swapped, and any two words or marks.
"""

from __future__ import annotations

import ast
import random
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations, pairwise
from typing import Any

from pma.config import DataConfig
from pma.corpus.clean import Document, order_key
from pma.corpus.generated import Generated, Question
from pma.corpus.instruct import ENTRY, Pair, pairs, question_pair

DOMAIN_OF_AXIS = {
    "proxy/code": "code",
    "proxy/knowledge": "dictionary",
    "proxy/reasoning": "reasoning",
    "proxy/math": "math",
    "instruct/math": "math",
    "instruct/reasoning": "reasoning",
    "instruct/knowledge": "dictionary",
    "instruct/dialogue": "dialogue",
    "instruct/ood": "ood",
}
CHOICES = 4
CONTEXT_LINES, CONTEXT_CHARACTERS = 6, 200
LINE_CHARACTERS = (16, 72)
DEFINITION_CHARACTERS = (24, 100)
LENGTH_RATIO = 1.3  # of the longest allowed difference between the true choice and that of another place


def make_items(
    config: DataConfig, heldout: dict[str, list[Document]], generated: dict[str, Generated]
) -> dict[str, list[dict[str, Any]]]:
    """Items of every axis whose domain the corpus has, from held-out documents or generated questions by domain."""
    axes = {}
    for axis, domain in DOMAIN_OF_AXIS.items():
        proxy = axis.startswith("proxy/")
        if domain in generated:
            questions = generated[domain].items if proxy else generated[domain].instruct_items
            axes[axis] = from_questions(axis, questions, config.seed)
        elif domain in heldout:
            count = config.axis_items if proxy else config.instruct.items
            axes[axis] = from_heldout(axis, heldout[domain], count, config.seed)
    return {axis: rows for axis, rows in axes.items() if rows}


def item_texts(
    axes: dict[str, list[dict[str, Any]]], generated: dict[str, Generated], benchmarks: dict[str, list[str]]
) -> dict[str, list[str]]:
    """Texts that training documents must not overlap with: items that are not generated, and benchmarks."""
    own = {
        f"items/{axis}": [row["context"] + row["choices"][row["answer"]] for row in rows]
        for axis, rows in axes.items()
        if DOMAIN_OF_AXIS[axis] not in generated
    }
    return own | benchmarks


def from_heldout(axis: str, documents: list[Document], count: int, seed: int) -> list[dict[str, Any]]:
    """At most `count` items from the held-out documents of the domain of an axis."""
    readers: dict[str, Callable[[Document], Iterable[Pair]]] = {
        "proxy/code": _code_pairs,
        "proxy/knowledge": _definition_pairs,
    }
    read = readers.get(axis, pairs)
    candidates = [pair for document in documents for pair in read(document)]
    candidates.sort(key=lambda p: order_key(seed, p.source, p.prompt, p.completion))
    groups: dict[str, list[Pair]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.group].append(candidate)
    taken: dict[str, int] = defaultdict(int)  # files take turns, so that no large one dominates
    rounds = []
    for candidate in candidates:
        rounds.append(taken[candidate.source])
        taken[candidate.source] += 1
    items: list[dict[str, Any]] = []
    used: set[str] = set()
    for _, candidate in sorted(zip(rounds, candidates, strict=True), key=lambda pair: pair[0]):
        if len(items) == count:
            break
        rng = random.Random(f"{seed} {axis} {len(items)}")
        wrong = _elsewhere(candidate, groups[candidate.group], rng) + corruptions(candidate.completion, rng)
        if len(wrong) == CHOICES - 1 and candidate.completion not in used:
            used.add(candidate.completion)
            items.append(_item(candidate, wrong, seed))
    return items


def from_questions(axis: str, questions: list[Question], seed: int) -> list[dict[str, Any]]:
    """One item for each generated question, in the form of the axis' suite."""
    answers: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        if question.answer not in answers[question.task]:
            answers[question.task].append(question.answer)
    items = []
    for number, question in enumerate(questions):
        rng = random.Random(f"{seed} {question.task} {number}")
        wrong = [f" {answer}" for answer in wrong_answers(question, answers[question.task], rng)]
        right = question_pair(question)
        if axis.startswith("proxy/"):
            right = right._replace(prompt=question.prompt())
        items.append(_item(right, wrong, seed))
    return items


def wrong_answers(question: Question, others: list[str], rng: random.Random) -> list[str]:
    """Wrong answers of the same form, from near to far where there is such an order: the other of a pair, numbers,
    lists, two names that the question starts a sentence with and one it does not, or `others`, the answers of the same
    task."""
    answer = question.answer
    for pair in (("Yes", "No"), ("True", "False")):
        if answer in pair:
            return [pair[1 - pair.index(answer)]]
    if re.fullmatch(r"-?\d+", answer):
        return _wrong_numbers(int(answer), others, rng)
    parts = answer.split(", ")
    if len(set(parts)) >= 3:
        return _wrong_lists(parts, rng)
    names = [name for name in re.findall(r"(?:^|\. )([^\s.]+)", question.question) if name != answer]
    inside = rng.sample(names, min(CHOICES - 2, len(names))) if answer in question.question else []
    outside = [other for other in others if other != answer and other not in question.question]
    return inside + rng.sample(outside, min(CHOICES - 1 - len(inside), len(outside)))


def _wrong_numbers(value: int, others: list[str], rng: random.Random) -> list[str]:
    """From near to far: off by at most 3 or by 10; the answer to another question, of as many digits if there is one;
    of the other sign."""
    near = [value + offset for offset in (1, -1, 2, -2, 3, -3, 10, -10)]
    elsewhere = [int(other) for other in others if re.fullmatch(r"-?\d+", other)]
    pools = [
        [n for n in near if n * value > 0],
        [n for n in elsewhere if n * value > 0 and len(str(n)) == len(str(value))],
        [-value],
    ]
    wrong: list[int] = []
    for pool in pools:
        left = [n for n in pool if n not in (value, *wrong)]
        wrong.append(rng.choice(left or [n for n in near if n not in wrong]))
    return [str(n) for n in wrong]


def _wrong_lists(parts: list[str], rng: random.Random) -> list[str]:
    """Lists, from near to far: two elements swapped, the reverse (or two others swapped), one element twice."""
    lists = [", ".join(reversed(parts))] if parts != parts[::-1] else []
    while len(lists) < CHOICES - 2:
        first, second = rng.sample(range(len(parts)), 2)
        swapped = list(parts)
        swapped[first], swapped[second] = parts[second], parts[first]
        if swapped != parts and (text := ", ".join(swapped)) not in lists:
            lists.append(text)
    first, second = rng.choice([(i, j) for i, a in enumerate(parts) for j, b in enumerate(parts) if a != b])
    return [*lists, ", ".join(parts[second] if i == first else part for i, part in enumerate(parts))]


def _item(right: Pair, wrong: list[str], seed: int) -> dict[str, Any]:
    choices = [right.completion, *wrong]
    choices.sort(key=lambda choice: order_key(seed, right.prompt, choice))
    answer = choices.index(right.completion)
    return {"context": right.prompt, "choices": choices, "answer": answer, "source": right.source}


def _elsewhere(pair: Pair, group: list[Pair], rng: random.Random) -> list[str]:
    """A list with the completion of another pair, of like length; an empty list when 50 tries give none."""
    length = len(pair.completion)
    for other in (group[rng.randrange(len(group))].completion for _ in range(50)):
        similar = max(length, len(other)) <= LENGTH_RATIO * min(length, len(other))
        if similar and other != pair.completion and other.strip() not in pair.prompt:
            return [other]
    return []


def corruptions(text: str, rng: random.Random) -> list[str]:
    """Two texts: `text` with two neighbouring words swapped, and with any two words or marks swapped; fewer when it has
    too few."""
    tokens = re.findall(r"\w+|\s+|[^\w\s]", text)
    words = [place for place, token in enumerate(tokens) if re.match(r"\w", token)]
    places = [place for place, token in enumerate(tokens) if not token.isspace()]
    corrupted: list[str] = []
    for swaps in (list(pairwise(words)), list(combinations(places, 2))):
        for first, second in rng.sample(swaps, len(swaps)):
            swapped = list(tokens)
            swapped[first], swapped[second] = tokens[second], tokens[first]
            if (new := "".join(swapped)) not in (text, *corrupted):
                corrupted.append(new)
                break
    return corrupted


def _code_pairs(document: Document) -> Iterator[Pair]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in the code of packages
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
                yield Pair(context, "\n" + line, document.source, str(indentation))


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _preceding(lines: list[str]) -> str:
    taken: list[str] = []
    for line in reversed(lines[-CONTEXT_LINES:]):
        if sum(map(len, taken)) + len(line) > CONTEXT_CHARACTERS:
            break
        taken.insert(0, line)
    return "\n".join(taken).lstrip("\n")


def _definition_pairs(document: Document) -> Iterator[Pair]:
    entry = ENTRY.match(document.text)
    if entry and DEFINITION_CHARACTERS[0] <= len(entry[3]) <= DEFINITION_CHARACTERS[1]:
        yield Pair(f"{entry[1]} ({entry[2]}):", entry[3], document.source, "")
