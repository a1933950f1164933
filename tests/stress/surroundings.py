"""What surrounds a command: few descriptors, another user, files of a host whose clock is hours apart."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import kills_train
import kills_watch
from campaign import HANG, Ended, Outcome, command, failure
from kills import left_aside
from kills_merge import KINDS, Merge

NOBODY = 65534
ROOT = Path(__file__).parents[2]


def few_descriptors(more: int) -> None:
    """The process cannot open more than so many files beyond those that Python itself has open by now."""
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + more, highest + more))


def no_descriptor_left(random: Random, folder: Path) -> Outcome:
    """A merge or a watch that runs out of descriptors: right, or one line."""
    most = random.randint(3, 50)  # fewer do not let Python read the command's own file
    limit = partial(few_descriptors, most)
    if random.random() < 0.3:
        trainer = kills_watch.Trainer(random, folder / "run", random.random() < 0.5, False, 0)
        trainer.run()
        given = kills_watch.arguments(folder / "run", folder / "out", True, "idle=0.5")
        ended = command("pma.watch", *given, folder=folder, before=limit)
        return failure(ended) or kills_watch.outcome(
            command("pma.watch", *given, folder=folder), trainer, folder, True, f"watch, {most} descriptors"
        )
    kind = random.choice(KINDS)
    merge = Merge(random, folder, kind)
    return _merged(merge, command("pma.merge", *merge.arguments, folder=folder, before=limit), f"{kind}, {most}")


def _merged(merge: Merge, ended: Ended, note: str) -> Outcome:
    """What came of a merge under hard conditions, and of the same one after them."""
    said = ended.stderr.strip().splitlines()[-1:] or [""]
    note = f"{note}, exit {ended.code} {said[0][:160]}"
    if outcome := failure(ended):
        return Outcome(outcome.verdict, f"{note}: {outcome.note}")
    if wrong := merge.take_away():
        return Outcome("wrong", f"{note}: {wrong}")
    if over := left_aside(merge.folder):
        return Outcome("left over", f"{note}: {over}")
    outcome = merge.outcome(merge.run(), note)
    return Outcome("one line", note) if outcome.verdict == "right" and ended.code else outcome


# ---- another user ----


def _as_nobody(merge: Merge) -> Ended:
    """Merge as a user who owns nothing, and has no home."""
    given = {"HOME": "/nonexistent", "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src")}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-B", "-m", "pma.merge", *merge.arguments],
        cwd=merge.folder,
        env=given,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


def _reached(folder: Path) -> bool:
    """Whether others can come to a folder."""
    return all(place.stat().st_mode & 0o001 for place in (folder, *folder.parents))


def _python() -> list[Path]:
    """Where the interpreter and its packages lie."""
    return [Path(place).resolve() for place in (sys.prefix, sys.base_prefix)]


def _open_up(folder: Path) -> None:
    """Let others read a folder."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def another_user(random: Random, folder: Path) -> Outcome:
    """A merge of root's checkpoints by nobody, who may or may not write where it goes, and has no cache."""
    kind = random.choice(KINDS)
    merge = Merge(random, folder, kind)
    if os.geteuid() != 0 or not all(map(_reached, (ROOT, *_python(), folder))):
        return Outcome("right", "not tried: only root can become somebody else, who must come to folder and packages")
    _open_up(folder)
    writable = random.random() < 0.5
    if writable:
        folder.chmod(0o777)
    if hidden := random.random() < 0.3:
        victim = random.choice(sorted((folder / "run").rglob("*.safetensors")) or sorted(folder.rglob("*.distcp")))
        victim.chmod(0o600)
    ended = _as_nobody(merge)
    note = f"{kind}, writable={writable}, hidden={hidden}"
    if ended.code == 0 and (not writable or hidden):
        return Outcome("wrong", f"{note}: it succeeded")
    if ended.code != 0 and writable and not hidden:
        return Outcome("wrong", f"{note}: {ended.stderr[-500:]}")
    if ended.code == 0 and any(not path.stat().st_mode & 0o004 for path in (folder / "merged").rglob("*")):
        return Outcome("wrong", f"{note}: others cannot read what was published")
    return _merged(merge, ended, note)


# ---- clocks apart ----


def _age(folder: Path, seconds: float) -> None:
    """Let the files of a folder be as old as another host's clock says; below 0 they come from the future."""
    then = time.time() - seconds
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))


def clocks_apart(random: Random, folder: Path) -> Outcome:
    """A watch, a merge or a run over files that another host wrote hours ago, or hours from now."""
    hours = random.choice([-48, -5, -0.2, 0.2, 5, 48])
    trial: Callable[..., Outcome] = random.choice([_watch_apart, _watch_apart, _merge_apart, _train_apart])
    outcome = trial(random, folder, 3600 * hours)
    return Outcome(outcome.verdict, f"{hours} h: {outcome.note}")


def _watch_apart(random: Random, folder: Path, seconds: float) -> Outcome:
    trainer = kills_watch.Trainer(random, folder / "run", False, False, 0)
    trainer.run()
    marked = random.random() < 0.5
    for place in (folder / "run").iterdir():
        if not marked:  # as a trainer leaves it that says nothing of the end: told by the time of its files
            (place / "trainer_state.json").unlink()
        _age(place, seconds)
    given = kills_watch.arguments(folder / "run", folder / "out", True, "idle=0.5")
    ended = command("pma.watch", *given, folder=folder)
    return kills_watch.outcome(ended, trainer, folder, True, f"watch, marked={marked}")


def _merge_apart(random: Random, folder: Path, seconds: float) -> Outcome:
    merge = Merge(random, folder, random.choice(KINDS))
    _age(folder / "run", seconds)
    for name in (".merged.publishing", ".merged.partial-elsewhere-1"):  # of another host that died
        (folder / name).mkdir() if "partial" in name else (folder / name).touch()
        _age(folder / name, seconds)
    return merge.outcome(merge.run(), "merge")


def _train_apart(random: Random, folder: Path, seconds: float) -> Outcome:
    given, expected = kills_train.arguments(folder), kills_train.never_killed(folder, [])
    ended = command("pma.train", *given, "stop=2048", folder=folder)
    if ended.code != 0:
        return Outcome("traceback", ended.stderr[-600:])
    _age(folder / "runs", seconds)
    return kills_train.outcome(command("pma.train", *given, folder=folder), folder, expected, "train")
