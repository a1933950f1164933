"""Suites: what decides their version, what they refuse, and the paper's without the hub."""

from __future__ import annotations

import json
import math
from pathlib import Path

import lm_eval
import pytest
from lm_eval.tasks import TaskManager

from pma.evaluate import suites
from pma.evaluate.suites import load_suite
from pma.evaluate.tasks import process_results


def test_accuracy_is_by_likelihood_and_bits_are_of_the_right_choice():
    item = {"choices": ["é", "four"], "answer": 1}  # 2 and 4 bytes
    assert process_results(item, [(-3.0, True), (-4.0, False)])["acc"] == 0.0
    metrics = process_results(item, [(-5.0, False), (-4.0, False)])
    share = math.exp(-4) / (math.exp(-4) + math.exp(-5))
    bits = {"bits_per_byte": pytest.approx(1 / math.log(2)), "choice": pytest.approx(-math.log2(share))}
    assert metrics == {"acc": 1.0, **bits}
    assert process_results(item, [(-2000.0, False), (-2000.0, False)])["choice"] == pytest.approx(
        1
    )  # far below exp's range


def test_the_version_follows_what_decides_a_score(suite, corpus, tmp_path, monkeypatch):
    def version(**kwargs) -> str:
        return load_suite("proxy", corpus, **kwargs).version

    assert version() == suite.version != version(limit=3)
    monkeypatch.setattr(suites, "SCORING_VERSION", 0)
    assert version() != suite.version
    monkeypatch.undo()
    items = corpus / "items" / "proxy" / "math.jsonl"
    before = items.read_text()
    try:
        items.write_text(before.replace('"answer": 0', '"answer": 1'))
        assert version() != suite.version
    finally:
        items.write_text(before)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ({"context": "one", "choices": ["two"], "answer": 0}, "items/proxy/code.jsonl"),
        ({"context": "one", "choices": ["two", ""], "answer": 0}, "items/proxy/code.jsonl"),
        ({"context": "one", "choices": ["two", "six"], "answer": 2}, "items/proxy/code.jsonl"),
        ({"words": "one"}, "heldout/drama.jsonl"),
    ],
)
def test_what_cannot_be_scored_is_named(line, name, corpus, tmp_path):
    for source in corpus.rglob("*.jsonl"):
        target = tmp_path / source.relative_to(corpus)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
    with open(tmp_path / name, "a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=f"{name}:[0-9]+: cannot be scored"):
        load_suite("proxy", tmp_path)


def test_a_folder_without_items_and_an_unknown_suite_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no corpus with items of suite proxy"):
        load_suite("proxy", tmp_path)
    with pytest.raises(ValueError, match="choose one of proxy, instruct, reward, paper"):
        load_suite("glue", tmp_path)
    with pytest.raises(ValueError, match="limit=0"):
        load_suite("proxy", tmp_path, limit=0)


def _leaves(index: dict, name: str) -> list[dict]:
    entry = index[name]
    if entry.cfg and isinstance(entry.cfg["task"], str):
        return [entry.cfg]
    return [leaf for member in (entry.cfg["task"] if entry.cfg else entry.tags) for leaf in _leaves(index, member)]


def test_lm_eval_has_every_task_of_the_paper_suite_with_its_metric_and_filter():
    shipped = Path(lm_eval.__file__).parent / "tasks"
    folders = "arc bbh drop winogrande hellaswag mmlu ceval triviaqa gsm8k minerva_math mbpp humaneval agieval gpqa"
    paths = [shipped / folder for folder in [*folders.split(), "mmlu_pro", "benchmarks"]]
    index = TaskManager(include_path=paths, include_defaults=False).task_index
    for benchmark in suites.PAPER:
        metric, filter_name = benchmark.row.key.replace("pass@1", "pass_at_k").split(",")
        for leaf in _leaves(index, benchmark.row.source):
            assert metric in [str(entry["metric"]).rpartition(".")[2] for entry in leaf["metric_list"]], leaf["task"]
            assert filter_name in [entry["name"] for entry in leaf.get("filter_list") or [{"name": "none"}]], leaf[
                "task"
            ]
            assert benchmark.shots is not None or leaf["num_fewshot"] is not None, leaf["task"]


def test_the_paper_suite_says_what_it_needs(monkeypatch):
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    with pytest.raises(ValueError, match="HumanEval and MBPP run code.*HF_ALLOW_CODE_EVAL=1"):
        load_suite("paper")
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    monkeypatch.setattr(suites.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="math_verify"):
        load_suite("paper")


def test_without_the_hub_the_paper_suite_ends_in_one_message(toy_paper, monkeypatch):
    def unreachable(names):
        raise ConnectionError("Couldn't reach the hub\nand a long tail")

    monkeypatch.setattr(toy_paper, "load", unreachable)
    with pytest.raises(ValueError, match=r"suite=paper: Group could not be loaded \(Couldn't reach the hub\).*HF_HOME"):
        load_suite("paper")
