"""Evaluation: the same scores as lm-eval, from one process, each computed once."""

from __future__ import annotations

import json
import math
import pickle
import random
import statistics
import sys
from pathlib import Path

import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3MoeConfig

from pma import cli
from pma.evaluate import Score, Scorer, load_suite, suites, write_tasks
from pma.evaluate.command import evaluate
from pma.evaluate.suites import Benchmark, Row
from pma.evaluate.tasks import AXES, process_results

WORDS = "zero one two three four five six seven eight nine ten plus minus is the sum of and then écu Füße".split()
TEXT_LENGTHS = (3, 40, 150, 400)  # words: below, at and beyond the model's 64 tokens


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def _write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _item(rng: random.Random, number: int) -> dict:
    choices = [" " + _text(rng, rng.randint(1, 5)) for _ in range(2 + number % 3)]
    context = _text(rng, rng.randint(1, 60)) + (" " if number % 5 == 0 else "")  # lm-eval moves a trailing space over
    return {"context": context, "choices": choices, "answer": rng.randrange(len(choices)), "source": "test"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    for name, axes in AXES.items():
        for axis in axes:
            _write_lines(folder / "items" / name / f"{axis}.jsonl", [_item(rng, number) for number in range(8)])
    for domain in ("drama", "prose"):
        _write_lines(folder / "heldout" / f"{domain}.jsonl", [{"text": _text(rng, n)} for n in TEXT_LENGTHS])
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    trained = ByteLevelBPETokenizer()
    rng = random.Random(1)
    texts = [_text(rng, 30) for _ in range(100)]
    trained.train_from_iterator(texts, vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|endoftext|>")


def _model(kind: str = "moe", seed: int = 0):
    torch.manual_seed(seed)
    sizes = dict(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
    sizes |= dict(head_dim=16, max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.2)
    if kind == "moe":
        config = Qwen3MoeConfig(**sizes, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    else:
        config = Qwen3Config(**sizes, intermediate_size=64)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def suite(corpus):
    return load_suite("proxy", corpus)


def _by_name(scores: list[Score]) -> dict[tuple[str, str], Score]:
    return {(score.task, score.metric): score for score in scores}


@pytest.mark.parametrize(("kind", "name"), [("dense", "proxy"), ("moe", "proxy"), ("moe", "instruct")])
def test_scores_are_those_of_lm_eval(kind, name, corpus, tokenizer, tmp_path):
    model = _model(kind)
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
        theirs = results[names.get(task, f"pma_{name}_{task}")]
        assert score.value == pytest.approx(theirs[f"{metric},none"], rel=1e-5)
        assert score.n == theirs["sample_len"]
        if theirs[f"{metric}_stderr,none"] != "N/A":
            assert score.stderr == pytest.approx(theirs[f"{metric}_stderr,none"], rel=1e-4)


def test_accuracy_is_by_likelihood_and_bits_are_of_the_right_choice():
    item = {"choices": ["é", "four"], "answer": 1}  # 2 and 4 bytes
    assert process_results(item, [(-3.0, True), (-4.0, False)])["acc"] == 0.0
    metrics = process_results(item, [(-5.0, False), (-4.0, False)])
    assert metrics == {"acc": 1.0, "bits_per_byte": pytest.approx(1 / math.log(2))}


def test_averages_are_unweighted_means_of_independent_tasks(suite, tokenizer, tmp_path):
    scores = _by_name(Scorer(suite, _model(), tokenizer, tmp_path).score("w"))
    for average, parts in (("average", AXES["proxy"]), ("heldout", ("heldout_drama", "heldout_prose"))):
        of = [scores[part, "bits_per_byte"] for part in parts]
        assert scores[average, "bits_per_byte"].value == pytest.approx(statistics.fmean(s.value for s in of))
        stderr = math.sqrt(sum(s.stderr**2 for s in of)) / len(of)
        assert scores[average, "bits_per_byte"].stderr == pytest.approx(stderr)


def test_scores_do_not_depend_on_threads(suite, tokenizer, tmp_path):
    one, three = (Scorer(suite, _model(), tokenizer, tmp_path / str(n), threads=n).score("w") for n in (1, 3))
    assert one == three


def test_a_score_is_computed_once_and_read_back_without_the_model(suite, tokenizer, tmp_path):
    model, other = _model(seed=0), _model(seed=1)
    cached = Scorer(suite, model, tokenizer, tmp_path)
    first = cached.score("one")
    assert cached.score("two", lambda: model.load_state_dict(other.state_dict())) != first

    def refuse() -> None:
        raise AssertionError("the model was touched")

    assert cached.score("one", refuse) == first
    assert Scorer(suite, other, tokenizer, tmp_path).score("one", refuse) == first


def test_items_of_a_score_average_to_it(suite, tokenizer, tmp_path):
    cached = Scorer(suite, _model(), tokenizer, tmp_path)
    with pytest.raises(ValueError, match="call score first"):
        cached.items("w")
    scores = _by_name(cached.score("w"))
    items = cached.items("w")
    assert set(items) == {key for key in scores if key[0] not in ("average", "heldout")}
    for key, values in items.items():
        assert statistics.fmean(values) == pytest.approx(scores[key].value, abs=1e-6)


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


def test_weights_with_nan_are_refused(suite, tokenizer, tmp_path):
    model = _model()
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    with pytest.raises(ValueError, match="weights broken: log-likelihood nan"):
        Scorer(suite, model, tokenizer, tmp_path).score("broken")


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
    with pytest.raises(ValueError, match="choose one of proxy, instruct, paper"):
        load_suite("glue", tmp_path)
    with pytest.raises(ValueError, match="limit=0"):
        load_suite("proxy", tmp_path, limit=0)


# The paper suite, without the hub.


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


TOY = {
    "toy_write": """\
output_type: generate_until
doc_to_text: context
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["."], max_gen_toks: 4, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    **{
        f"toy_{name}": """\
output_type: multiple_choice
doc_to_text: context
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
        for name in ("a", "b")
    },
}
TOY_GROUP = "group: toy_group\ntask: [toy_a, toy_b]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"


@pytest.fixture
def toy_paper(corpus, tmp_path, monkeypatch) -> TaskManager:
    """A stand-in for the hub: a group with few-shot examples, and a task that generates."""
    folder = tmp_path / "toy"
    folder.mkdir()
    for name, text in TOY.items():
        data = json.dumps(str(corpus / "items" / "proxy" / "math.jsonl"))
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {data}}}\ntest_split: train\n"
        (folder / f"{name}.yaml").write_text(head + text)
    (folder / "toy_group.yaml").write_text(TOY_GROUP)
    manager = TaskManager(include_path=folder, include_defaults=False)
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    monkeypatch.setattr(suites.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(suites, "TaskManager", lambda: manager)
    benchmarks = (
        Benchmark("Group", Row("toy_group", "acc,none"), 2),
        Benchmark("Write", Row("toy_write", "exact_match,none"), None),
    )
    monkeypatch.setattr(suites, "PAPER", benchmarks)
    return manager


def test_the_paper_suite_scores_groups_shots_and_generation(toy_paper, tokenizer, tmp_path):
    model = _model("dense")
    scores = _by_name(Scorer(load_suite("paper"), model, tokenizer, tmp_path / "cache").score("w"))
    theirs = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3),
        tasks=["toy_group"],
        num_fewshot=2,
        task_manager=toy_paper,
    )["results"]["toy_group"]
    assert scores["toy_group", "acc"].value == pytest.approx(theirs["acc,none"])
    assert scores["toy_group", "acc"].stderr == pytest.approx(theirs["acc_stderr,none"])
    assert scores["toy_write", "exact_match"].n == 8
    values = [scores["toy_group", "acc"].value, scores["toy_write", "exact_match"].value]
    assert scores["average", "score"].value == pytest.approx(statistics.fmean(values))


