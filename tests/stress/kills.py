"""Kills at moments that are spread over a command's usual time, and over the moments in which it writes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from campaign import HANG, Ended, Outcome, Running

_usual: dict[str, float] = {}  # seconds of a command that nobody kills, by its name


def usual(name: str, run: Callable[[], Ended]) -> float:
    """Seconds that a command takes; `run` is called where they are not known yet, and must succeed."""
    if name not in _usual:
        ended = run()
        assert ended.code == 0, f"nothing was damaged, and {name} failed: {ended.stderr[-1500:]}"
        _usual[name] = ended.seconds
    return _usual[name]


def left_aside(folder: Path) -> list[str]:
    """What publications leave below a folder when nothing takes it away: folders and files aside, and locks."""
    marks = (".partial", ".publishing")
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*") if any(m in path.name for m in marks))


def finished(ended: Ended, folder: Path, note: str, wrong: Callable[[], str]) -> Outcome:
    """What came of the command that was let finish after kills.

    Args:
        folder: in which nothing may be left aside.
        wrong: what is wrong with its result, in words; empty where nothing is.
    """
    if ended.hung:
        return Outcome("hang", note)
    if ended.code != 0:
        return Outcome("traceback", f"after {note}: {ended.stderr[-600:]}")
    if difference := wrong():
        return Outcome("wrong", f"{difference}; {note}")
    if over := left_aside(folder):
        return Outcome("left over", f"{over[:5]}; {note}")
    return Outcome("right", note)


def writing(*folders: Path) -> bool:
    """Whether something is being published in one of the folders just now."""
    try:
        return any(".partial" in path.name for folder in folders if folder.is_dir() for path in folder.iterdir())
    except FileNotFoundError:  # renamed meanwhile
        return True


class Killer:
    """Kills commands with SIGKILL, and counts those that were hit while they ran.

    Args:
        seconds: the usual time of the command.
        busy: whether it writes just now; half of the kills wait for that.
    """

    def __init__(self, random: Random, seconds: float, busy: Callable[[], bool]) -> None:
        self._random, self._seconds, self._busy = random, seconds, busy
        self.hits: list[str] = []
        self.late = 0

    def kill(self, running: Running) -> Ended:
        """Kill a command at a random moment, or let it end if it is sooner."""
        share, while_writing = self._random.random(), self._random.random() < 0.5
        began = time.monotonic()
        until = began + self._seconds * share * (0.7 if while_writing else 1)
        while running.alive and time.monotonic() < until:
            time.sleep(0.002)
        seen, patience = False, time.monotonic() + 2 * self._seconds
        while while_writing and running.alive and time.monotonic() < patience and not (seen := self._busy()):
            time.sleep(0.002)
        if seen:
            time.sleep(self._random.random() ** 2 * 0.05)
        if hit := running.alive:
            running.send(signal.SIGKILL)
        ended = running.end(HANG, killed=hit)
        hit = hit and ended.code == -signal.SIGKILL
        if hit:
            self.hits.append("writing" if seen else f"{(time.monotonic() - began) / self._seconds:.0%}")
        else:
            self.late += 1
            self._seconds = min(self._seconds, ended.seconds)
        return ended

    def enough(self, wanted: int) -> bool:
        """Whether so many were hit.

        Raises:
            RuntimeError: when kills only ever come after the end, and so prove nothing.
        """
        if self.late > 3 * wanted + 3:
            raise RuntimeError(f"{self.late} kills came after the end of the command, {len(self.hits)} before")
        return len(self.hits) >= wanted

    @property
    def note(self) -> str:
        """The moments, in words."""
        return f"{len(self.hits)} killed in flight ({', '.join(self.hits)}), {self.late} after the end"
