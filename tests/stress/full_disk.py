"""A disk that is full at the n-th write, and files that cannot grow beyond n bytes, whatever library writes them."""

from __future__ import annotations

import builtins
import errno
import io
import os
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import kills_choose
import kills_train
import kills_watch
from campaign import Ended, Outcome, command, errors, failure
from kills import left_aside
from kills_merge import KINDS, Merge
from prepared import prepared

# ---- in the process of the command ----


def short_files(most: int) -> None:
    """No file can grow beyond so many bytes: also Rust's and C++'s writes fail."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


class _Disk:
    """Counts what needs room in a folder, and refuses it at the n-th time, or from then on.

    Args:
        counted: file that the count is written to.
    """

    def __init__(self, folder: str, at: int, lasting: bool, counted: str) -> None:
        self._folder, self._at, self._lasting, self._counted = folder, at, lasting, counted
        self._count = 0
        self._open = os.open

    def _full(self, path: str) -> bool:
        if not path.startswith(self._folder) or os.path.basename(path) in (".stdout", ".stderr"):
            return False
        self._count += 1
        descriptor = self._open(self._counted, os.O_WRONLY | os.O_CREAT, 0o644)
        _write(descriptor, f"{self._count:8d}".encode())
        os.close(descriptor)
        return self._count == self._at or (self._lasting and self._count > self._at)

    def by_path(self, call: Callable[..., Any], writes: Callable[..., bool], opens: bool = False) -> Callable[..., Any]:
        """A call that takes a path first.

        Args:
            writes: whether it needs room, by its other arguments.
            opens: whether it returns a file to write to.
        """

        def refusing(path: Any, *arguments: Any, **options: Any) -> Any:
            named = isinstance(path, str | os.PathLike)
            if named and writes(*arguments, **options) and self._full(os.path.abspath(os.fspath(path))):
                if opens and self._at % 2:  # there is room for an empty file, and none for what it holds
                    return call("/dev/full", *arguments, **options)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
            return call(path, *arguments, **options)

        return refusing

    def by_number(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A call that takes a descriptor first; the system's error names no file."""

        def refusing(descriptor: int, *arguments: Any) -> Any:
            if self._full(os.readlink(f"/proc/self/fd/{descriptor}")):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(descriptor, *arguments)

        return refusing


_write = os.write


def full_at(at: int, lasting: bool, counted: str) -> None:
    """The disk of the working directory is full when it is written to for the n-th time."""
    disk = _Disk(os.getcwd(), at, lasting, counted)
    opened = disk.by_path(io.open, lambda mode="r", *rest, **options: any(letter in mode for letter in "wax+"), True)
    os.open = disk.by_path(os.open, lambda flags, *rest, **options: bool(flags & (os.O_CREAT | os.O_WRONLY)))
    builtins.open = io.open = opened
    for name in ("mkdir", "link", "replace", "rename", "symlink"):
        setattr(os, name, disk.by_path(getattr(os, name), lambda *rest, **options: True))
    for name in ("fsync", "pwrite", "ftruncate"):
        setattr(os, name, disk.by_number(getattr(os, name)))


# ---- trials ----


def _limits(random: Random, folder: Path, name: str, whole: Callable[[Path, Callable], Ended]) -> Callable[[], None]:
    """What takes the room away, at a random place of a command.

    Args:
        whole: runs the command in a folder of its own, to count how often it writes.
    """

    def count(aside: Path) -> None:
        place = aside / "work"
        place.mkdir()
        ended = whole(place, partial(full_at, 0, False, str(aside / "count")))
        assert ended.code == 0, ended.stderr[-1500:]

    if random.random() < 0.35:
        return partial(short_files, random.randrange(2_000, 30_000))
    writes = int((prepared(folder, f"writes-of-{name}", count) / "count").read_text())
    counted = str(folder.with_name(f"{folder.name}.count"))
    return partial(full_at, random.randint(1, writes), random.random() < 0.5, counted)


def _words(limit: Callable[[], None]) -> str:
    assert isinstance(limit, partial)
    return f"{limit.func.__name__}{limit.args[:2]}"


