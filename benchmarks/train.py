"""Training throughput: our loop against transformers' Trainer, same model, data, batch, optimizer, threads and device.

    python benchmarks/train.py [--steps 60] [--rounds 3]

Both run in processes of their own, one after the other, in turns, so that a machine whose speed drifts hits both
alike; the ratio is taken pair by pair. The first 20 steps of each are not counted. Trainer runs fp32 with its fused
AdamW, the same clipping and the same number of (intra-op) threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from pma.config import CONF_DIR, register
from pma.device import cpu_threads

WARMUP_STEPS = 20
MODELS = {"moe": "moe_1.3b_13b", "dense": "dense_411m"}


def config(kind: str, steps: int, runs_dir: str) -> DictConfig:
    """A training job of `steps` steps at cpu scale, logged every ten."""
    register()
    tokens = steps * 4096
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose(
            "config",
            [
                f"model=cpu/{MODELS[kind]}",
                f"train.total_tokens={tokens}",
                f"train.snapshot_interval={tokens}",
                f"train.checkpoint_interval={tokens}",
                "schedule.warmup_tokens=0",
                "tracking=off",
                f"runs_dir={runs_dir}",
            ],
        )


def ours(cfg: DictConfig) -> float:
    """Tokens a second of pma.train, from its own metrics."""
    from pma.train.loop import train

    rows = [json.loads(line) for line in (train(cfg) / "metrics.jsonl").read_text().splitlines()]
    speeds = [row["tokens_per_second"] for row in rows if row["tokens"] > WARMUP_STEPS * cfg.scale.batch_tokens]
    return statistics.harmonic_mean(speeds)


def trainer(cfg: DictConfig) -> float:
    """Tokens a second of transformers' Trainer."""
    import torch
    from torch.utils.data import Dataset
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from pma.corpus import TokenDataset, prepare
    from pma.model.build import hf_config

    torch.set_num_threads(cpu_threads(0))
    torch.manual_seed(0)
    length, steps = cfg.scale.sequence_length, cfg.train.total_tokens // cfg.scale.batch_tokens
    batch = cfg.scale.batch_tokens // length
    tokens = TokenDataset(prepare(cfg.data, Path(cfg.data_dir)), 0, length, batch)

    class Sequences(Dataset):
        def __len__(self) -> int:
            return steps * batch

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            ids = torch.from_numpy(tokens.batch(index // batch)[0][index % batch])
            return {"input_ids": ids, "labels": ids}

    class Clock(TrainerCallback):
        times: list[float] = []

        def on_step_end(self, *args, **kwargs) -> None:
            self.times.append(time.perf_counter())

    arguments = TrainingArguments(
        output_dir=cfg.runs_dir,
        per_device_train_batch_size=batch,
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
        use_cpu=True,
        disable_tqdm=True,
    )
    model = AutoModelForCausalLM.from_config(hf_config(cfg.model, length), dtype=torch.float32)
    Trainer(model=model, args=arguments, train_dataset=Sequences(), callbacks=[Clock()]).train()
    counted = Clock.times[WARMUP_STEPS - 1 :]
    return (len(counted) - 1) * cfg.scale.batch_tokens / (counted[-1] - counted[0])


def main() -> None:
    """Run the comparison and print it as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a child process: side, kind
    options = parser.parse_args()
    if options.one:
        side, kind = options.one
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"ours": ours, "trainer": trainer}[side](config(kind, options.steps, folder))))
        return
    print(f"{'model':8}{'ours tokens/s':>16}{'Trainer tokens/s':>18}{'ratio (median)':>16}{'min':>7}{'max':>7}")
    for kind in MODELS:
        pairs = []
        for _ in range(options.rounds):
            speeds = []
            for side in ("ours", "trainer"):
                command = [sys.executable, __file__, "--steps", str(options.steps), "--one", side, kind]
                result = subprocess.run(command, capture_output=True, text=True, check=True)
                speeds.append(float(result.stdout.splitlines()[-1]))
            pairs.append(speeds)
        ratios = [mine / theirs for mine, theirs in pairs]
        mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        print(
            f"{kind:8}{mine:16,.0f}{theirs:18,.0f}{statistics.median(ratios):16.2f}{min(ratios):7.2f}{max(ratios):7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
