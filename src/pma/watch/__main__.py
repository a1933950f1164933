"""Follow a live run and keep its merge up to date.

python -m pma.watch run_dir=DIR output=OUT 'recipes=[{method: sma, n: 10}]' suite=proxy corpus=DIR
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING, DictConfig

from pma import cli
from pma.config import TrackingConfig
from pma.merge.options import Part


@dataclass
class WatchRecipeConfig:
    """A merge kept up to date: of the last n checkpoints, or (ema without n) the running EMA over all of them."""

    method: str = MISSING
    n: int | None = None
    alpha: float | None = None


@dataclass
class WatchJob(Part):
    """Everything `python -m pma.watch` reads."""

    run_dir: str = MISSING  # folder that the trainer writes checkpoints into
    output: str = MISSING  # folder for merges, scores and records
    recipes: list[WatchRecipeConfig] = field(default_factory=lambda: [WatchRecipeConfig(method="sma", n=10)])
    suite: str | None = None  # proxy | instruct | paper; null: only merge
    text: str | None = None  # your own text to score on instead: JSON Lines, {"text": "..."} a document
    corpus: str | None = None  # folder with the items of proxy or instruct
    limit: int | None = None  # items a task
    assets: str | None = None  # folder with config and tokenizer, where checkpoints lack them
    dtype: str = "newest"  # storage type of merges: as in the newest checkpoint, or a type's name
    suspicious: str = "refuse"  # NaN, infinity, a snapshot far from the others: refuse | warn
    keep: int = 1  # newest merges of a recipe that stay on disk
    hold: bool = False  # hard-link the window's weights, for trainers that delete old checkpoints
    poll: float = 10.0  # seconds between looks
    idle: float | None = None  # end after so many seconds without a new checkpoint; null: never
    tokens_per_step: int = 1  # turns positions in steps into tokens; 1: positions stay what the names count
    anneal: float | None = None  # also estimate the score of a decay of this length, in tokens (or steps, as positions)
    anneals: str | None = None  # finished decays of yours, JSON Lines or CSV; null: those published with claim C18
    device: str = "cpu"  # the trainer may need the GPU
    threads: int = 1
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    group: str | None = None  # W&B group; null: the name of run_dir


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.watch`."""
    from pma.watch.follow import follow

    follow(job)


def command() -> None:
    """The console script."""
    cli.run(main, WatchJob, "watch", "command")


if __name__ == "__main__":
    command()
