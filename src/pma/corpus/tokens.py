"""Batches from the tokens of a corpus, in an order that depends on (seed, step) only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pma.ahead import ahead
from pma.config import PARTS
from pma.corpus.mix import Mix
from pma.json_files import read_manifest

IGNORED = -100  # target of a position where nothing is learnt; torch's default ignore_index


class TokenDataset:
    """Batches of token sequences.

    Sequences are consecutive, non-overlapping windows of the part's tokens. Each epoch visits them in a new
    permutation. Part train of a corpus with data sets of the hub is a mix of these and of train.bin; see `Mix`.

    Args:
        corpus_dir: a corpus folder.
        seed: of the order; see `order_seed`.
        sequence_length: tokens.
        batch_sequences: sequences a batch.
        part: train, continued (the shifted mix of continued training) or instruct (fine-tuning, where only the
            completions are learnt).
        weights: `mixing_weights` of the data config; only a mix needs them.

    Attributes:
        tokens: tokens of the part.
        epoch_steps: batches an epoch; sequences left over are not used in that epoch. Of a mix, about the batches until
            the first component begins anew.

    Raises:
        ValueError: the corpus has no such part, or less than one batch of it, or impossible weights.
    """

    def __init__(
        self,
        corpus_dir: Path,
        seed: int,
        sequence_length: int,
        batch_sequences: int,
        part: str = "train",
        weights: Sequence[float | None] | None = None,
    ) -> None:
        if part not in PARTS:
            raise ValueError(f"train.part={part}: choose one of {', '.join(PARTS)}")
        manifest = read_manifest(corpus_dir, "dtype")
        dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
        self._seed, self._length, self._batch = seed, sequence_length, batch_sequences
        self._mix = None
        if part == "train" and "hub" in manifest:
            self._mix = self._open_mix(corpus_dir, manifest, dtype, weights)
            return
        path, mask = corpus_dir / f"{part}.bin", corpus_dir / f"{part}.mask.bin"
        if not path.is_file():
            raise ValueError(f"{corpus_dir} has no part {part}; set data.{part} and build the corpus")
        self._data = np.memmap(path, dtype=dtype, mode="r")
        self._learnt = np.memmap(mask, dtype=np.uint8, mode="r") if mask.is_file() else None
        self.tokens = len(self._data)
        self._windows = (self.tokens - 1) // sequence_length
        self.epoch_steps = self._windows // batch_sequences
        if self.epoch_steps < 1:
            raise ValueError(
                f"{path} holds {self.tokens} tokens, less than one batch of {batch_sequences} sequences of "
                f"{sequence_length} tokens; use a larger corpus, or lower scale.batch_tokens"
            )
        self._epoch = -1

    def _open_mix(
        self, corpus_dir: Path, manifest: dict[str, Any], dtype: np.dtype, weights: Sequence[float | None] | None
    ) -> Mix:
        files = [[(corpus_dir / s["file"], s["tokens"]) for s in source["shards"]] for source in manifest["hub"]]
        if weights is None or len(weights) != len(files) + 1:
            raise ValueError(f"{corpus_dir} is a mix: give a weight for train.bin and for each data set of the hub")
        own, *others = weights
        if "train" in manifest["parts"]:
            files = [[(corpus_dir / "train.bin", manifest["parts"]["train"]["tokens"])], *files]
            others = [own, *others]
        self.tokens = sum(tokens for component in files for _, tokens in component)
        mix = Mix(files, [weight for weight in others if weight is not None], dtype, self._seed, self._length)
        self.epoch_steps = mix.epoch_rows // self._batch
        return mix

    def batch(self, step: int, rows: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of a step, both int64 (batch_sequences, sequence_length), or of the slice `rows` of it.

        Targets are the next tokens, IGNORED where nothing is learnt.
        """
        if self._mix is not None:
            tokens = self._mix.read(np.arange(step * self._batch, (step + 1) * self._batch)[rows])
            return tokens[:, :-1], tokens[:, 1:]
        epoch, index = divmod(step, self.epoch_steps)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._windows)
            self._epoch = epoch
        starts = self._order[index * self._batch : (index + 1) * self._batch][rows] * self._length
        places = starts[:, None] + np.arange(self._length)
        targets = self._data[places + 1].astype(np.int64)
        if self._learnt is not None:
            targets[self._learnt[places + 1] == 0] = IGNORED
        return self._data[places].astype(np.int64), targets


def order_seed(seed: int, order: int | None) -> int:
    """The seed of a run's data order: the run's own, or with a number (train.data_order) another one of that run."""
    return seed if order is None else int(np.random.SeedSequence([seed, order]).generate_state(1)[0])


def batches(
    data: TokenDataset, steps: Iterable[int], device: torch.device, rows: slice = slice(None)
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets of the steps in turn, on the device, both int64 (rows, sequence_length).

    A thread reads the next step's meanwhile, into pinned memory for a GPU, which copies them without waiting.
    """

    def read(step: int) -> list[Tensor]:
        tensors = [torch.from_numpy(array) for array in data.batch(step, rows)]
        return [tensor.pin_memory() for tensor in tensors] if device.type == "cuda" else tensors

    for pair in ahead(read, steps):
        inputs, targets = (tensor.to(device, non_blocking=True) for tensor in pair)
        yield inputs, targets
