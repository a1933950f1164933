"""JSON that was written earlier, read with an eye on damage: manifests, states, rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_KINDS: dict[type, str] = {int: "whole number", str: "text", list: "list", dict: "object"}


def read_json(path: Path, *keys: str, **kinds: type) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        keys: that it must have.
        kinds: the same, each with the type of its value: `tokens=int`.

    Raises:
        ValueError: when the file is damaged, holds no object, or lacks a key.
        FileNotFoundError: when there is none.
    """
    return _json_object(path.read_bytes(), f"{path}", keys, kinds)


def _json_object(data: bytes, where: str, keys: tuple[str, ...], kinds: dict[str, type]) -> dict[str, Any]:
    mend = "put back the file that was written, or make it again"
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:  # also of bytes that are no text
        raise ValueError(f"{where}: not readable as JSON ({error}); {mend}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: a JSON object should stand there, not {str(value)[:40]}; {mend}")
    if lacking := [key for key in (*keys, *kinds) if key not in value]:
        raise ValueError(f"{where}: has no {', '.join(lacking)}; {mend}")
    for key, kind in kinds.items():
        if not isinstance(value[key], kind) or isinstance(value[key], bool):
            raise ValueError(f"{where}: {key} is {str(value[key])[:40]!r}, no {_KINDS[kind]}; {mend}")
    return value


def read_manifest(folder: Path, *keys: str, **kinds: type) -> dict[str, Any]:
    """manifest.json of a published folder.

    Args:
        keys, kinds: that it must have, as of `read_json`.

    Raises:
        ValueError: when the folder or its manifest is missing or damaged, or lacks a key.
    """
    try:
        return read_json(folder / MANIFEST, *keys, **kinds)
    except FileNotFoundError:
        raise ValueError(f"{folder}: no {MANIFEST} there; give the folder of a snapshot, a merge or a run") from None


def complete_lines(path: Path) -> list[str]:
    """Lines of a file that is written a line at a time; a kill can leave the last half written.

    Raises:
        ValueError: for a file that is no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not readable as text ({error}); put back the file that was written") from None
    return text[: text.rfind("\n") + 1].splitlines()


def read_rows(path: Path, *keys: str, **kinds: type) -> list[dict[str, Any]]:
    """Rows of a file that is written a line at a time, as JSON objects; none where there is no file.

    Args:
        keys, kinds: that every row must have, as of `read_json`.

    Raises:
        ValueError: for a damaged line other than the last, which a kill can leave half written.
    """
    lines = complete_lines(path) if path.is_file() else []
    return [_json_object(line.encode(), f"{path}, line {i}", keys, kinds) for i, line in enumerate(lines, 1)]
