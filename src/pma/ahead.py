"""Compute the next value in a thread while the present one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


def ahead(compute: Callable[[Item], Value], items: Iterable[Item]) -> Iterator[Value]:
    """`compute` of each item in turn; a thread computes the next one meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        coming: Future[Value] | None = None
        for item in items:
            ready, coming = coming, thread.submit(compute, item)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()
