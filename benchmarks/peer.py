"""The peer of our training loop: transformers' Trainer on the same model, text, batch, optimizer and clipping."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from pma.corpus import TokenDataset, prepare
from pma.model.build import hf_config


class _Sequences(Dataset):
    """Token ids of all steps, in memory: reading them costs Trainer nothing."""

    def __init__(self, ids: torch.Tensor) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self._ids[index], "labels": self._ids[index]}


class _Clock(TrainerCallback):
    """The time at the end of some steps, after the device has done its work."""

    def __init__(self, steps: tuple[int, ...]) -> None:
        self._steps = steps
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self._steps:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())


def trainer_speed(cfg: DictConfig, uncounted: int, micro_batches: int, bf16: bool, compiled: bool = False) -> float:
    """Train the whole of a training job with Trainer and its fused AdamW; return tokens a second.

    Args:
        uncounted: steps at the start that are not timed.
        micro_batches: parts of a batch, one after the other.
        bf16: mixed precision, else fp32.
        compiled: by torch.compile.
    """
    torch.manual_seed(0)
    length, steps = cfg.scale.sequence_length, cfg.train.total_tokens // cfg.scale.batch_tokens
    batch = cfg.scale.batch_tokens // length
    tokens = TokenDataset(prepare(cfg.data, Path(cfg.data_dir)), 0, length, batch)
    ids = torch.cat([torch.from_numpy(tokens.batch(step)[0]) for step in range(steps)])
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(Path(cfg.runs_dir) / "trainer"),
        per_device_train_batch_size=batch // micro_batches,
        gradient_accumulation_steps=micro_batches,
        max_steps=steps,
        learning_rate=cfg.schedule.peak_lr,
        weight_decay=cfg.train.weight_decay,
        max_grad_norm=cfg.train.clip_norm,
        adam_beta2=cfg.train.beta2,
        optim="adamw_torch_fused",
        lr_scheduler_type="constant",
        logging_steps=cfg.train.log_interval,
        save_strategy="no",
        report_to=[],
        bf16=bf16,
        torch_compile=compiled,
        dataloader_num_workers=4 if on_gpu else 0,
        use_cpu=not on_gpu,
        disable_tqdm=True,
    )
    model = AutoModelForCausalLM.from_config(hf_config(cfg.model, length), dtype=torch.float32)
    clock = _Clock((uncounted, steps))
    Trainer(model=model, args=arguments, train_dataset=_Sequences(ids), callbacks=[clock]).train()
    first, last = clock.times
    return (steps - uncounted) * cfg.scale.batch_tokens / (last - first)