def test_without_the_hub_the_paper_suite_ends_in_one_message(toy_paper, monkeypatch):
    def unreachable(names):
        raise ConnectionError("Couldn't reach the hub\nand a long tail")

    monkeypatch.setattr(toy_paper, "load", unreachable)
    with pytest.raises(ValueError, match=r"suite=paper: Group could not be loaded \(Couldn't reach the hub\).*HF_HOME"):
        load_suite("paper")


# The command.


@pytest.fixture
def model_dir(tokenizer, tmp_path) -> Path:
    folder = tmp_path / "model"
    _model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run `python -m pma.evaluate` in this process; the exit status and the error line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*overrides: str) -> object:
        monkeypatch.setattr(sys, "argv", ["evaluate", "cache_dir=scores", *overrides])
        try:
            cli.run(evaluate, "evaluate", "command")
        except SystemExit as end:
            return end.code
        return 0

    return call


def test_the_command_prints_and_writes_the_scores(command, model_dir, corpus, tmp_path, capsys):
    (model_dir / "manifest.json").write_text(json.dumps({"corpus": str(corpus)}))
    assert command(f"model={model_dir}", f"output={tmp_path}/scores.json", "threads=1") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["task", "metric", "value", "stderr", "n"]
    written = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert [line.split()[0] for line in printed[1 : 1 + len(written)]] == [score["task"] for score in written]
    assert {path.name for path in tmp_path.iterdir()} == {"model", "scores", "scores.json"}  # no logs, no .hydra
    tasks = printed[-1].split("--include_path ")[1].split()[0]
    assert "pma_proxy" in TaskManager(include_path=tmp_path / tasks, include_defaults=False).all_groups


