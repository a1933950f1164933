"""Ctrl-C at any moment: exit 130 and one line, nothing left over, and the same command goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import kills_choose
import kills_train
import kills_watch
from campaign import HANG, Ended, Outcome, Running, command
from kills import left_aside, usual, writing
from kills_merge import KINDS, Merge


def interrupt(random: Random, running: Running, seconds: float, busy: Callable[[], bool]) -> tuple[Ended, bool]:
    """Send SIGINT to a command and all that it started; return how it ended, and whether it still ran then."""
    until = time.monotonic() + seconds * (0.15 + 0.85 * random.random())
    writes = random.random() < 0.5
    while running.alive and time.monotonic() < until and not (writes and busy()):
        time.sleep(0.001)
    if hit := running.alive:
        running.send(signal.SIGINT)
    return running.end(HANG), hit


def judged(ended: Ended, hit: bool) -> Outcome | None:
    """What is bad of an interrupted command; None: nothing."""
    if ended.hung:
        return Outcome("hang", "after Ctrl-C")
    if ended.code == 0 or not hit:
        return None
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    if ended.traceback or ended.code != 130 or sum(line.startswith("interrupted") for line in lines) != 1:
        return Outcome("traceback", f"exit {ended.code} after Ctrl-C: {ended.stderr[-900:]}")
    return None


def interrupted_merge(random: Random, folder: Path) -> Outcome:
    """A merge."""
    kind = random.choice(KINDS)
    merge = Merge(random, folder, kind)
    seconds = usual(f"merge {kind}", merge.run)
    if wrong := merge.take_away():
        return Outcome("wrong", wrong)
    ended, hit = interrupt(random, merge.begin(), seconds, lambda: writing(folder))
    note = f"{kind}, {'in flight' if hit else 'after the end'}"
    if bad := judged(ended, hit):
        return Outcome(bad.verdict, f"{note}: {bad.note}")
    if wrong := merge.take_away():
        return Outcome("wrong", f"{note}: {wrong}")
    if over := left_aside(folder):
        return Outcome("left over", f"{note}: {over}")
    return merge.outcome(merge.run(), note)


def interrupted_training(random: Random, folder: Path) -> Outcome:
    """A run in one process."""
    given, expected = kills_train.arguments(folder), kills_train.never_killed(folder, [])
    run = folder / "runs/smoke/run"
    busy = lambda: writing(run, run / "snapshots", run / "checkpoints")  # noqa: E731
    ended, hit = interrupt(random, Running("pma.train", *given, folder=folder), expected["seconds"], busy)
    if bad := judged(ended, hit):
        return bad
    if over := left_aside(folder / "runs"):
        return Outcome("left over", f"{over}")
    return kills_train.outcome(command("pma.train", *given, folder=folder), folder, expected, f"in flight: {hit}")


def interrupted_search(random: Random, folder: Path) -> Outcome:
    """A search for the best merge."""
    given = kills_choose.search(folder)
    expected = kills_choose.whole_table(folder)
    seconds = kills_choose.usual_seconds(folder)
    running = Running("pma.choose", *given, folder=folder)
    ended, hit = interrupt(random, running, seconds, lambda: writing(folder / "out"))
    if bad := judged(ended, hit):
        return bad
    return kills_choose.searched(command("pma.choose", *given, folder=folder), folder, expected, f"in flight: {hit}")


def interrupted_watch(random: Random, folder: Path) -> Outcome:
    """A watch, whose way to end is Ctrl-C: it finishes the checkpoint at hand."""
    trainer = kills_watch.Trainer(random, folder / "run", random.random() < 0.5, False, 0)
    trainer.run()
    given = kills_watch.arguments(folder / "run", folder / "out", True)
    running = Running("pma.watch", *given, folder=folder)
    merges = random.randint(0, kills_watch.COUNT)
    until = time.monotonic() + HANG
    while running.alive and time.monotonic() < until and len(list(folder.glob("out/merged/sma_3/*"))) < merges:
        time.sleep(0.005)
    time.sleep(random.random() * 0.2)
    running.send(signal.SIGINT)
    ended = running.end(HANG)
    if ended.code != 0 and (bad := judged(ended, True)):  # 130 before it has begun to look
        return bad
    if over := left_aside(folder):
        return Outcome("left over", f"{over}")
    note = f"after {merges} merges, exit {ended.code}"
    return kills_watch.outcome(command("pma.watch", *given, "idle=0.5", folder=folder), trainer, folder, True, note)


INTERRUPTED = (interrupted_merge, interrupted_merge, interrupted_watch, interrupted_training, interrupted_search)


def interrupted(random: Random, folder: Path) -> Outcome:
    """One of them."""
    trial = random.choice(INTERRUPTED)
    outcome = trial(random, folder)
    return Outcome(outcome.verdict, f"{trial.__doc__} {outcome.note}")
