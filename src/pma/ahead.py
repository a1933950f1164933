"""Make the next thing in a thread while the present one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item, Made = TypeVar("Item"), TypeVar("Made")


def ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """`make` of each item in turn; the next one's is made by a thread meanwhile."""
    with ThreadPoolExecutor(1) as maker:
        coming: Future[Made] | None = None
        for item in items:
            made, coming = coming, maker.submit(make, item)
            if made is not None:
                yield made.result()
        if coming is not None:
            yield coming.result()
