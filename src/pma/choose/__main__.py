"""Find the best merge of a run: python -m pma.choose run_dir=DIR text=heldout.jsonl

Every number of checkpoints, distance and method that the folder allows is scored on one half of your documents. The
best of them is reported on the other half, beside the last checkpoint and the best single one. Instead of text:
suite=proxy corpus=DIR, or tasks=[hellaswag,arc_easy], which lm-eval knows by these names.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING, DictConfig

from pma import cli
from pma.merge.options import Part


@dataclass
class ChooseJob(Part):
    """Everything `python -m pma.choose` reads."""

    run_dir: str = MISSING  # folder that a trainer wrote its checkpoints into
    text: str | None = None  # held-out text: JSON Lines, {"text": "..."} a document
    suite: str | None = None  # proxy | instruct, instead of text
    corpus: str | None = None  # folder with the items of the suite
    tasks: list[str] = field(default_factory=list)  # names of lm-eval's tasks, instead of text
    include_path: str | None = None  # folder with definitions of tasks of your own
    metric: str | None = None  # of suite or tasks; null: bits_per_byte, acc_norm, acc or what the task has
    output: str = "choose"  # folder for the page, the heat map and the scores, which a second call goes on from
    end: int | None = None  # position of the newest checkpoint to use; null: the newest there is
    methods: list[str] = field(default_factory=lambda: ["sma", "wma", "1-sqrt"])  # sma | wma | linear | cosine | 1-sqrt
    longest: int = 40  # checkpoints in a merge at most
    singles: int = 10  # newest checkpoints that are scored by themselves
    limit: int | None = None  # documents, of a task each, for a quick look
    budget: float | None = None  # minutes; null: until all are scored
    assets: str | None = None  # folder with config and tokenizer, where checkpoints lack them
    suspicious: str = "refuse"  # NaN, infinity, a checkpoint far from the others: refuse | warn
    memory: int = 2_000_000_000  # bytes for merges in memory at once; more of them, fewer reads of the checkpoints
    device: str = "auto"  # auto | cpu | cuda
    threads: int = 0  # CPU threads; 0: the cores this job may use


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.choose`.

    Raises:
        ValueError: for a folder without checkpoints, text that cannot be scored, or impossible options; before any
            work.
    """
    from pma.choose.search import search

    search(job)


def command() -> None:
    """The console script."""
    cli.run(main, ChooseJob, "choose", "command")


if __name__ == "__main__":
    command()
