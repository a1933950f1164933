"""A merge that is kept up to date while training goes on: over a sliding window, or as a running mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from pma.files import remove_folder
from pma.merge import Merge, Options, Policy, merge_all, method_weights
from pma.merge.options import Part, select
from pma.merge.weights import SHAPES


@dataclass(frozen=True)
class KeptMerge:
    """A sliding window of the last n checkpoints, or (ema with n null) the running EMA over all of them.

    A running EMA is exact though only its last value and the newest checkpoint are read:
    mean_i = alpha * checkpoint_i + (1 - alpha) * mean_{i-1}. So it needs the checkpoints in their order, each once.

    Attributes:
        method: sma | wma | ema | linear | cosine | 1-sqrt, as of `pma.merge`.
        n: checkpoints in the window; None: the running EMA.
        alpha: of ema, in (0, 1].

    Raises:
        ValueError: for a method, n or alpha that `pma.merge` does not have.
    """

    method: str
    n: int | None
    alpha: float | None

    def __post_init__(self) -> None:
        if self.n is None and self.method != "ema":
            raise ValueError(f"recipes: {self.method} needs n; only ema runs without a window")
        if self.n is not None and self.n < 1:
            raise ValueError(f"recipes: n={self.n}: give at least 1 checkpoint")
        method_weights(self.method, 2, self.alpha)  # not n: a window of a billion is filled as far as it goes

    @property
    def name(self) -> str:
        """As in folders and records: sma_10, ema_0.2."""
        return "_".join(str(part) for part in (self.method, self.alpha, self.n) if part is not None)

    @property
    def running(self) -> bool:
        """Whether this is the running EMA."""
        return self.n is None

    def window(self, position: int, available: Sequence[int]) -> list[int]:
        """Positions that the merge at `position` reads, of those `available` (ascending); the running EMA reads one."""
        return [at for at in available if at <= position][-(self.n or 1) :]

    def passed(self, position: int, folder: Path) -> bool:
        """Whether the running EMA in `folder` holds a later checkpoint already: this one cannot be put in before it."""
        return self.running and any(at > position for at in merged(folder))

    def update(
        self, position: int, checkpoints: Mapping[int, Path], folder: Path, options: Options, policy: Policy
    ) -> tuple[Path, int]:
        """Make the merge at `position` in FOLDER/POSITION, unless it is there.

        Args:
            checkpoints: by position, ascending; the one at `position` is among them.
            folder: where the merges of this recipe lie.
            options, policy: of `pma.merge`. A running EMA is stored in fp32 whatever the options say: it would be
                rounded again at every checkpoint.

        Returns:
            The folder, and the number of folders that were averaged.

        Raises:
            ValueError: for checkpoints that cannot be averaged or that the policy refuses.
        """
        target = folder / f"{position:012d}"
        window = self.window(position, list(checkpoints))
        sources = [checkpoints[at] for at in window]
        parts = [select(Part, options)] * len(window)
        if self.running:
            before = [path for at, path in merged(folder).items() if at < position][-1:]
            # The merge before has only the model in it: prefix, state and key speak of the trainer's checkpoint.
            sources, parts = before + sources, [Part()] * len(before) + parts
            options = replace(options, dtype="float32")
        if not target.exists():  # it is there when a kill came between the merge and its row
            uneven = self.method in SHAPES and len({b - a for a, b in pairwise(window)}) > 1
            weights = method_weights(self.method, len(sources), self.alpha, window if uneven else None)
            recipe: dict[str, Any] = {"method": self.method, "alpha": self.alpha, "n": self.n, "end": position}
            merge_all(sources, [Merge(tuple(weights), target, recipe)], options, policy, parts)
        return target, len(sources)

    def prune(self, folder: Path, keep: int) -> None:
        """Remove all but the newest `keep` merges; a running EMA goes on from its newest, which stays."""
        merges = list(merged(folder).values())
        for path in merges[: max(0, len(merges) - max(keep, int(self.running)))]:
            remove_folder(path)


def merged(folder: Path) -> dict[int, Path]:
    """Merges of one recipe by position, ascending."""
    return {int(path.name): path for path in sorted(folder.glob("*")) if path.name.isdigit()}
