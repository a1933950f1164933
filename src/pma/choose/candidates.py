"""The merges that a run's checkpoints allow: numbers of checkpoints, distances and methods, the telling ones first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pma.layout import last
from pma.merge.weights import METHODS, method_weights

# Numbers of checkpoints that are tried; between neighbours the scores hardly differ.
_NUMBERS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200)
_DISTANCES = (1, 2, 3, 4, 6, 8, 12, 16)  # in checkpoints


@dataclass(frozen=True)
class Candidate:
    """One merge, or one checkpoint alone (method single, n 1).

    Attributes:
        window: positions, oldest first.
    """

    method: str
    n: int
    every: int
    window: tuple[int, ...]

    @property
    def weights(self) -> dict[int, float]:
        """Weight by position."""
        if self.method == "single":
            return {self.window[0]: 1.0}
        steps = {b - a for a, b in zip(self.window, self.window[1:], strict=False)}
        return dict(
            zip(
                self.window,
                method_weights(self.method, self.n, None, self.window if len(steps) > 1 else None),
                strict=True,
            )
        )

    def command(self, run_dir: str, end: int) -> str:
        """The command that makes this merge."""
        if self.method == "single":
            return f"python -m pma.merge run_dir={run_dir} last=1 end={self.window[0]} method=sma output=merged"
        every = f" every={self.every}" if self.every > 1 else ""
        return (
            f"python -m pma.merge run_dir={run_dir} last={self.n}{every} end={end} method={self.method} output=merged"
        )


def candidates(positions: Sequence[int], methods: Sequence[str], longest: int, singles: int) -> list[Candidate]:
    """Candidates over checkpoints at these positions, ascending, in the order in which they are scored.

    The newest checkpoints come first, one by one, then the windows of the first method from the widest spread of sizes
    to the finest, then the other methods.

    Raises:
        ValueError: for too few checkpoints, or a method that there is not.
    """
    for method in methods:
        if method == "ema" or method not in METHODS:
            fixed = ", ".join(name for name in METHODS if name != "ema")
            raise ValueError(f"methods={list(methods)}: {method} is none of {fixed}; give some of these")
    if not methods or longest < 2 or singles < 1:
        raise ValueError("methods, longest, singles: give at least one method, 2 checkpoints and 1 single")
    if len(positions) < 2:
        raise ValueError(f"{len(positions)} complete checkpoint: there is nothing to merge; give a run with 2 or more")
    alone = [Candidate("single", 1, 1, (at,)) for at in positions[::-1][:singles]]
    windows = [
        (n, every, tuple(last(positions, n, every)))
        for n, every in _pairs(min(longest, len(positions)))
        if (n - 1) * every < len(positions)
    ]
    # Of two checkpoints every weighted mean here is SMA or near it.
    return alone + [Candidate(m, n, e, w) for m in methods for n, e, w in windows if n > 2 or m == methods[0]]


def _pairs(longest: int) -> Iterator[tuple[int, int]]:
    """(n, every): every distance for numbers in coarse steps, then for those in between."""
    numbers = [n for n in _NUMBERS if n <= longest]
    for some in (numbers[1::2], numbers[::2]):
        for n in some:
            for every in _DISTANCES:
                yield n, every
