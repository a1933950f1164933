"""Train one run.

python -m pma.train run=moe_main seed=0
python -m pma.train -m run=moe_main seed=0,1
torchrun --nproc_per_node=2 -m pma.train run=moe_main scale=smoke      (pma.train.distributed)
"""

from __future__ import annotations

from omegaconf import DictConfig

from pma import cli
from pma.config import TrainingJob


def main(cfg: DictConfig) -> None:
    """Entry point of `python -m pma.train`."""
    from pma.layout import snapshots
    from pma.run import run_folder
    from pma.train.distributed import speaks
    from pma.train.loop import train

    train(cfg)
    if not speaks():
        return
    last = max(snapshots(folder := run_folder(cfg)))
    window = f"n=10 interval={cfg.scale.merge_interval} end={last}"
    print(f"next: python -m pma.merge run_dir={folder} method=sma {window} output={folder}/merged", flush=True)


def command() -> None:
    """The console script."""
    cli.run(main, TrainingJob, "config")


if __name__ == "__main__":
    command()
