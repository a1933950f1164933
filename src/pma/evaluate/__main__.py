"""Score a model folder: python -m pma.evaluate model=DIR [suite=proxy|instruct|paper] [backend=hf|vllm] [corpus=DIR]

Of your own text, in bits per byte: python -m pma.evaluate model=DIR text=heldout.jsonl
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING, DictConfig

from pma import cli
from pma.config import TrackingConfig


@dataclass
class EvaluateJob:
    """Everything `python -m pma.evaluate` reads."""

    model: str = MISSING  # folder in Hugging Face layout
    suite: str = "proxy"  # proxy | instruct | paper
    text: str | None = None  # your own text instead of a suite: JSON Lines, {"text": "..."} a document
    corpus: str | None = None  # corpus folder with the items; null: the one the model was trained on
    limit: int | None = None  # items a task, for a quick look
    backend: str = "hf"  # hf: transformers, one device | vllm: on all GPUs of the machine, in bf16
    tensor_parallel_size: int | None = None  # of vllm: GPUs that share the model; null: all
    max_model_len: int | None = None  # of vllm, tokens; null: the model's own
    device: str = "auto"  # of hf: auto | cpu | cuda
    threads: int = 0  # CPU threads; 0: the cores this job may use. Does not change a score
    cache_dir: str = "data/scores"
    output: str | None = None  # JSON file to write the scores to
    tracking: TrackingConfig = field(default_factory=lambda: TrackingConfig(mode="off"))
    group: str | None = None  # W&B group


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.evaluate`.

    Raises:
        ValueError: for a folder that is no model, a suite without what it needs, or a device or backend that is not
            there.
    """
    from pma.evaluate.folder import evaluate

    evaluate(job)


def command() -> None:
    """The console script."""
    cli.run(main, EvaluateJob, "evaluate", "command")


if __name__ == "__main__":
    command()
