"""Bits per byte on two halves of the documents: one half chooses, the other says what was gained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

FEWEST = 10  # documents
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Halves:
    """The documents of a text by their sizes in bytes; every second one is for choosing.

    Args:
        sizes: bytes of each document.

    Raises:
        ValueError: for fewer than 10 documents.
    """

    sizes: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.sizes) < FEWEST:
            raise ValueError(
                f"text: {len(self.sizes)} documents; give at least {FEWEST}, for half of them choose and half report"
            )

    def choosing(self, bits: Sequence[float]) -> float:
        """Bits per byte of the half that chooses, from the bits of every document."""
        return sum(bits[::2]) / sum(self.sizes[::2])

    def reporting(self, bits: Sequence[float]) -> float:
        """Bits per byte of the other half."""
        return sum(bits[1::2]) / sum(self.sizes[1::2])

    def gain(self, bits: Sequence[float], over: Sequence[float]) -> tuple[float, float]:
        """Bits per byte that the first saves over the second on the reporting half, and half its 95 % interval.

        The two are compared document by document (ratio estimator, Cochran, Sampling Techniques, 6.4).
        """
        sizes = self.sizes[1::2]
        saved = [b - a for a, b in zip(bits[1::2], over[1::2], strict=True)]
        gain, n = sum(saved) / sum(sizes), len(sizes)
        squares = sum((d - gain * size) ** 2 for d, size in zip(saved, sizes, strict=True))
        return gain, _Z * math.sqrt(n / (n - 1) * squares) / sum(sizes)
