"""The processes that train one run, behind one interface: `OneProcess` and `ManyProcesses` implement it.

The training loop does not ask how many processes there are: it asks its world for the rows to read, for the gradient
and for the files to write.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig
from torch import Tensor
from transformers import PreTrainedModel

from pma.train.state import TrainingState

Result = TypeVar("Result")
Weights = Mapping[str, Tensor]  # by name in a state dict


def process_count() -> int:
    """Return the number of processes of this run; torchrun sets it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this is the first process of the run, the only one that prints."""
    return os.environ.get("RANK", "0") == "0"


class World(ABC):
    """The processes of a run, seen from inside one of them.

    Attributes:
        device: that this process computes on.
        rank: number of this process, from 0. The first prints, and writes what the run has only once.
        size: number of processes.
        quiet: whether even the first process prints nothing.
    """

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1) -> None:
        self.device, self.rank, self.size, self.quiet = device, rank, size, False

    @property
    def first(self) -> bool:
        """Whether this process prints, and writes what the run has only once."""
        return self.rank == 0

    def print(self, text: str) -> None:
        """Print a line, in the first process only."""
        if self.first and not self.quiet:
            print(text, flush=True)

    def rows(self, sequences: int) -> slice:
        """Return which of the `sequences` of a batch this process reads."""
        share = sequences // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    @contextmanager
    def alone(self, run_dir: Path) -> Iterator[None]:
        """Keep other runs out of a run's folder.

        Raises:
            ValueError: when another process is training there.
        """
        if not self.first:
            yield
            return
        run_dir.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(run_dir / ".lock", timeout=0):
                yield
        except Timeout:
            raise ValueError(
                f"{run_dir}: another process is training this run; wait for it or give run_id=NAME"
            ) from None

    @abstractmethod
    def first_then_all(self, work: Callable[[], Result]) -> Result:
        """Do `work` in the first process, then in the others, which find on disk what the first has written."""

    @abstractmethod
    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true in any process."""

    @abstractmethod
    def place(self, cfg: DictConfig, model: PreTrainedModel) -> None:
        """Take the model to train, in place: replicate it over threads, or shard it over the processes.

        Call it before the optimizer is made: sharding replaces the parameters.
        """

    @abstractmethod
    def backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Add the gradient of the mean loss over the whole batch to `.grad` of the model's parameters.

        Args:
            inputs, targets: this process's `rows` of the batch, int64 (sequences, length). A target of -100 is not
                learnt; micro-batches count by their learnt targets.

        Returns:
            The mean cross-entropy over the learnt targets of the whole batch, detached; the same in all processes.
        """

    @abstractmethod
    def save_snapshot(self, folder: Path, weights: Weights, dtype: str, complete: Callable[[Path], None]) -> None:
        """Publish weights as they stand, in Hugging Face layout.

        Args:
            weights: the model's state dict, or others named and sharded like it.
            dtype: storage type, float32 or bfloat16.
            complete: writes tokenizer and manifest into the folder it is given, before that is published.
        """

    @abstractmethod
    def save_checkpoint(self, folder: Path, state: TrainingState, tokens: int, then: Callable[[], None]) -> None:
        """Write what changes in training, and the position `tokens`, in the background; after that call `then` once.

        It comes after the snapshots saved so far: a run that resumes from it does not make those again.
        """

    @abstractmethod
    def finish(self) -> None:
        """Wait for what is being written; an error of the writing is raised here."""
