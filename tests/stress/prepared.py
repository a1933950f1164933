"""What trials of a campaign share and only copy: made once for a folder of outcomes."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

_lock = threading.Lock()


def prepared(folder: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` that `make` fills, beside the folders of all trials.

    Args:
        folder: of a trial.
        make: called with an empty folder.
    """
    made = folder.parents[1] / ".prepared" / name
    with _lock:
        if not made.is_dir():
            aside = made.with_name(f"{name}.partial")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            make(aside)
            aside.rename(made)
    return made


def linked(source: Path, target: Path) -> Path:
    """A copy of a folder whose files are hard links: cheap, for what a trial only reads or replaces whole."""
    return Path(shutil.copytree(source, target, copy_function=os.link))


def own(path: Path) -> Path:
    """Make a linked file a copy of its own, that it may be damaged."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    return path
