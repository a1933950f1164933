"""The lock of a name that is being published: one process at a time writes it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SUFFIX = ".publishing"
_TRIES = 5  # for a lock that we do not wait for


def lock_of(final: Path) -> Path:
    """Where the lock of a name lies: beside it."""
    return final.with_name(f".{final.name}{_SUFFIX}")


@contextmanager
def publishing(final: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock of a name; the yielded value is False where the disk has no locks.

    The system gives a lock back when its process ends, however it ends. The lock's file is removed while the lock is
    held, so a process that waited for it may hold the lock of a removed file, and then asks again.

    Args:
        wait: for the process that holds it.

    Raises:
        ValueError: with `wait=False`, when another process holds it.
    """
    import fcntl

    path = lock_of(final)
    tries = _TRIES
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        locked = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            if tries := tries - 1:  # `remove_if_free` holds it for a moment
                time.sleep(0.01)
                continue
            raise ValueError(f"{final}: another process is writing it; wait for that, or give another folder") from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                os.close(descriptor)
                raise
            locked = False
        if not locked or _is_open_file(path, descriptor):
            break
        os.close(descriptor)
    try:
        yield locked
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
        if locked:  # also for children, which inherit the descriptor
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _is_open_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def remove_if_free(path: Path) -> None:
    """Remove the file of a lock that nobody holds: what a kill leaves of a name that may never be published again.

    Any other file stays.
    """
    import fcntl

    if not (path.name.startswith(".") and path.name.endswith(_SUFFIX)):
        return
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_open_file(path, descriptor):
                path.unlink()
        finally:
            os.close(descriptor)
