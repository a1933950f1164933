"""The largest sizes on another engine: python -m pma.engine run=moe_10b_100b scale=paper (pma.torchtitan)"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING, DictConfig

from pma import cli


@dataclass
class EngineJob:
    """Everything `python -m pma.engine` reads."""

    engine: str = "torchtitan"
    run: str = MISSING  # name in conf/run
    scale: str = "paper"
    seed: int = 0
    overrides: list[str] = field(default_factory=list)  # Hydra overrides for the training run
    tokenizer: str = "data/tokenizer"  # folder that AutoTokenizer and torchtitan read: tokenizer/ of the corpus
    convert: str | None = None  # checkpoint, or merge of some, to make a Hugging Face folder of; null: write the config
    output: str | None = None  # folder to make; null: runs/SCALE/RUN-seedN/torchtitan, or the snapshot of a step-N


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.engine`."""
    from pma.torchtitan.command import run

    run(job)


def command() -> None:
    """The console script."""
    cli.run(main, EngineJob, "engine", "command")


if __name__ == "__main__":
    command()
