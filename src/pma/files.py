"""Publishing files and folders so that a reader sees all of them or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

MANIFEST = "manifest.json"


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json of a published folder.

    Raises:
        ValueError: when the folder or its manifest is missing or unreadable.
    """
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder}: no {MANIFEST} there; give the folder of a snapshot, a merge or a run") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / MANIFEST}: not readable as JSON ({error}); publish the folder again") from None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _staging(final: Path) -> Path:
    # Processes of several machines may write to one disk, where their numbers can be the same.
    return final.with_name(f".{final.name}.partial-{socket.gethostname()}-{os.getpid()}")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` under its final name at once: write aside, fsync, rename."""
    with publish_file(path) as file:
        file.write(data)


@contextmanager
def publish_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file aside to write to; on success it is flushed to the disk and renamed to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _staging(path)
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, indent=1) + "\n")


@contextmanager
def publish_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder aside; on success fsync what was put in it and rename it to `final`.

    An existing `final` is replaced. After an exception, or a kill, nothing is left under the final name; what a kill
    leaves aside is removed by the next call for the same folder.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    for left in final.parent.glob(f".{final.name}.partial-*"):
        shutil.rmtree(left, ignore_errors=True)
    aside = _staging(final)
    aside.mkdir()
    try:
        yield aside
        for path in sorted(aside.rglob("*")):
            _fsync(path)
        _fsync(aside)
        if final.exists():  # moved away whole first, so that the final name never shows a part of it
            old = final.with_name(f".{final.name}.partial-old-{os.getpid()}")
            os.replace(final, old)
            os.replace(aside, final)
            shutil.rmtree(old)
        else:
            os.replace(aside, final)
        _fsync(final.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


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


def complete_lines(path: Path) -> list[str]:
    """Lines of a file that is written a line at a time; a kill can leave the last half written."""
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


@cache
def revision() -> str | None:
    """Git revision of the code, `-dirty` where it was changed; None outside a repository."""
    here = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
