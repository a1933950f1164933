"""Train one run.

python -m pma.train run=moe_main seed=0
python -m pma.train -m run=moe_main seed=0,1
torchrun --nproc_per_node=2 -m pma.train run=moe_main scale=smoke
"""

from __future__ import annotations

from omegaconf import DictConfig

from pma import cli
from pma.config import TrainingJob
from pma.layout import trajectory
from pma.run import run_folder
from pma.words import print_next

_WINDOW = 10  # snapshots that the merge of the next line takes, where there are so many


def main(cfg: DictConfig) -> None:
    """Entry point of `python -m pma.train`."""
    from pma.train.loop import train
    from pma.train.world import is_first

    train(cfg)
    if is_first():
        print_next(next_step(cfg))


def next_step(cfg: DictConfig) -> str:
    """Return what you can do with the snapshots of a run: merge the newest, score the only one, or train on."""
    folder = run_folder(cfg)
    positions = trajectory(folder)
    if not positions:
        return "the same command with a larger stop, or without one: the run has not come to its first snapshot yet"
    *earlier, end = positions
    if not earlier:
        return f"python -m pma.evaluate model={positions[end]}"
    interval = cfg.scale.merge_interval
    if end - interval not in positions:
        interval = end - earlier[-1]
    n = 2
    while n < _WINDOW and end - n * interval in positions:
        n += 1
    return f"python -m pma.merge run_dir={folder} method=sma n={n} interval={interval} end={end} output={folder}/merged"


def command() -> None:
    """The console script."""
    cli.run(main, TrainingJob, "config")


if __name__ == "__main__":
    command()
