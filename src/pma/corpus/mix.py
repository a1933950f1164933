"""Mix components by weights: which window of which component a row of training is, computed without any state."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from pma.config import DataConfig

ROUND = 10_000  # rows; within so many the shares of a mix are exact to one row


def mixing_weights(data: DataConfig | DictConfig) -> list[float | None] | None:
    """Weights of train.bin and of each data set of the hub; None where there are no such data sets."""
    return [data.weight, *(hub.weight for hub in data.hub)] if data.hub else None


def round_counts(weights: Sequence[float]) -> np.ndarray:
    """Rows of each component in a round, int64: `weights` in whole rows, by largest remainder (Hamilton's method).

    Raises:
        ValueError: a weight is not above 0, or too small for a row in a round.
    """
    for weight in weights:
        if not (weight > 0 and math.isfinite(weight)):
            raise ValueError(f"data: the weights of its sources are {list(weights)}: give numbers above 0")
    quotas = np.array(weights) / sum(weights) * ROUND
    counts = np.floor(quotas).astype(np.int64)
    counts[np.argsort(counts - quotas, kind="stable")[: ROUND - counts.sum()]] += 1
    if not counts.all():
        raise ValueError(
            f"data: the weights of its sources are {list(weights)}: give each at least {1 / ROUND:g} of their sum"
        )
    return counts


def permuted(indices: np.ndarray, size: int, *key: object) -> np.ndarray:
    """Where the permutation of range(size) that `key` names takes `indices`, int64, without any table.

    A balanced Feistel network on the smallest even number of bits that holds `size`, repeated until the result is below
    `size` (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002): four times at most on average.
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))  # bits
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=64).digest()
    keys = np.frombuffer(digest, "<u8")  # of eight rounds; six are hard to tell from chance (Patarin, CRYPTO 2004)
    places = _feistel(indices.astype(np.uint64), half, keys)
    while (outside := places >= size).any():
        places[outside] = _feistel(places[outside], half, keys)
    return places.astype(np.int64)


def _feistel(values: np.ndarray, half: np.uint64, keys: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)  # uint64 arithmetic wraps around
    return left << half | right


def _mixed(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014)."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


class Mix:
    """Rows of training from several components, each of one or more files of tokens.

    Rows are dealt out in rounds of `ROUND`, in each the components' numbers of `round_counts` in an order of its own. A
    component's rows visit all its windows, which never cross files, in a new permutation each epoch.

    Args:
        components: of each its files and their tokens.
        weights: of the components.
        dtype: of the files.
        seed: of the order.
        length: tokens of a row, without the one more that is the last target.

    Attributes:
        epoch_rows: rows after which, about, the first component begins anew.

    Raises:
        ValueError: impossible weights, or a component without a window.
    """

    def __init__(
        self,
        components: Sequence[Sequence[tuple[Path, int]]],
        weights: Sequence[float],
        dtype: np.dtype,
        seed: int,
        length: int,
    ) -> None:
        self._counts = round_counts(weights)
        self._labels = np.repeat(np.arange(len(components)), self._counts)
        self._files = [[path for path, _ in files] for files in components]
        windows = [[max(0, tokens - 1) // length for _, tokens in files] for files in components]
        self._ends = [np.cumsum(counts, dtype=np.int64) for counts in windows]
        self._dtype, self._seed, self._length = dtype, seed, length
        sizes = [int(ends[-1]) for ends in self._ends]
        for files, size in zip(self._files, sizes, strict=True):
            if size == 0:
                raise ValueError(
                    f"{files[0].parent} holds no window of {length + 1} tokens; raise max_bytes of its source, or "
                    "lower scale.sequence_length"
                )
        self.epoch_rows = min(size * ROUND // int(count) for size, count in zip(sizes, self._counts, strict=True))

    def dealt(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Component of each of the `rows` (numbered from the beginning of training), and its number in it, int64."""
        components, numbers = np.empty_like(rows), np.empty_like(rows)
        for number in np.unique(rows // ROUND):
            order = self._labels[permuted(np.arange(ROUND), ROUND, self._seed, "round", number)]
            before = np.empty(ROUND, np.int64)  # rows of the same component that stand earlier in the round
            for component, count in enumerate(self._counts):
                before[order == component] = np.arange(count)
            here = rows // ROUND == number
            places = rows[here] % ROUND
            components[here] = order[places]
            numbers[here] = number * self._counts[order[places]] + before[places]
        return components, numbers

    def windows(self, component: int, numbers: np.ndarray) -> np.ndarray:
        """The window that each of the `numbers`-th rows of a component is, int64."""
        size = int(self._ends[component][-1])
        windows = np.empty_like(numbers)
        for epoch in np.unique(numbers // size):
            here = numbers // size == epoch
            windows[here] = permuted(numbers[here] % size, size, self._seed, component, epoch)
        return windows

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of the rows, int64 (rows, length + 1)."""
        tokens = np.empty((len(rows), self._length + 1), np.int64)
        components, numbers = self.dealt(rows)
        for component in np.unique(components):
            here = np.flatnonzero(components == component)
            ends = self._ends[component]
            for row, window in zip(here, self.windows(component, numbers[here]), strict=True):
                file = int(np.searchsorted(ends, window, "right"))
                start = int(window - (ends[file - 1] if file else 0)) * self._length
                # Opened anew: thousands of mapped files would be as many open ones.
                tokens[row] = np.fromfile(
                    self._files[component][file], self._dtype, self._length + 1, offset=start * self._dtype.itemsize
                )
        return tokens
