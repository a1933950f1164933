"""Wrong choices: of the right one's form, near it, and never equal to it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pma.corpus.generated import Question
from pma.corpus.items import CHOICES, corruptions, wrong_answers


@given(st.integers(-5000, 5000), st.integers(0, 9))
def test_wrong_numbers_are_near_and_wrong(value: int, seed: int) -> None:
    wrong = wrong_answers(Question("sum", "?", str(value)), [str(value), "17"], random.Random(seed))
    assert len(set(wrong)) == CHOICES - 1 and str(value) not in wrong
    if value:
        assert str(-value) in wrong and any(abs(int(w) - value) <= 10 for w in wrong)


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("?", "Yes", {"No"}),
        ("Ann likes tea. Bo likes milk. Cy hums. \nWho hums?", "Cy", {"Ann", "Bo", "father"}),
        ("?", "father", {"mother", "son", "wife"}),
    ],
)
def test_wrong_answers_have_the_form_of_the_answer(question: str, answer: str, expected: set[str]) -> None:
    others = ["father", "mother", "son", "wife"] if answer == "father" else ["father"]
    assert set(wrong_answers(Question("task", question, answer), others, random.Random(0))) == expected


@given(st.text("ab ;.", min_size=1, max_size=20), st.integers(0, 9))
def test_corruptions_are_other_orders_of_the_same_characters(text: str, seed: int) -> None:
    found = corruptions(text, random.Random(seed))
    assert len(set(found)) == len(found) <= 2 and text not in found
    assert all(sorted(other) == sorted(text) for other in found)


def test_wrong_lists_are_other_orders_and_one_with_an_element_twice() -> None:
    for seed in range(20):
        wrong = wrong_answers(Question("sort", "?", "3, 3, 1, 2"), [], random.Random(seed))
        assert len(set(wrong)) == 3 and "3, 3, 1, 2" not in wrong
        same = [sorted(w.split(", ")) == ["1", "2", "3", "3"] for w in wrong]
        assert same == [True, True, False]
