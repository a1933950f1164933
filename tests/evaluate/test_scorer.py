"""Scores: the same as lm-eval's, from one process, each computed once."""

from __future__ import annotations

import json
import math
import statistics

import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from pma.evaluate.scorer import Score, Scorer
from pma.evaluate.suites import load_suite
from pma.evaluate.tasks import AXES, write_tasks
from pma.model.moe import adapt


def _by_name(scores: list[Score]) -> dict[tuple[str, str], Score]:
    return {(score.task, score.metric): score for score in scores}


@pytest.mark.parametrize(
    ("kind", "name"), [("dense", "proxy"), ("moe", "proxy"), ("moe", "instruct"), ("moe", "reward")]
)
def test_scores_are_those_of_lm_eval(make_model, kind, name, corpus, tokenizer, tmp_path):
    model = make_model(kind)
    ours = _by_name(Scorer(load_suite(name, corpus), model, tokenizer, tmp_path / "cache").score("w"))
    write_tasks(name, corpus, tmp_path / "tasks")
    results = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3),
        tasks=[f"pma_{name}"],
        task_manager=TaskManager(include_path=tmp_path / "tasks", include_defaults=False),
    )["results"]
    names = {part: f"pma_{name}::pma_{name}_{kind}" for part, kind in (("average", "axes"), ("heldout", "heldout"))}
    heldout = {"heldout_drama", "heldout_prose", "heldout"} if name == "proxy" else set()
    assert {task for task, _ in ours} == {*AXES[name], "average", *heldout}
    for (task, metric), score in ours.items():
        reference = results[names.get(task, f"pma_{name}_{task}")]
        assert score.value == pytest.approx(reference[f"{metric},none"], rel=1e-5)
        assert score.n == reference["sample_len"]
        if reference[f"{metric}_stderr,none"] != "N/A":
            assert score.stderr == pytest.approx(reference[f"{metric}_stderr,none"], rel=1e-4)


def test_a_reward_is_the_probability_of_the_right_answer_and_its_end(corpus):
    suite = load_suite("reward", corpus)
    lines = (corpus / "items" / "instruct" / "reasoning.jsonl").read_text().splitlines()
    for line, requests in zip(lines, suite.requests["pma_reward_reasoning"], strict=True):
        item = json.loads(line)
        assert requests[0].args == (item["context"], item["choices"][item["answer"]] + "<|endoftext|>")
        task = suite.tasks["pma_reward_reasoning"]
        assert task.process_results(item, [(-0.5, False)]) == {"reward": math.exp(-0.5)}


def test_averages_are_unweighted_means_of_independent_tasks(make_model, suite, tokenizer, tmp_path):
    scores = _by_name(Scorer(suite, make_model(), tokenizer, tmp_path).score("w"))
    for average, parts in (("average", AXES["proxy"]), ("heldout", ("heldout_drama", "heldout_prose"))):
        of = [scores[part, "bits_per_byte"] for part in parts]
        assert scores[average, "bits_per_byte"].value == pytest.approx(statistics.fmean(s.value for s in of))
        stderr = math.sqrt(sum(s.stderr**2 for s in of)) / len(of)
        assert scores[average, "bits_per_byte"].stderr == pytest.approx(stderr)


def test_scores_do_not_depend_on_threads(make_model, suite, tokenizer, tmp_path):
    with_one, with_three = (
        Scorer(suite, make_model(), tokenizer, tmp_path / str(n), threads=n).score("w") for n in (1, 3)
    )
    assert with_one == with_three


def test_a_score_is_computed_once_and_read_back_without_the_model(make_model, suite, tokenizer, tmp_path):
    model, other = make_model(seed=0), make_model(seed=1)
    cached = Scorer(suite, model, tokenizer, tmp_path)
    first = cached.score("one")
    assert cached.score("two", lambda: model.load_state_dict(other.state_dict())) != first

    def refuse() -> None:
        raise AssertionError("the model was touched")

    assert cached.score("one", refuse) == first
    assert Scorer(suite, other, tokenizer, tmp_path).score("one", refuse) == first


def test_items_of_a_score_average_to_it(make_model, suite, tokenizer, tmp_path):
    cached = Scorer(suite, make_model(), tokenizer, tmp_path)
    with pytest.raises(ValueError, match="call score first"):
        cached.items("w")
    scores = _by_name(cached.score("w"))
    items = cached.items("w")
    assert set(items) == {key for key in scores if key[0] not in ("average", "heldout")}
    for key, values in items.items():
        assert statistics.fmean(values) == pytest.approx(scores[key].value, abs=1e-6)


def test_weights_with_nan_are_refused(make_model, suite, tokenizer, tmp_path):
    model = make_model()
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    with pytest.raises(ValueError, match="weights broken: log-likelihood nan"):
        Scorer(suite, model, tokenizer, tmp_path).score("broken")


def test_the_paper_suite_scores_groups_shots_and_generation(make_model, toy_paper, tokenizer, tmp_path):
    model = make_model("dense")
    scores = _by_name(Scorer(load_suite("paper"), model, tokenizer, tmp_path / "cache").score("w"))
    reference = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3),
        tasks=["toy_group"],
        num_fewshot=2,
        task_manager=toy_paper,
    )["results"]["toy_group"]
    assert scores["toy_group", "acc"].value == pytest.approx(reference["acc,none"])
    assert scores["toy_group", "acc"].stderr == pytest.approx(reference["acc_stderr,none"])
    assert scores["toy_write", "exact_match"].n == 8
    values = [scores["toy_group", "acc"].value, scores["toy_write", "exact_match"].value]
    assert scores["average", "score"].value == pytest.approx(statistics.fmean(values))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_on_a_gpu_the_scores_are_those_of_the_cpu(make_model, kind, suite, tokenizer, tmp_path):
    on_cpu, on_gpu = (
        _by_name(Scorer(suite, adapt(make_model(kind)), tokenizer, tmp_path / device, device).score("w"))
        for device in ("cpu", "cuda")
    )
    for key in (key for key in on_cpu if key[1] == "bits_per_byte"):  # of eight items, one may turn right or wrong
        assert on_gpu[key].value == pytest.approx(on_cpu[key].value, rel=1e-2)  # products in TF32
