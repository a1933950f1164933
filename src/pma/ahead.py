"""Prepare the next item in a thread while the caller uses the present one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(prepare: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `prepare(item)` for each item in turn; a thread prepares the next one meanwhile.

    At most two results exist at a time. An error of `prepare` is raised when its item's turn comes.
    """
    with ThreadPoolExecutor(1) as thread:
        pending: Future[Result] | None = None
        for item in items:
            ready, pending = pending, thread.submit(prepare, item)
            if ready is not None:
                yield ready.result()
        if pending is not None:
            yield pending.result()
