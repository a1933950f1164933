"""A run of five checkpoints, as the Hugging Face Trainer lays them out, with text, items and tasks to score it on."""

from __future__ import annotations

import json
import random
from pathlib import Path

import datasets
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

from pma.choose.__main__ import ChooseJob
from pma.evaluate.tasks import AXES

WORDS = "zero one two three four five six seven eight nine ten plus minus is the sum of and then".split()
TASK = """\
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: context
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """run/: one random model and noise around it; held.jsonl; corpus/ with items; tasks/ with a task of lm-eval."""
    root = tmp_path_factory.mktemp("choose")
    rng = random.Random(0)

    def text(low: int, high: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))

    def write(path: Path, rows: list[dict]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([" ".join(WORDS)] * 9, vocab_size=300, special_tokens=["<|end|>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|end|>")
    sizes = dict(vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    sizes |= dict(num_key_value_heads=1, head_dim=8, max_position_embeddings=64, tie_word_embeddings=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen3Config(**sizes))
    middle = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in (10, 20, 30, 40, 50):
        model.load_state_dict({name: t + 0.3 * torch.randn_like(t) for name, t in middle.items()})
        folder = root / "run" / f"checkpoint-{step}"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "trainer_state.json").write_text("{}")
    write(root / "held.jsonl", [{"text": text(5, 30)} for _ in range(24)])
    for axis in AXES["proxy"]:
        choices = [[f" {text(1, 3)}", f" {text(1, 3)}"] for _ in range(12)]
        items = [{"context": text(3, 9), "choices": c, "answer": i % 2, "source": ""} for i, c in enumerate(choices)]
        write(root / "corpus" / "items" / "proxy" / f"{axis}.jsonl", items)
    write(root / "corpus" / "heldout" / "prose.jsonl", [{"text": text(5, 30)}])
    (root / "tasks").mkdir()
    data = json.dumps(str(root / "corpus" / "items" / "proxy" / "math.jsonl"))
    (root / "tasks" / "sums.yaml").write_text(TASK.replace("DATA", data))
    return root


@pytest.fixture
def make_job(world, tmp_path, monkeypatch):
    """make_job(**values): a job over the run of `world`; on its text where nothing else is named."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")

    def make(**values: object) -> DictConfig:
        if not {"text", "suite", "tasks"} & values.keys():
            values["text"] = str(world / "held.jsonl")
        given = {"run_dir": str(world / "run"), "output": str(tmp_path / "out"), "device": "cpu", "threads": 1}
        return OmegaConf.structured(ChooseJob(**{**given, "methods": ["sma", "wma"], **values}))

    return make
