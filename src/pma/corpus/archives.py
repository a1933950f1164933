"""Open the archives of packages and decode their members; nothing in them is imported or run."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path


def members(path: Path, pattern: str) -> dict[str, Callable[[], bytes]]:
    """Members of a wheel, zip or tar archive whose whole name matches the glob `pattern`, in order of name."""
    if zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        names = sorted(n for n in archive.namelist() if fnmatchcase(n, pattern))
        return {n: partial(archive.read, n) for n in names}
    contents: dict[str, bytes] = {}
    with tarfile.open(path) as tar:  # compressed tar has no random access: read the members in one pass
        for member in tar:
            if fnmatchcase(member.name, pattern) and member.isfile() and (file := tar.extractfile(member)):
                contents[member.name] = file.read()
    return {name: partial(contents.__getitem__, name) for name in sorted(contents)}


def decode(raw: bytes) -> str:
    """Text of a file: UTF-8, or else Latin-1, which every file is."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