def _described(outcome: Outcome, limit: Callable[[], None], what: str, ended: Ended) -> Outcome:
    first = next(iter(errors(ended)), f"exit {ended.code}")
    return Outcome(outcome.verdict, f"{what}, {_words(limit)}: {outcome.note} [{first[:200]}]")


def full_merge(random: Random, folder: Path) -> tuple[Outcome, Callable[[], None], str, Ended]:
    """A merge."""
    kind = random.choice(KINDS)
    merge = Merge(random, folder, kind)

    def whole(place: Path, limit: Callable[[], None]) -> Ended:
        other = Merge(Random(0), place, kind)
        return command("pma.merge", *other.arguments, folder=place, before=limit)

    limit = _limits(random, folder, f"merge-{kind.replace(' ', '-')}", whole)
    ended = command("pma.merge", *merge.arguments, folder=folder, before=limit)
    outcome = failure(ended, "merged" if kind != "many" else "")
    if outcome is None and (wrong := merge.take_away()):
        outcome = Outcome("wrong", wrong)
    if outcome is None and (over := left_aside(folder)):
        outcome = Outcome("left over", str(over))
    if outcome is None:
        outcome = merge.outcome(merge.run(), "")
    return outcome, limit, kind, ended


def full_training(random: Random, folder: Path) -> tuple[Outcome, Callable[[], None], str, Ended]:
    """A run."""
    given, expected = kills_train.arguments(folder), kills_train.never_killed(folder, [])
    limit = _limits(
        random, folder, "train", lambda place, limit: command("pma.train", *given, folder=place, before=limit)
    )
    ended = command("pma.train", *given, folder=folder, before=limit)
    outcome = failure(ended, "runs")
    if outcome is None and (over := left_aside(folder / "runs")):
        outcome = Outcome("left over", str(over))
    if outcome is None:
        outcome = kills_train.outcome(command("pma.train", *given, folder=folder), folder, expected, "")
    return outcome, limit, "train", ended


def full_watch(random: Random, folder: Path) -> tuple[Outcome, Callable[[], None], str, Ended]:
    """A watch, which says what fails, tries again and goes on."""
    trainer = kills_watch.Trainer(random, folder / "run", False, False, 0)
    trainer.run()
    given = kills_watch.arguments(Path("run"), Path("out"), True, "idle=0.5")

    def whole(place: Path, limit: Callable[[], None]) -> Ended:
        kills_watch.Trainer(Random(0), place / "run", False, False, 0).run()
        return command("pma.watch", *given, folder=place, before=limit)

    limit = _limits(random, folder, "watch", whole)
    ended = command("pma.watch", *given, folder=folder, before=limit)
    outcome = failure(ended, "out")
    if outcome is None:
        again = command("pma.watch", *given, folder=folder)
        outcome = kills_watch.outcome(again, trainer, folder, hold=True, note="")
    return outcome, limit, "watch", ended


def full_search(random: Random, folder: Path) -> tuple[Outcome, Callable[[], None], str, Ended]:
    """A search for the best merge."""
    given, expected = kills_choose.search(folder), kills_choose.whole_table(folder)
    limit = _limits(
        random, folder, "choose", lambda place, limit: command("pma.choose", *given, folder=place, before=limit)
    )
    ended = command("pma.choose", *given, folder=folder, before=limit)
    outcome = failure(ended, "out")
    if outcome is None and (over := left_aside(folder)):
        outcome = Outcome("left over", str(over))
    if outcome is None:
        outcome = kills_choose.searched(command("pma.choose", *given, folder=folder), folder, expected, "")
    return outcome, limit, "choose", ended


def full_disk(random: Random, folder: Path) -> Outcome:
    """A command on a disk without room at one of its writes; then the same command with room."""
    trial = random.choice([full_merge] * 5 + [full_training, full_watch, full_watch, full_search])
    try:
        return _described(*trial(random, folder))
    finally:
        folder.with_name(f"{folder.name}.count").unlink(missing_ok=True)
