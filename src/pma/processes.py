"""Worker processes that end with their parent, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import threading


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
