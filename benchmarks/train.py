"""Training throughput: our loop against transformers' Trainer, same model, data, batch, optimizer, threads and device.

    python benchmarks/train.py [--steps 60] [--rounds 3]

Each runs in a process of its own, in turns, so that a machine whose speed drifts hits both alike; the ratio is taken
pair by pair. The first 20 steps of each are not counted. Trainer runs fp32 with its fused
AdamW, the same clipping and the same number of (intra-op) threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from pma.config import CONF_DIR, register
from pma.device import cpu_threads

WARMUP_STEPS = 20
MODELS = {"moe": "moe_1.3b_13b", "dense": "dense_411m"}


def config(kind: str, steps: int, runs_dir: str) -> DictConfig:
    """A training job of `steps` steps at cpu scale, logged every six."""
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
    """Tokens a second of transformers' Trainer, with as many intra-op threads as ours has threads."""
    import torch
    from peer import trainer_speed

    torch.set_num_threads(cpu_threads(0))
    return trainer_speed(cfg, WARMUP_STEPS, micro_batches=1, bf16=False)


def main() -> None:
    """Run the comparison and print it as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="a multiple of 6, above 20")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)  # side, kind
    options = parser.parse_args()
    if options.child:
        side, kind = options.child
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"ours": ours, "trainer": trainer}[side](config(kind, options.steps, folder))))
        return
    print(f"{'model':8}{'ours tokens/s':>16}{'Trainer tokens/s':>18}{'ratio (median)':>16}{'min':>7}{'max':>7}")
    for kind in MODELS:
        pairs = []
        for _ in range(options.rounds):
            speeds = []
            for side in ("ours", "trainer"):
                command = [sys.executable, __file__, "--steps", str(options.steps), "--child", side, kind]
                result = subprocess.run(command, capture_output=True, text=True, check=True)
                speeds.append(float(result.stdout.splitlines()[-1]))
            pairs.append(speeds)
        ratios = [our_speed / peer_speed for our_speed, peer_speed in pairs]
        our_median, peer_median = (statistics.median(side) for side in zip(*pairs, strict=True))
        print(
            f"{kind:8}{our_median:16,.0f}{peer_median:18,.0f}{statistics.median(ratios):16.2f}{min(ratios):7.2f}"
            f"{max(ratios):7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
