"""A run of the Hugging Face Trainer that is watched while it trains, in one process; and bare checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from pma.tracking import Tracker
from pma.watch.__main__ import WatchJob
from pma.watch.follow import Watch


def watch_job(run: Path, output: Path, recipes: list[dict], **options: object) -> DictConfig:
    """A job of `python -m pma.watch`, without tracking."""
    values = {"run_dir": str(run), "output": str(output), "recipes": recipes, "tracking": {"mode": "off"}, **options}
    return OmegaConf.merge(OmegaConf.structured(WatchJob), values)


@pytest.fixture(scope="session")
def make_job() -> Callable[..., DictConfig]:
    """make_job(run, output, recipes, **options)."""
    return watch_job


def rows_of(output: Path) -> list[dict]:
    """The rows of metrics.jsonl."""
    path = output / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="session")
def read_rows() -> Callable[[Path], list[dict]]:
    """read_rows(output)."""
    return rows_of


def write_checkpoint(folder: Path, value: float) -> Path:
    """A checkpoint of the Trainer's layout with one tensor, all of one value."""
    folder.mkdir(parents=True)
    save_file({"w": torch.full((3,), value)}, folder / "model.safetensors")
    (folder / "trainer_state.json").write_text("{}")
    return folder


@pytest.fixture(scope="session")
def make_checkpoint() -> Callable[[Path, float], Path]:
    """make_checkpoint(folder, value)."""
    return write_checkpoint


def one_round(watch: Watch) -> None:
    """What `follow` does between two pauses."""
    watch.output.mkdir(parents=True, exist_ok=True)
    with Tracker(watch.output, watch.last, watch.job.tracking, id="watch") as tracker:
        checkpoints = watch.checkpoints()
        for at in watch.todo(checkpoints):
            if not watch.try_step(at, checkpoints, tracker):
                break


@pytest.fixture(scope="session")
def look() -> Callable[[Watch], None]:
    """look(watch): one round over the checkpoints that are there."""
    return one_round


@pytest.fixture(scope="session")
def scored_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three items an axis and some held-out text."""
    folder = tmp_path_factory.mktemp("corpus")
    words = ["one", "two", "three", "four"]
    for axis in ("code", "reasoning", "knowledge", "math"):
        lines = [
            {"context": "zero plus", "choices": [f" {w}" for w in words], "answer": i, "source": "s"} for i in range(3)
        ]
        path = folder / "items" / "proxy" / f"{axis}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "heldout").mkdir()
    (folder / "heldout" / "web.jsonl").write_text(json.dumps({"text": "one two three four " * 5}) + "\n")
    return folder


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory, scored_corpus: Path) -> tuple[Path, Path]:
    """A Trainer's run with 8 checkpoints of which it keeps 5, and the output of a watch that looked after each.

    The watch is started anew twice: after the third checkpoint from what is on disk, and after the fifth as if it had
    been killed between the merges and their row.
    """
    root = tmp_path_factory.mktemp("watch")
    run, output = root / "run", root / "watched"
    run.mkdir()
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(["zero one two three four plus minus equals"] * 20, vocab_size=300)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer)
    tokenizer.add_special_tokens({"eos_token": "<|end|>", "pad_token": "<|end|>"})
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    rows = [{"input_ids": torch.randint(256, (16,)), "labels": torch.randint(256, (16,))} for _ in range(64)]
    recipes = [{"method": "sma", "n": 6}, {"method": "ema", "alpha": 0.2}]
    job = watch_job(run, output, recipes, suite="proxy", corpus=str(scored_corpus), keep=2, hold=True)

    class Look(TrainerCallback):
        watch = Watch(job)

        def on_save(self, args, state, control, **kwargs):
            if state.global_step == 8:
                self.watch = Watch(job)
            one_round(self.watch)
            if state.global_step == 10:
                metrics = output / "metrics.jsonl"
                metrics.write_text("".join(line + "\n" for line in metrics.read_text().splitlines()[:-1]))
                self.watch = Watch(job)

    arguments = TrainingArguments(
        str(run),
        max_steps=16,
        save_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_total_limit=5,
        logging_steps=100,
    )
    model = AutoModelForCausalLM.from_config(config)
    Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer, callbacks=[Look()]).train()
    return run, output
