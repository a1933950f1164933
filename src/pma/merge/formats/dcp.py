"""Torch distributed checkpoints: their shards read in pieces, whatever the sharding was, and no pickle executed.

The shards are what torch.save writes, a zip whose one entry holds the numbers as they are: they are mapped, never
loaded. pma.merge.formats.dcp_metadata reads where they lie.
"""

from __future__ import annotations

import math
import mmap
import re
import zipfile
from bisect import bisect_left
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from pma.merge.formats.base import DCP, SIZES, Piece, Source, TensorInfo, dcp_home, inside
from pma.merge.formats.dcp_metadata import read_metadata
from pma.merge.formats.torch import torch_dtypes

# What torch's distributed checkpoints hold beside a model. Anything else is named by the option prefix.
_NOT_THE_MODEL = re.compile(r"(.*\.)?(optimizers?|optim|opt_state|lr_scheduler|dataloader|train_state|rng_state)(\.|$)")


class Window:
    """A stretch of a memory-mapped file as a file of its own, for zipfile and torch."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def read(self, size: int | None = -1) -> bytes:
        end = len(self._data) if size is None or size < 0 else self._at + size
        part = bytes(self._data[self._at : end])
        self._at += len(part)
        return part

    def readline(self) -> bytes:
        raise NotImplementedError

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, len(self._data))[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True


def is_model(tensor: str) -> bool:
    """Whether a tensor of a distributed checkpoint belongs to the model, by its name."""
    return not _NOT_THE_MODEL.match(tensor)


def _tile(shape: tuple[int, ...], boxes: Mapping[tuple[int, ...], tuple[int, ...]]) -> bool:
    """Whether boxes, their sides by where they begin, hold each element of a tensor once."""
    if not math.prod(shape):
        return True
    edges = []
    for axis, side in enumerate(shape):
        places = {0, side}.union(*((at[axis], at[axis] + sides[axis]) for at, sides in boxes.items()))
        edges.append(sorted(places))
        if edges[-1][0] < 0 or edges[-1][-1] > side:
            return False
    held = np.zeros([len(places) - 1 for places in edges], np.uint32)  # of the cells between the edges
    for at, sides in boxes.items():
        spans = zip(edges, at, sides, strict=True)
        held[tuple(slice(bisect_left(e, first), bisect_left(e, first + side)) for e, first, side in spans)] += 1
    return bool((held == 1).all())


class DcpSource(Source):
    """A torch distributed checkpoint. No tensor is ever whole in memory.

    Args:
        home: where it lies, in the folder or below it; null: the first such place.
        keep: which tensors are read, by name.
    """

    format = "dcp"

    def __init__(
        self, name: str, folder: Path, home: Path | None = None, keep: Callable[[str], bool] = is_model
    ) -> None:
        self._maps: dict[Path, mmap.mmap] = {}
        self._home = home or dcp_home(folder) or folder
        contents = read_metadata(self._home / DCP)
        items: dict[str, list[tuple[tuple[int, ...], Any]]] = {}
        for index, info in contents.storage_data.items():
            items.setdefault(index.fqn, []).append((tuple(index.offset or ()), info))
        infos: dict[str, TensorInfo] = {}
        self._shards: dict[str, list[Piece]] = {}
        for tensor, kept in contents.state_dict_metadata.items():
            if not isinstance(kept, TensorStorageMetadata) or not keep(tensor):
                continue
            dtype = torch_dtypes().get(kept.properties.dtype, str(kept.properties.dtype))
            infos[tensor] = TensorInfo(dtype, tuple(kept.size))
            sizes = {tuple(chunk.offsets): tuple(chunk.sizes) for chunk in kept.chunks}
            where = {offset or (0,) * len(kept.size): info for offset, info in items.get(tensor, [])}
            if sizes.keys() - where.keys() or not _tile(infos[tensor].shape, sizes):
                raise ValueError(f"{folder}: tensor {tensor} is not whole in it; save the checkpoint again")
            self._shards[tensor] = sorted(
                (self._shard(tensor, at, sizes[at], info, dtype) for at, info in where.items() if at in sizes),
                key=lambda shard: shard.offsets,
            )
        super().__init__(name, folder, infos)

    def _map(self, path: Path) -> memoryview:
        if path not in self._maps:
            with open(path, "rb") as file:
                self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return memoryview(self._maps[path])

    def _shard(self, tensor: str, offsets: tuple[int, ...], sizes: tuple[int, ...], info: Any, dtype: str) -> Piece:
        path = inside(self._home, str(info.relative_path), self._home / DCP)
        if getattr(info, "transform_descriptors", None):
            raise ValueError(f"{path}: compressed ({info.transform_descriptors}); save it without transforms")
        if not info.length or not path.is_file() or path.stat().st_size < info.offset + info.length:
            raise ValueError(f"{path}: missing or truncated: {tensor} lies beyond its end; fetch it or save it again")
        window = Window(self._map(path)[info.offset : info.offset + info.length])
        try:
            with zipfile.ZipFile(window) as archive:  # torch.save's zip: one storage, stored as it is
                data = [entry for entry in archive.infolist() if entry.filename.endswith("/data/0")]
                stored = data[0].compress_type == zipfile.ZIP_STORED and data[0].file_size
            window.seek(0)
            with FakeTensorMode():
                like = torch.load(window, weights_only=True)
        except Exception as error:
            raise ValueError(f"{path}: {tensor} is not stored as torch.save does ({error}); save it again") from None
        if stored != math.prod(sizes) * SIZES.get(dtype, 1) or not like.is_contiguous() or tuple(like.shape) != sizes:
            raise ValueError(f"{path}: {tensor} is not stored row by row; save it from contiguous tensors")
        header = self._map(path)[info.offset + data[0].header_offset :][:30]
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        at, end = info.offset + data[0].header_offset + 30 + names, info.offset + info.length
        return Piece(offsets, sizes, path, at, (info.offset, end))

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        info = self.tensors[name]
        size = SIZES[info.dtype]
        row = math.prod(info.shape[1:]) * size if info.shape else size
        first, last = start * size // row, -(-(start * size + out.nbytes) // row)
        rows = np.empty((last - first, *info.shape[1:]), f"V{size}")
        for shard in self._shards[name]:
            self._copy(shard, rows, first, last, size)
        out[...] = rows.reshape(-1).view(np.uint8)[start * size - first * row :][: out.nbytes]

    def _copy(self, shard: Piece, rows: np.ndarray, first: int, last: int, size: int) -> None:
        offsets, sizes = shard.offsets or (0,), shard.sizes or (1,)
        low, high = max(first, offsets[0]), min(last, offsets[0] + sizes[0])
        if low >= high or not math.prod(sizes):
            return
        inner = math.prod(sizes[1:])
        at = shard.at + (low - offsets[0]) * inner * size
        part = np.frombuffer(self._map(shard.path)[at : at + (high - low) * inner * size], f"V{size}")
        target = (
            slice(low - first, high - first),
            *(slice(o, o + s) for o, s in zip(offsets[1:], sizes[1:], strict=True)),
        )
        rows[target] = part.reshape(high - low, *sizes[1:])

    def pieces(self, name: str) -> list[Piece]:
        return self._shards[name]

    def files(self) -> list[Path]:
        return [self._home / DCP, *sorted(self._home.glob("*.distcp"))]

    def close(self) -> None:
        self._maps = {}
