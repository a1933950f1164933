"""Worker processes that end with their parent, however it ends, and that Ctrl-C finds only in their work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any


def end_with_parent() -> None:
    """In a worker of a pool: end at once when its parent is gone.

    A pool does not notice that its parent was killed. Its workers would go on, hold the locks of what they write, and
    the same command could not be started again.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


_interrupted = False  # this worker, between two tasks


def start_worker() -> None:
    """In a worker that `submit` gives tasks: end with the parent; between two tasks note Ctrl-C, for the next one."""
    end_with_parent()
    signal.signal(signal.SIGINT, _note)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _note(number: int, frame: Any) -> None:
    global _interrupted
    _interrupted = True


def submit(pool: ProcessPoolExecutor, task: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
    """Give a pool of such workers a task that Ctrl-C ends: once, so that what it cleans up then is not ended too.

    Workers that start meanwhile keep Ctrl-C waiting until they have imported what they need.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit it
    try:
        return pool.submit(_interruptible, task, arguments, options)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interruptible(task: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    def end(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, _note)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, end)
    try:
        if _interrupted:
            raise KeyboardInterrupt
        return task(*arguments, **options)
    finally:
        signal.signal(signal.SIGINT, _note)


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """In the parent: end the tasks in work where Ctrl-C comes, also to the parent alone."""
    try:
        yield
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGINT)
        raise
