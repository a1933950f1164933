"""The processes of one merge: one alone, or those that torchrun started, which share the work through gloo."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Group:
    """The processes of a merge, seen from one of them; this class is a process that is alone."""

    rank, size = 0, 1

    @property
    def first(self) -> bool:
        """Whether this is the process that publishes."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """Return the first process's value, in all of them."""
        return value

    def gather(self, part: dict) -> dict:
        """Return all parts together in the first process, and elsewhere the process's own."""
        return part

    def wait(self) -> None:
        """Wait until all processes have come here."""


class _Torchrun(Group):
    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist = dist
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def share(self, value: Any) -> Any:
        values = [value]
        self._dist.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, part: dict) -> dict:
        parts: list[Any] | None = [None] * self.size if self.first else None
        self._dist.gather_object(part, parts, dst=0)
        return part if parts is None else {key: value for other in parts for key, value in other.items()}

    def wait(self) -> None:
        self._dist.barrier()


def is_first() -> bool:
    """Whether this is the process that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def group() -> Iterator[Group]:
    """The processes of this merge; WORLD_SIZE of torchrun says whether there are others."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Group()
        return
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        yield _Torchrun()
    finally:
        dist.destroy_process_group()
