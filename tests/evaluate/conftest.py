"""A tiny corpus with items, a tokenizer and models of two layers; nothing is trained."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lm_eval.tasks import TaskManager
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3MoeConfig

from pma import cli
from pma.evaluate import suites
from pma.evaluate.__main__ import EvaluateJob, main
from pma.evaluate.suites import Benchmark, Row, Suite, load_suite
from pma.evaluate.tasks import AXES

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


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    for name, axes in AXES.items():
        for axis in axes:
            _write_lines(folder / "items" / name / f"{axis}.jsonl", [_item(rng, number) for number in range(8)])
    for domain in ("drama", "prose"):
        _write_lines(folder / "heldout" / f"{domain}.jsonl", [{"text": _text(rng, n)} for n in TEXT_LENGTHS])
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    trained = ByteLevelBPETokenizer()
    rng = random.Random(1)
    texts = [_text(rng, 30) for _ in range(100)]
    trained.train_from_iterator(texts, vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    """make_model(kind, seed): a random model, kind dense or moe."""

    def make(kind: str = "moe", seed: int = 0) -> PreTrainedModel:
        torch.manual_seed(seed)
        sizes = dict(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
        sizes |= dict(head_dim=16, max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.2)
        if kind == "moe":
            config = Qwen3MoeConfig(**sizes, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
        else:
            config = Qwen3Config(**sizes, intermediate_size=64)
        return AutoModelForCausalLM.from_config(config).eval()

    return make


@pytest.fixture(scope="session")
def suite(corpus: Path) -> Suite:
    return load_suite("proxy", corpus)


@pytest.fixture
def model_dir(make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """A model folder without a manifest."""
    folder = tmp_path / "model"
    make_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


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


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run `python -m pma.evaluate` in this process; the exit status and the error line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*overrides: str) -> object:
        monkeypatch.setattr(sys, "argv", ["evaluate", "cache_dir=scores", *overrides])
        try:
            cli.run(main, EvaluateJob, "evaluate", "command")
        except SystemExit as end:
            return end.code
        return 0

    return call
