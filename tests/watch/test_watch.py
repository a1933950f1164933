"""The monitor beside a real Hugging Face Trainer: every checkpoint merged once, scored, and kept as told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed import checkpoint

from pma.config import CONF_DIR
from pma.merge import average, ema, sma
from pma.watch.follow import complete, positions

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CONF_DIR.parent / "src"), "OMP_NUM_THREADS": "1"}

TRAINER = """
import sys, time, torch
from transformers import (AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Trainer, TrainerCallback,
                          TrainingArguments)
from tokenizers import ByteLevelBPETokenizer

trained = ByteLevelBPETokenizer()
trained.train_from_iterator(["zero one two three four plus minus equals"] * 20, vocab_size=300)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|end|>")
tokenizer.add_special_tokens({"eos_token": "<|end|>", "pad_token": "<|end|>"})
torch.manual_seed(0)
config = Qwen3Config(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                     num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=256,
                     tie_word_embeddings=True)
model = AutoModelForCausalLM.from_config(config)
rows = [{"input_ids": torch.randint(256, (16,)), "labels": torch.randint(256, (16,))} for _ in range(64)]

class Slow(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        time.sleep(float(sys.argv[2]))

args = TrainingArguments(sys.argv[1], max_steps=16, save_steps=2, per_device_train_batch_size=2, learning_rate=1e-2,
                         lr_scheduler_type="constant", report_to=[], use_cpu=True, disable_tqdm=True,
                         save_total_limit=5, logging_steps=100)
Trainer(model, args, train_dataset=rows, processing_class=tokenizer, callbacks=[Slow()]).train()
"""


def make_corpus(folder: Path) -> Path:
    """Three items an axis and some held-out text."""
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


def rows_of(output: Path) -> list[dict]:
    path = output / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> tuple[Path, Path]:
    """A Trainer's run, and the output of a watch beside it that was killed once and started again."""
    root = tmp_path_factory.mktemp("watch")
    run, output, corpus = root / "run", root / "watched", make_corpus(root / "corpus")
    run.mkdir()
    (root / "trainer.py").write_text(TRAINER)
    recipes = "recipes=[{method: sma, n: 6}, {method: ema, alpha: 0.2}]"
    command = [sys.executable, "-m", "pma.watch", f"run_dir={run}", f"output={output}", recipes, "suite=proxy"]
    command += [f"corpus={corpus}", "poll=0.2", "keep=2", "hold=true", "tracking.mode=off"]
    log = (root / "log").open("w")

    def start(*more: str) -> subprocess.Popen:
        return subprocess.Popen([*command, *more], env=ENVIRONMENT, stdout=log, stderr=log)

    trainer = subprocess.Popen([sys.executable, root / "trainer.py", run, "2"], env=ENVIRONMENT, stdout=log, stderr=log)
    first = start()
    deadline = time.time() + 120
    while len(rows_of(output)) < 3 and time.time() < deadline and trainer.poll() is None:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = start("idle=8")
    assert trainer.wait(180) == 0, (root / "log").read_text()[-3000:]
    assert second.wait(120) == 0, (root / "log").read_text()[-3000:]
    return run, output


def test_every_checkpoint_is_merged_and_scored_once(watched):
    rows = rows_of(watched[1])
    assert [row["position"] for row in rows] == [2, 4, 6, 8, 10, 12, 14, 16]
    for row in rows:
        gain = row["sma_6/average/bits_per_byte"] - row["raw/average/bits_per_byte"]
        assert row["sma_6/gain/average/bits_per_byte"] == pytest.approx(gain)
    table = pd.read_csv(watched[1] / "records.csv")
    assert set(table["method"]) == {"last", "sma_6", "ema_0.2"}
    assert table.groupby("tokens").size().nunique() == 1 and table["tokens"].nunique() == 8
    assert table[table["method"] == "sma_6"].groupby("tokens")["n"].first().tolist() == [1, 2, 3, 4, 5, 6, 6, 6]


def test_merges_are_those_of_the_checkpoints_even_of_deleted_ones(watched):
    run, output = watched
    assert sorted(int(path.name.split("-")[1]) for path in run.glob("checkpoint-*")) == [8, 10, 12, 14, 16]
    held = [output / "held" / str(at) for at in (6, 8, 10, 12, 14, 16)]
    assert sorted(path.name for path in (output / "held").iterdir()) == ["10", "12", "14", "16", "6", "8"]
    merged = load_file(output / "merged" / "sma_6" / f"{16:012d}" / "model.safetensors")
    expected = average(held, sma(6))
    assert all(torch.equal(merged[name], tensor) for name, tensor in expected.items())
    assert [int(path.name) for path in sorted((output / "merged" / "sma_6").iterdir())] == [14, 16]


def test_the_running_ema_is_the_recursion_over_all_checkpoints(watched):
    output = watched[1]
    before, now = (output / "merged" / "ema_0.2" / f"{at:012d}" for at in (14, 16))
    expected = average([before, output / "held" / "16"], ema(2, 0.2))
    merged = load_file(now / "model.safetensors")
    assert all(torch.equal(merged[name], tensor) for name, tensor in expected.items())
    assert len(json.loads((now / "manifest.json").read_text())["sources"]) == 2


def test_a_checkpoint_is_taken_when_its_trainer_has_written_all_of_it(tmp_path):
    trainer = tmp_path / "checkpoint-10"
    trainer.mkdir()
    save_file({"w": torch.ones(3)}, trainer / "model.safetensors")
    assert not complete(trainer)
    (trainer / "trainer_state.json").write_text('{"global_')
    assert not complete(trainer)
    (trainer / "trainer_state.json").write_text('{"global_step": 10}')
    assert complete(trainer)
    titan = tmp_path / "step-9"
    checkpoint.save({"w": torch.ones(3)}, checkpoint_id=titan, no_dist=True)
    assert complete(titan)
    (titan / ".metadata").unlink()
    assert not complete(titan)
    (tmp_path / "step-100").mkdir()
    assert list(positions(tmp_path)) == [9, 10, 100]
    assert list(positions(tmp_path / "nothing")) == []
