"""Hugging Face safetensors: headers checked as the safetensors library checks them, bytes read where they lie."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from pma.merge.formats.base import SAFETENSORS, SIZES, Piece, Source, TensorInfo, shards_of

_LONGEST_HEADER = 100_000_000  # bytes, the library's own limit
_MEND = "fetch or train it again"


class SafetensorsSource(Source):
    """One file or shards.

    Args:
        single: name of the file that holds all weights, where they are not in shards.
    """

    format = "safetensors"

    def __init__(self, name: str, folder: Path, single: str = SAFETENSORS) -> None:
        self._where: dict[str, tuple[Path, int]] = {}
        infos: dict[str, TensorInfo] = {}
        self._files = shards_of(folder, single)
        for path, listed in self._files.items():
            tensors = read_header(path)
            for tensor in sorted(listed - tensors.keys()):
                raise ValueError(f"{path}: tensor {tensor} is not in it, although the index says so; fetch it again")
            for tensor, (info, offset) in tensors.items():
                if tensor in infos:
                    other = self._where[tensor][0].name
                    raise ValueError(f"{path}: tensor {tensor} is in {other} too; {_MEND}")
                infos[tensor], self._where[tensor] = info, (path, offset)
        super().__init__(name, folder, infos)
        self._descriptors = {path: os.open(path, os.O_RDONLY) for path in self._files}

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        path, offset = self._where[name]
        _pread(self._descriptors[path], out, offset + start * SIZES[self.tensors[name].dtype], path)

    def pieces(self, name: str) -> list[Piece]:
        shape = self.tensors[name].shape
        return [Piece((0,) * len(shape), shape, *self._where[name])]

    def files(self) -> list[Path]:
        return list(self._files)

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}


def _pread(descriptor: int, out: np.ndarray, offset: int, path: Path) -> None:
    view = memoryview(out).cast("B")
    while view:
        count = os.preadv(descriptor, [view], offset)
        if not count:
            raise ValueError(f"{path}: ends early, at byte {offset}; it was cut while it was read")
        view, offset = view[count:], offset + count


def read_header(path: Path) -> dict[str, tuple[TensorInfo, int]]:
    """Tensors of a safetensors file, each with the position of its first byte in the file.

    Raises:
        ValueError: naming the file and the tensor, when the header is damaged, repeats a name, or its tensors do not
            lie one behind the other from the first byte of the data to the last.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"{path}: not a whole safetensors file ({size} bytes); {_MEND}")
        header = _parse(path, file.read(length))
    entries = {name: _entry(path, name, entry) for name, entry in header.items() if name != "__metadata__"}
    position = 0
    for name, (info, first, last) in sorted(entries.items(), key=lambda item: item[1][1:]):
        if first != position:
            problem = "overlaps the tensor before it" if first < position else "leaves a gap before it"
            raise ValueError(f"{path}: tensor {name} {problem} (bytes {first} to {last}, not from {position}); {_MEND}")
        if info.dtype in SIZES and last - first != info.nbytes:
            raise ValueError(f"{path}: tensor {name} should hold {info.nbytes} bytes and holds {last - first}; {_MEND}")
        position = last
    begin = 8 + length
    if begin + position != size:
        promised = f"its header promises {begin + position:,} bytes, it has {size:,}"
        raise ValueError(f"{path}: truncated or damaged: {promised}; {_MEND}")
    return {name: (info, begin + first) for name, (info, first, _) in entries.items()}


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys: set[str] = set()
        for key, _ in pairs:
            if key in keys:
                raise KeyError(key)
            keys.add(key)
        return dict(pairs)

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except KeyError as error:
        raise ValueError(f"{path}: its header names {error.args[0]} twice; {_MEND}") from None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ValueError(f"{path}: its header is no JSON; not a safetensors file, or a damaged one; {_MEND}")
    return header


def _entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    """Type and shape, first byte, and byte after the last, counted from the beginning of the data."""

    def whole(values: Any) -> bool:
        return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)

    try:
        dtype, shape, offsets = (entry[key] for key in ("dtype", "shape", "data_offsets"))
    except (KeyError, TypeError):
        raise ValueError(f"{path}: tensor {name} has no dtype, shape and data_offsets in the header; {_MEND}") from None
    if not isinstance(dtype, str) or not whole(shape) or not whole(offsets) or len(offsets) != 2:
        raise ValueError(
            f"{path}: tensor {name} has an impossible dtype, shape or data_offsets ({dtype}, {shape}, {offsets}); "
            f"{_MEND}"
        )
    return TensorInfo(dtype, tuple(shape)), offsets[0], offsets[1]
