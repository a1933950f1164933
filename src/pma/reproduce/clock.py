"""The time of one call: `minutes=8` ends it after eight, and the same command goes on."""

from __future__ import annotations

import time


class OutOfTime(Exception):
    """The minutes of this call are over; what is done is kept."""


class Clock:
    """Counts the minutes of one call down; None is without end."""

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def left(self) -> float | None:
        """Minutes left, at least 0; None without end."""
        return None if self._end is None else max(0.0, (self._end - time.monotonic()) / 60)

    def check(self) -> None:
        """Raise OutOfTime when no time is left."""
        if self.left() == 0:
            raise OutOfTime
