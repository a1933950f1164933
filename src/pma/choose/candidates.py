"""The merges that a run's checkpoints allow: numbers of checkpoints, distances and methods, the telling ones first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pma.layout import gaps, last
from pma.merge.weights import METHODS, SHAPES, method_weights

# Where all windows are more than _ALL, these numbers and distances, in checkpoints, are tried: between neighbours the
# scores hardly differ.
_ALL = 100
_NUMBERS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300, 400)
_DISTANCES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Candidate:
    """One merge, or one checkpoint alone (method single, n 1).

    Attributes:
        every: distance between its checkpoints: 2 takes every second one of the run.
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
        even = len({b - a for a, b in zip(self.window, self.window[1:], strict=False)}) <= 1
        where = None if even or self.method not in SHAPES else self.window
        return dict(zip(self.window, method_weights(self.method, self.n, None, where), strict=True))

    def command(self, run_dir: str) -> str:
        """The command that makes this merge."""
        method, every = "sma" if self.method == "single" else self.method, f" every={self.every}"
        return (
            f"python -m pma.merge run_dir={run_dir} last={self.n}{every if self.every > 1 else ''} "
            f"end={self.window[-1]} method={method} output=merged"
        )


def candidates(
    positions: Sequence[int], methods: Sequence[str], longest: int, singles: int
) -> tuple[list[Candidate], int]:
    """Candidates over checkpoints at these positions, ascending, in the order in which they are scored.

    The newest checkpoints come first, one by one, then the windows of the first method from the widest spread of sizes
    to the finest, then the other methods. A window across a gap is left out: its checkpoints would not stand evenly.

    Returns:
        The candidates, and how many windows were left out.

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
    all_windows = [(n, every, tuple(last(positions, n, every))) for n, every in _sizes(len(positions), longest)]
    holes = gaps(positions)
    windows = [(n, every, w) for n, every, w in all_windows if not gaps(w) and not any(w[0] <= a for a, _ in holes)]
    if not windows:
        before, after = holes[-1]
        raise ValueError(
            f"no checkpoints stand evenly up to {positions[-1]:,}: a gap lies between {before:,} and {after:,}; "
            f"end={before} searches before it"
        )
    alone = [Candidate("single", 1, 1, (at,)) for at in positions[::-1][:singles]]
    # Of two checkpoints every weighted mean here is SMA or near it.
    merges = [Candidate(m, n, e, w) for m in dict.fromkeys(methods) for n, e, w in windows if n > 2 or m == methods[0]]
    return alone + merges, len(all_windows) - len(windows)


def _sizes(there: int, longest: int) -> Iterator[tuple[int, int]]:
    """(n, every) of all windows that fit, or of a grid where they are many: a coarse part of them first."""

    def fitting(numbers: Sequence[int], distances: Sequence[int]) -> list[tuple[int, int]]:
        return [(n, e) for e in distances for n in numbers if n <= longest and (n - 1) * e < there]

    numbers, distances = list(range(2, there + 1)), list(range(1, there))
    if len(fitting(numbers, distances)) > _ALL:
        numbers, distances = list(_NUMBERS), list(_DISTANCES)
    coarse = fitting(numbers[1::2], distances[::2])
    yield from coarse
    for size in fitting(numbers, distances):
        if size not in coarse:
            yield size
