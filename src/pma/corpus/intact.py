"""Whether the tokens that a run trains on are those that were built, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from operator import index
from pathlib import Path
from typing import Any

from pma.files import sha256_file
from pma.json_files import MANIFEST, read_manifest


def require_intact(folder: Path, part: str) -> None:
    """Refuse a corpus whose tokens are not those of its manifest.

    Files of our own making are hashed, at about a gigabyte a second. Of shards of the hub's data sets only the sizes
    are looked at: there may be terabytes of them.

    Args:
        folder: a corpus folder.
        part: train, continued or instruct. A part that is not there is left to whoever opens it.

    Raises:
        ValueError: naming the file that is missing, cut short or changed.
    """
    manifest = read_manifest(folder, dtype=str, parts=dict)
    try:
        files = list(_files(folder, manifest, part))
    except (TypeError, KeyError, AttributeError):
        raise ValueError(f"{folder / MANIFEST}: not the manifest of a corpus; {_mend(folder)}") from None
    for path, size, digest in files:
        there = path.stat().st_size if path.is_file() else 0
        if there != size:
            raise ValueError(f"{path}: {there:,} bytes instead of {size:,}; {_mend(folder)}")
        if digest is not None and sha256_file(path) != digest:
            raise ValueError(f"{path}: changed since the corpus was built; {_mend(folder)}")


def _mend(folder: Path) -> str:
    return f"remove {folder} and run the same command again, which builds the same bytes"


def _files(folder: Path, manifest: dict[str, Any], part: str) -> Iterator[tuple[Path, int, str | None]]:
    """Each file of a part with its bytes and, where it is to be checked, its SHA-256."""
    width = {"uint16": 2, "uint32": 4}[manifest["dtype"]]
    if (own := manifest["parts"].get(part)) is not None:
        yield folder / f"{part}.bin", index(own["tokens"]) * width, own["sha256"]
        if part == "instruct":
            yield folder / f"{part}.mask.bin", index(own["tokens"]), own.get("mask_sha256")
    for source in manifest.get("hub", ()) if part == "train" else ():
        for shard in source["shards"]:
            yield folder / shard["file"], index(shard["tokens"]) * width, None
