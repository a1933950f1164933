"""Worker processes that hold no lock of a thread of their parent, and that end with it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from pma.processes import end_with_parent

_PRELOADED = ["pma.corpus.read", "pma.corpus.shards"]  # what workers call; neither imports torch nor starts threads


def workers(processes: int, start: Callable[..., None] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """A pool of `processes` workers, each of which calls `start(*arguments)` first.

    A forked worker would copy locks that threads of torch, gloo, tokenizers or datasets hold, and could wait for them
    forever. So workers are forked from a server, a fresh process that has only imported what they call.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return ProcessPoolExecutor(processes, context, initializer=_start, initargs=(start, arguments))


def _start(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    if start is not None:
        start(*arguments)
