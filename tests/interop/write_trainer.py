"""Checkpoints of a tiny model by the Trainer of transformers.

`write_trainer.py OUT` trains and writes OUT/checkpoint-N, and OUT/expected-N.pt beside; `write_trainer.py OUT MERGED`
trains on from MERGED, the checkpoint of a merge. Run in the environment that tests/interop/check.py makes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments

SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 8}


def trainer(out: Path, steps: int) -> Trainer:
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=16, num_key_value_heads=1, tie_word_embeddings=True, **SIZES))
    items = [{"input_ids": torch.arange(i, i + 8) % 16, "labels": torch.arange(i, i + 8) % 16} for i in range(64)]
    arguments = TrainingArguments(
        str(out), max_steps=steps, save_steps=10, warmup_steps=50, report_to=[], use_cpu=True, disable_tqdm=True
    )
    return Trainer(model, arguments, train_dataset=items)


def write(out: Path) -> None:
    trainer(out, 30).train()
    for step in (10, 20, 30):
        torch.save(load_file(out / f"checkpoint-{step}" / "model.safetensors"), out / f"expected-{step}.pt")


def resume(merged: Path) -> None:
    again = trainer(merged.parent, 31)
    again.train(resume_from_checkpoint=str(merged))
    assert again.state.global_step == 31
    assert again.lr_scheduler.last_epoch == 31
    assert {float(state["step"]) for state in again.optimizer.state.values()} == {31.0}


if __name__ == "__main__":
    write(Path(sys.argv[1])) if len(sys.argv) == 2 else resume(Path(sys.argv[2]))
