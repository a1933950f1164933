"""What a gain is: of the half that did not choose, document by document, and in words that say its direction."""

from __future__ import annotations

from functools import partial

import pytest

from pma.choose.halves import paired_gain, score
from pma.choose.measure import load_measure
from pma.evaluate import named


def test_a_score_is_the_mean_over_axes_and_a_gain_is_paired():
    merge, last = [[1.0] * 10, [0.0, 1.0]], [[0.0, 1.0] * 5, [0.0, 0.0]]
    ones = [[1.0] * 10, [1.0, 1.0]]
    assert score(merge) == 0.75 and score(last) == 0.25
    gain, half = paired_gain(merge, last, ones, higher=True)
    assert gain == 0.5 and half == pytest.approx(1.96 / 2 * (0.25 / 9 + 0.25) ** 0.5, rel=1e-3)
    assert paired_gain(merge, last, ones, higher=False)[0] == -0.5


def test_long_documents_weigh_more():
    sizes = [[0.5, 1.5] * 6]
    last, merge = [[0.5, 3.0] * 6], [[0.4, 2.7] * 6]  # in both kinds 0.2 of the size is saved
    gain, half = paired_gain(merge, last, sizes, higher=False)
    assert gain == pytest.approx(0.2) and half == pytest.approx(0)


@pytest.mark.parametrize(
    "given,words",
    [
        ({}, "saves 0.0123 ± 0.0010 bits per byte"),
        ({"suite": "proxy"}, "saves 0.0123 ± 0.0010 bits per byte"),
        ({"suite": "proxy", "metric": "choice"}, "saves 0.0123 ± 0.0010 bits of the right choice"),
        ({"tasks": ["sums"]}, "gains 1.23 ± 0.10 points of acc_norm"),
        ({"tasks": ["sums"], "metric": "acc"}, "gains 1.23 ± 0.10 points of acc"),
    ],
)
def test_words_follow_the_metric(given, words, make_job, world):
    places = {"corpus": str(world / "corpus"), "include_path": str(world / "tasks")}
    measure = load_measure(make_job(**given, **places))
    assert measure.gain(0.01234, 0.001) == words
    assert measure.gain(-0.01234, 0.001).split()[0] in ("costs", "loses")


@pytest.mark.parametrize(
    "given,message",
    [
        ({"text": None}, "nothing to score on: give one of text=FILE"),
        ({"suite": "proxy", "tasks": ["sums"]}, "suite and tasks: give one of"),
        ({"suite": "paper"}, "name the benchmarks that you want by tasks"),
        ({"suite": "proxy"}, "needs a corpus: give corpus=DIR"),
        ({"tasks": ["none_such"]}, "lm-eval knows no none_such"),
        ({"tasks": ["sums"], "metric": "bleu"}, "metric=bleu: sums has acc, acc_norm"),
        ({"tasks": ["sums"], "limit": 4}, "sums: 4 documents; give at least 10"),
        ({"metric": "acc"}, "metric=acc: text has bits_per_byte"),
        ({"limit": 9}, "text: 9 documents; give at least 10"),
    ],
)
def test_what_cannot_be_scored_is_refused(given, message, make_job, world, monkeypatch):
    # lm-eval's index of its own tasks takes long to build.
    monkeypatch.setattr(named, "TaskManager", partial(named.TaskManager, include_defaults=False))
    with pytest.raises(ValueError, match=message):
        load_measure(make_job(include_path=str(world / "tasks"), **given))


@pytest.mark.parametrize(
    "content,message",
    [(b"", "empty"), (b"\xff\x00", "not UTF-8"), (b'{"txt": "a"}\n', "line 1 holds no text"), (None, "no such file")],
)
def test_a_text_file_that_is_none_is_refused(content, message, make_job, tmp_path):
    if content is not None:
        (tmp_path / "text.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_measure(make_job(text=str(tmp_path / "text.jsonl")))
