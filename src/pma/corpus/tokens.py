"""Training batches from the memory-mapped tokens of a corpus, in an order that depends on (seed, step) only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


class TokenDataset:
    """Batches of token sequences.

    Sequences are consecutive, non-overlapping windows of train.bin. Each epoch visits them in a new permutation.

    Args:
        corpus_dir: a corpus folder.
        seed: of the order.
        sequence_length: tokens.
        batch_sequences: sequences a batch.

    Attributes:
        tokens: tokens of the training split.
        epoch_steps: batches an epoch; sequences left over are not used in that epoch.

    Raises:
        ValueError: the corpus holds less than one batch.
    """

    def __init__(self, corpus_dir: Path, seed: int, sequence_length: int, batch_sequences: int) -> None:
        dtype = json.loads((corpus_dir / "manifest.json").read_text())["dtype"]
        self._data = np.memmap(corpus_dir / "train.bin", dtype=np.dtype(dtype).newbyteorder("<"), mode="r")
        self._seed, self._length, self._batch = seed, sequence_length, batch_sequences
        self.tokens = len(self._data)
        self._windows = (self.tokens - 1) // sequence_length
        self.epoch_steps = self._windows // batch_sequences
        if self.epoch_steps < 1:
            raise ValueError(
                f"{corpus_dir} holds {self.tokens} tokens, less than one batch of {batch_sequences} sequences of "
                f"{sequence_length} tokens; use a larger corpus, or lower scale.batch_tokens"
            )
        self._epoch = -1

    def batch(self, step: int) -> np.ndarray:
        """Batch of a step: int64, (batch_sequences, sequence_length + 1); the last column is the next token."""
        epoch, index = divmod(step, self.epoch_steps)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._windows)
            self._epoch = epoch
        starts = self._order[index * self._batch : (index + 1) * self._batch] * self._length
        return self._data[starts[:, None] + np.arange(self._length + 1)].astype(np.int64)