def test_vllm_scores_a_folder_as_transformers_does(vllm, command, model_dir, corpus, tmp_path):
    call = [f"model={model_dir}", f"corpus={corpus}", "threads=1", f"output={tmp_path}/scores.json"]
    written = []
    for backend in ("hf", "vllm", "vllm"):
        assert command(*call, f"backend={backend}") == 0
        written.append(json.loads((tmp_path / "scores.json").read_text()))
    theirs, ours, again = written
    assert ours == again and ours["version"] == theirs["version"] + "-vllm"
    assert len(vllm.started) == 1  # the second time all came from the cache, which it shares with no other backend
    assert len([path for path in (tmp_path / "scores").iterdir() if not path.name.endswith("-tasks")]) == 2
    assert vllm.started[0]["dtype"] == "bfloat16" and vllm.started[0]["tensor_parallel_size"] == 1
    for one, other in zip(ours["scores"], theirs["scores"], strict=True):
        assert (one["task"], one["metric"], one["n"]) == (other["task"], other["metric"], other["n"])
        if one["metric"] == "bits_per_byte":  # weights were rounded, long texts are cut elsewhere
            assert one["value"] != other["value"] and one["value"] == pytest.approx(other["value"], rel=0.02)


def test_vllm_takes_its_options_and_generates(vllm, toy_paper, command, model_dir, tmp_path):
    options = ["backend=vllm", "tensor_parallel_size=2", "max_model_len=60"]
    assert command(f"model={model_dir}", "suite=paper", *options, f"output={tmp_path}/scores.json") == 0
    assert vllm.started[0]["tensor_parallel_size"] == 2 and vllm.started[0]["max_model_len"] == 60
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert [score["task"] for score in scores] == ["toy_group", "toy_write", "average"]
    assert [score["n"] for score in scores] == [16, 8, 24]


def test_without_vllm_the_message_says_how_to_get_it(command, model_dir, corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.delitem(sys.modules, "lm_eval.models.vllm_causallms", raising=False)
    call = [f"model={model_dir}", f"corpus={corpus}", "backend=vllm"]
    assert command(*call).startswith("error: vLLM is not installed in this environment. It pins a torch")
    assert command(*call[:2], "backend=tgi") == "error: backend=tgi: choose hf or vllm"
    assert command(*call[:2], "max_model_len=64").startswith("error: max_model_len=64: give a number above 0, together")
    assert not (tmp_path / "scores").exists()


def test_user_errors_end_in_one_line(command, model_dir, corpus, tmp_path):
    assert command(f"model={model_dir}") == (
        f"error: {model_dir}: its manifest names no corpus; give corpus=DIR, a folder with items/ and heldout/"
    )
    assert command(f"model={tmp_path}/none", f"corpus={corpus}").startswith(f"error: model={tmp_path}/none: no")
    assert command() == "error: Missing mandatory value: model"
    assert command("modl_dir=x") == 1  # Hydra's own message


def test_a_sweep_can_send_the_task_to_another_process():
    task = pickle.loads(pickle.dumps(cli._UserErrors(evaluate)))
    assert task.__module__ == evaluate.__module__ and task._task is evaluate
