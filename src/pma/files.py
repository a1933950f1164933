"""Publishing files and folders so that a reader sees all of them or nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from pma.locks import lock_of, publishing, remove_if_free

# What is aside: of which final name, and whose it is. Processes of several machines may write to one disk, where their
# numbers can be the same.
_ASIDE = re.compile(r"\.(?P<name>.+)\.partial-(?P<host>.+)-(?P<process>\d+)(?:-old)?")
_swept: set[Path] = set()  # folders of files, once each process
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with _naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _staging(final: Path) -> Path:
    return final.with_name(f".{final.name}.partial-{socket.gethostname()}-{os.getpid()}")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` under its final name at once: write aside, fsync, rename."""
    with publish_file(path) as file:
        file.write(data)


@contextmanager
def publish_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file aside to write to; on success it is flushed to the disk and renamed to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _swept:
        sweep(path.parent)
        _swept.add(path.parent)
    aside = _staging(path)
    try:
        with _naming(path):
            with open(aside, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say what could not be written: where a write fails, the system names no file, and safetensors neither."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, or nothing: what a full disk took of it is cut off again.

    Raises:
        OSError: naming the file.
    """
    left = memoryview(f"{line}\n".encode())
    with open(path, "ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            with _naming(path):
                while left:
                    left = left[file.write(left) :]
        except OSError:
            with suppress(OSError):
                file.truncate(end)
            raise


def _flush(folder: Path) -> None:
    """Bring a folder to the disk, its files readable as the user's umask has it: safetensors lets only the owner."""
    readers = folder.stat().st_mode & 0o666
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_nlink == 1:  # not a trainer's file that is linked here
            path.chmod(readers)
        _fsync(path)
    _fsync(folder)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON.

    Raises:
        ValueError: when `value` holds NaN or infinity, which JSON has no numbers for.
    """
    try:
        text = json.dumps(value, indent=1, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: not written, for JSON has no NaN or infinity ({error})") from None
    write_text(path, text + "\n")


@contextmanager
def publish_folder(final: Path, replace: bool = True) -> Iterator[Path]:
    """Yield an empty folder aside; on success flush its files to the disk and rename it to `final`.

    After an exception, or a kill, nothing is left under the final name. Only one process at a time publishes a name:
    it holds a lock beside the folder. What a killed process left aside is removed by the next call for the same name.

    Args:
        replace: True: wait for another process that publishes `final`, then replace what stands there, as a run that
            makes a snapshot again does. False: neither wait nor replace, as a merge, whose output must be new.

    Raises:
        ValueError: with `replace=False`, when `final` exists or another process is writing it.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    # `spare` is closed to have a descriptor to clean up with, should the process have run out of them.
    with publishing(final, wait=replace) as locked, open(os.devnull) as spare:
        if not replace and os.path.lexists(final):
            raise ValueError(f"{final}: exists already; give another folder or remove it")
        sweep(final.parent, final.name, locked)
        aside = _staging(final)
        old = aside.with_name(f"{aside.name}-old")
        aside.mkdir()
        try:
            with _naming(final):
                yield aside
                _flush(aside)
            if replace and final.exists():  # moved away whole first, so that the final name never shows a part of it
                os.replace(final, old)
                os.replace(aside, final)
                _remove(old)
            elif os.path.lexists(final):
                raise ValueError(f"{final}: came into being meanwhile; give another folder or remove it")
            else:
                os.replace(aside, final)
            _fsync(final.parent)
        except BaseException:
            if replace and old.exists() and not final.exists():
                os.replace(old, final)
            spare.close()
            _remove(aside)
            raise


def sweep(folder: Path, own: str | None = None, locked: bool = False) -> None:
    """Remove from a folder what killed processes left aside, under whatever name.

    Processes of this machine are asked for by number. Of another machine's nobody knows, but that they are dead where
    we hold their lock.

    Args:
        own: final name that this process is about to publish.
        locked: whether it holds the lock of that name.
    """
    here, us = socket.gethostname(), os.getpid()
    try:
        there = list(folder.iterdir())
    except OSError:  # there is none, or one that we may write to and not read
        return
    for path in there:
        if own is None or path != lock_of(folder / own):
            remove_if_free(path)
        if (match := _ASIDE.fullmatch(path.name)) is None:
            continue
        process, ours = int(match["process"]), match["name"] == own
        dead = ours and locked
        if match["host"] == here:  # ours by number and not by name: another thread is writing it
            dead = ours if process == us else not _runs(process)
        if dead:
            _remove(path)


def remove_folder(folder: Path) -> None:
    """Remove a published folder: it is away at once, so that a kill leaves no half of it under its name."""
    aside = _staging(folder)
    aside = aside.with_name(f"{aside.name}-old")
    os.replace(folder, aside)
    _remove(aside)


def _remove(path: Path) -> None:
    """Remove a file or folder as far as it can be; with one descriptor left, where shutil.rmtree takes two a level."""
    with suppress(OSError):
        if not path.is_dir() or path.is_symlink():
            path.unlink()
            return
        for name in os.listdir(path):
            _remove(path / name)
        path.rmdir()


def _runs(process: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def publish_made(folder: Path, final: Path) -> None:
    """Rename a folder, whose files are flushed already, to `final`; it is on the disk when this returns."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            _fsync(path)
    os.replace(folder, final)
    _fsync(final.parent)


def hash_files(folder: Path, but: tuple[str, ...] = ()) -> dict[str, str]:
    """SHA-256 of each file below `folder`, by relative name, but of those whose name ends so."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(but or "\0"))
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


@cache
def revision() -> str | None:
    """Git revision of the code, `-dirty` where it was changed; None outside a checkout of this repository.

    An installed wheel may lie within another repository, whose revision says nothing of this code.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "conf").is_dir() or shutil.which("git") is None:
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
