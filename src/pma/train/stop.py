"""When a run must stop before its end: a scheduler's signal, or the minutes it may take."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

REQUEUE = 75  # exit status after a signal (sysexits.h: try again): the same command goes on


class StopRequest:
    """SIGTERM and SIGUSR1, by which schedulers end a job, caught for the time of a `with` block; and a time limit.

    Args:
        minutes: from now on; None for no limit.

    Attributes:
        signalled: whether such a signal came.
    """

    def __init__(self, minutes: float | None) -> None:
        self.signalled = False
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self._handlers: dict[int, Any] = {}

    @property
    def pending(self) -> bool:
        """Whether the run should stop at the next occasion."""
        return self.signalled or (self._deadline is not None and time.monotonic() > self._deadline)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread catch signals
            self._handlers = {n: signal.signal(n, self._take) for n in (signal.SIGTERM, signal.SIGUSR1)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: Any) -> None:
        self.signalled = True
