"""What the campaigns share: a command in a process of its own, watched and perhaps killed, and what came of it.

A trial is a function of its random numbers and an empty folder. It prepares something to damage or to kill, runs the
command that a user would type, and says what came of it. The same seed, campaign and number make the same trial.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Literal

Verdict = Literal["right", "one line", "traceback", "wrong", "hang", "left over", "executed"]
GOOD: tuple[Verdict, ...] = ("right", "one line")
# A damaged pickle of these campaigns makes a file of this name where its command runs, if anything ever executes it.
EXECUTED = "EXECUTED"
HANG = 300  # seconds after which a command counts as hung: a busy machine can make seconds minutes

# Importing torch takes longer than most trials. One process imports everything once, and each command is a fork of it:
# it has no threads by then, and OMP_NUM_THREADS=1 keeps it so.
WARM = (
    "torch",
    "transformers",
    "pandas",
    "pma.merge.__main__",
    "pma.merge.disk",
    "pma.merge.recipes",
    "pma.merge.formats.dcp",
    "pma.watch.__main__",
    "pma.watch.follow",
    "pma.choose.__main__",
    "pma.train.__main__",
    "pma.train.loop",
    "campaigns",
)


@dataclass(frozen=True)
class Outcome:
    """What came of a trial, and what to read when it is bad."""

    verdict: Verdict
    note: str = ""


Trial = Callable[[Random, Path], Outcome]


@dataclass(frozen=True)
class Campaign:
    """Trials of one kind.

    Args:
        trials: how many a whole campaign has.
        sample: how many of them `make test` runs.
    """

    name: str
    trial: Trial
    trials: int
    sample: int


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (negative: a signal), what it printed, seconds; `hung` when it had to be ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    hung: bool = False
    killed: bool = False

    @property
    def traceback(self) -> bool:
        """It crashed, or printed a traceback."""
        return "Traceback (most recent call last)" in self.stderr or (self.code < 0 and not (self.killed or self.hung))


def _run(argv: list[str], folder: str, environment: dict[str, str], before: Callable[[], None] | None) -> None:
    os.setsid()  # a kill takes what the command started with it
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    os.chdir(folder)
    os.environ.update(environment)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(f".{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    sys.argv = argv
    if before is not None:
        before()
    if argv[0].endswith(".py"):
        sys.path.insert(0, str(Path(argv[0]).parent))
        runpy.run_path(argv[0], run_name="__main__")
    else:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


def warm() -> multiprocessing.context.ForkServerContext:
    """The context whose processes have imported torch and the commands."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(WARM))
    return context


_looking = threading.Lock()


def begin(process: BaseProcess) -> None:
    """Start a process. multiprocessing then asks for the ends of all others; of two threads that ask one loses it."""
    with _looking:
        process.start()


def exit_code(process: BaseProcess, seconds: float = 0) -> int | None:
    """Wait at most so long for the end of a process; how it ended, None if it did not."""
    wait([process.sentinel], seconds)
    with _looking:
        return process.exitcode


class Running:
    """`python -m MODULE ARGUMENTS` in `folder`, begun.

    Args:
        before: called in its process first, to take something from it: a limit, another user. A function of a module.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        folder: Path,
        environment: dict[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        self._logs = [folder / ".stdout", folder / ".stderr"]
        for log in self._logs:
            log.unlink(missing_ok=True)
        self._began = time.monotonic()
        argv = [module, *arguments]
        self._process = warm().Process(target=_run, args=(argv, str(folder), environment or {}, before))
        begin(self._process)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return exit_code(self._process) is None

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end, at most so long; whether it came."""
        return exit_code(self._process, seconds) is not None

    def send(self, number: int) -> None:
        """Send a signal to it and to what it started."""
        assert self._process.pid is not None
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:  # it had not become a group of its own yet
            os.kill(self._process.pid, number)

    def end(self, seconds: float, killed: bool = False) -> Ended:
        """Wait for its end; after `seconds` it counts as hung, and is killed."""
        code = exit_code(self._process, seconds)
        hung = code is None
        if hung:
            self.send(signal.SIGKILL)
            code = exit_code(self._process, HANG)
        stdout, stderr = (log.read_text(errors="replace") if log.exists() else "" for log in self._logs)
        assert code is not None
        return Ended(code, stdout, stderr, time.monotonic() - self._began, hung, killed)


def command(
    module: str,
    *arguments: str,
    folder: Path,
    kill_after: float | None = None,
    seconds: float = HANG,
    environment: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Ended:
    """Run `python -m MODULE ARGUMENTS` in `folder`, or `python MODULE ARGUMENTS` where it is a script.

    Args:
        kill_after: seconds after which it and what it started are killed (SIGKILL), if it still runs.
        seconds: after which it counts as hung, and is killed.
    """
    running = Running(module, *arguments, folder=folder, environment=environment, before=before)
    killed = kill_after is not None and not running.ends_within(kill_after)
    if killed:
        running.send(signal.SIGKILL)
    return running.end(seconds, killed)


def names(folder: Path) -> set[str]:
    """Every path below a folder, but for what `command` writes there."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} - {".stdout", ".stderr"}


def errors(ended: Ended) -> list[str]:
    """The lines in which a command says why it failed."""
    return [line for line in ended.stderr.splitlines() if line.startswith("error: ")]


def failure(ended: Ended, subject: str = "") -> Outcome | None:
    """What is bad of how a command ended; None: it succeeded, or says why not in one line.

    Args:
        subject: what that line must name: a command that refuses everything would pass otherwise.
    """
    if ended.hung:
        return Outcome("hang", f"{ended.seconds:.0f} s")
    if ended.traceback:
        return Outcome("traceback", ended.stderr[-900:])
    if ended.code != 0 and len(errors(ended)) != 1:
        return Outcome("traceback", f"exit {ended.code} without one line that says why: {ended.stderr[-500:]}")
    if ended.code != 0 and subject not in errors(ended)[0]:
        return Outcome("traceback", f"a line without {subject}: {errors(ended)[0]}")
    return None


def refusal(ended: Ended, folder: Path, before: set[str], subject: str) -> Outcome | None:
    """What is plain without a look at the output: executed, hang, traceback, a refusal; None: it says it succeeded.

    A refusal is good when it is one line, names `subject` (what is damaged), and leaves what lay there before.
    """
    if (folder / EXECUTED).exists():
        return Outcome("executed", ended.stderr[-300:])
    if (bad := failure(ended, subject)) or ended.code == 0:
        return bad
    if new := names(folder) - before:
        return Outcome("left over", f"{sorted(new)[:5]} after {errors(ended)[0]}")
    return Outcome("one line", errors(ended)[0])
