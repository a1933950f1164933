"""The complete checkpoints of a run, of any trainer, and windows over them by number or by position."""

from __future__ import annotations

import json
import re
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pma.json_files import MANIFEST
from pma.layout import gaps, last, position_of, positions, trajectory, window
from pma.merge.formats import dcp_home, open_source

_QUIET = 10.0  # seconds without a change, for trainers that do not mark a checkpoint as finished


def complete(checkpoint: Path) -> bool:
    """Whether the trainer has written all of a checkpoint.

    Our folders appear whole. A torch distributed checkpoint gets its .metadata last, wherever its writer puts it; a
    checkpoint of the Hugging Face Trainer its trainer_state.json. Of any other the weight files must be as long as
    their headers promise, and nothing may have changed for 10 seconds.
    """
    if (checkpoint / MANIFEST).is_file() or dcp_home(checkpoint) is not None:
        return True
    state = checkpoint / "trainer_state.json"
    if state.is_file():
        try:
            json.loads(state.read_text(encoding="utf-8"))
        except ValueError:
            return False
        return _opens(checkpoint)
    files = [checkpoint] if checkpoint.is_file() else checkpoint.glob("*")
    newest = max((path.stat().st_mtime for path in files), default=time.time())
    # Either way: the clock of the host that writes may run hours ahead of ours, and its files come from the future.
    return abs(time.time() - newest) > _QUIET and _opens(checkpoint)


def _opens(checkpoint: Path) -> bool:
    if checkpoint.is_file() and checkpoint.suffix != ".safetensors":
        return zipfile.is_zipfile(checkpoint)  # torch.save's format, whose table of contents is written last
    try:
        open_source(checkpoint, prefix="").close()
    except PermissionError:  # waiting does not help
        raise
    except (ValueError, OSError):
        return False
    return True


@dataclass(frozen=True)
class Span:
    """Which checkpoints of a run a merge takes.

    Attributes:
        last: so many, up to `end`; None: all.
        every: 2 takes every second one; it goes without interval.
        interval: exact distance between two of them; a checkpoint that is missing is refused. None: as they lie.
        end: position of the newest; None: the newest there is.
    """

    last: int | None = None
    every: int = 1
    interval: int | None = None
    end: int | None = None

    def take(self, available: Sequence[int]) -> list[int]:
        """Positions of the window, oldest first, of those available.

        Raises:
            ValueError: when the window cannot be filled.
        """
        if self.interval is None:
            return last(available, self.last, self.every, self.end)
        if self.every != 1 or self.last is None:
            raise ValueError(f"interval={self.interval}: goes with last=N (or n=N), the checkpoints, and without every")
        return window(available, self.last, self.interval, max(available) if self.end is None else self.end)


class RunCheckpoints:
    """The complete checkpoints of a run, of any trainer.

    Args:
        run_dir: the folder that the trainer writes into.
        tokens_per_step: turns the steps in names into tokens; 1: positions are what the names say.

    Attributes:
        checkpoints: by position, ascending; of a run of ours also those of the run it was forked off.
        incomplete: those that the trainer has not written completely, by position; they are left out.

    Raises:
        ValueError: when there are none.
    """

    def __init__(self, run_dir: str | Path, tokens_per_step: int = 1) -> None:
        self.run_dir = Path(run_dir)
        found = trajectory(self.run_dir) or positions(self.run_dir)
        if not found:
            raise ValueError(_nothing(self.run_dir))
        if tokens_per_step < 1:
            raise ValueError(f"tokens_per_step={tokens_per_step}: give a number of at least 1")
        if tokens_per_step > 1 and any(path.name.startswith("tokens") for path in found.values()):
            raise ValueError(
                f"tokens_per_step={tokens_per_step}: the names in {run_dir} count tokens already; leave it"
            )
        scaled = {at * tokens_per_step: path for at, path in found.items()}
        self.checkpoints = {at: path for at, path in scaled.items() if complete(path)}
        self.incomplete = {at: path for at, path in scaled.items() if at not in self.checkpoints}
        if not self.checkpoints:
            names = ", ".join(path.name for path in self.incomplete.values())
            raise ValueError(f"{run_dir}: no checkpoint is written completely yet ({names}); wait for the trainer")

    def window(self, span: Span) -> list[int]:
        """Positions of a window, oldest first.

        Raises:
            ValueError: when it cannot be filled.
        """
        try:
            return span.take(list(self.checkpoints))
        except ValueError as error:
            left_out = ", ".join(path.name for path in self.incomplete.values())
            more = f"; left out, for they are not written completely: {left_out}" if left_out else ""
            raise ValueError(f"{self.run_dir}: {error}{more}") from None

    def left_out(self, taken: Sequence[int]) -> list[str]:
        """A line for each checkpoint that the trainer has not written completely, from the oldest taken on."""
        return [
            f"{path.name}: left out, for it is not written completely"
            for at, path in self.incomplete.items()
            if at > taken[0]
        ]

    def warnings(self, taken: Sequence[int]) -> list[str]:
        """What a user should know of a window: checkpoints left out of it, and gaps in it."""
        lines = self.left_out(taken)
        for before, after in gaps(taken):
            names = f"{self.checkpoints[before].name} and {self.checkpoints[after].name}"
            lines.append(
                f"a gap of {after - before:,} between {names}, wider than between the others; interval=V takes only "
                f"checkpoints that stand V apart"
            )
        return lines


def _nothing(run_dir: Path) -> str:
    if not run_dir.is_dir():
        return f"run_dir={run_dir}: no such folder; give the folder that the trainer writes its checkpoints into"
    try:
        open_source(run_dir).close()
        return f"run_dir={run_dir}: this is one checkpoint; give the folder above it, or sources=[...]"
    except (ValueError, OSError):
        pass
    names = sorted(path.name for path in run_dir.iterdir())
    there = f"it holds {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else "it is empty"
    return (
        f"run_dir={run_dir}: no checkpoints there, such as checkpoint-N, step-N, step_N, iter_N, global_stepN, "
        f"epoch=E-step=N.ckpt or snapshots/tokens-N; {there}"
    )


def warn(lines: Sequence[str]) -> None:
    """Print what a user should know of the checkpoints of a merge."""
    for line in lines:
        print(f"warning: {line}", file=sys.stderr, flush=True)


def descending(sources: Sequence[str]) -> list[str]:
    """A warning where the numbers in the names of sources fall, since sources are given oldest first."""
    for one, two in zip(sources, sources[1:], strict=False):
        a, b = position_of(one), position_of(two)
        if a is not None and b is not None and b < a and _parent(one) == _parent(two):
            return [
                f"sources: {two} comes after {one}, though its number is lower; give them oldest first, since the "
                f"weights, the config and the storage type follow that order"
            ]
    return []


def _parent(source: str) -> str:
    return re.split(r"[/@](?=[^/@]*$)", source.rstrip("/"))[0]
