"""Tensors overwritten where they lie in a copy of a checkpoint, so that its files keep all that is around them."""

from __future__ import annotations

import mmap
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pma.merge.formats import SIZES, Piece, TensorInfo

_SIGNATURE = b"PK\x07\x08"
_ZERO = np.zeros(2**20, np.uint8)


class Patch:
    """The tensors of a copied checkpoint, filled in any order and from any process.

    Args:
        tensors: type and shape of each, and where it lies in the checkpoint that was copied.
        original: folder of that checkpoint.
        copy: folder of the copy.
    """

    def __init__(self, tensors: Mapping[str, tuple[TensorInfo, Sequence[Piece]]], original: Path, copy: Path) -> None:
        self._tensors = tensors
        paths = {piece.path for _, pieces in tensors.values() for piece in pieces}
        self._copies = {path: copy / path.relative_to(original) for path in paths}
        self._files = {path: os.open(copied, os.O_RDWR) for path, copied in self._copies.items()}

    def write(self, name: str, start: int, values: np.ndarray) -> None:
        """Put elements of a tensor (contiguous, in its storage type) in place.

        Raises:
            OSError: when the disk cannot hold them.
        """
        info, pieces = self._tensors[name]
        size = SIZES[info.dtype]
        view = memoryview(values).cast("B")
        shape = info.shape or (1,)
        for piece in pieces:
            for block, box, count in _runs(piece.offsets or (0,), piece.sizes or (1,), shape, start, len(values)):
                self._put(piece.path, piece.at + box * size, view[block * size : (block + count) * size])

    def zero(self, name: str) -> None:
        """Make all elements of a tensor 0."""
        info, pieces = self._tensors[name]
        for piece in pieces:
            end = piece.at + TensorInfo(info.dtype, piece.sizes).nbytes
            for at in range(piece.at, end, len(_ZERO)):
                self._put(piece.path, at, memoryview(_ZERO)[: end - at])

    def _put(self, path: Path, at: int, view: memoryview) -> None:
        while view:
            done = os.pwrite(self._files[path], view, at)
            view, at = view[done:], at + done

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}

    def seal(self) -> None:
        """Write the checksums of what was changed into the zips of torch.save: torch ignores them, unzip does not."""
        archives = {(piece.path, piece.archive) for _, pieces in self._tensors.values() for piece in pieces}
        for path, archive in sorted(archives, key=str):
            if archive is not None:
                _renew_checksums(self._copies[path], *archive)


def _runs(
    offsets: Sequence[int], sizes: Sequence[int], shape: Sequence[int], start: int, count: int
) -> Iterator[tuple[int, int, int]]:
    """Stretches of the elements `start` to `start + count` of a tensor that lie in a box of it.

    Yields:
        First element in the block, first element in the box, and how many.
    """
    row, inner = int(np.prod(shape[1:])), int(np.prod(sizes[1:]))
    end = start + count
    if row == inner:  # whole rows of the tensor
        low, high = max(start, offsets[0] * row), min(end, (offsets[0] + sizes[0]) * row)
        if low < high:
            yield low - start, low - offsets[0] * row, high - low
        return
    for at in range(max(offsets[0], start // row), min(offsets[0] + sizes[0], -(-end // row))):
        low, high = max(start, at * row), min(end, (at + 1) * row)
        for block, box, length in _runs(offsets[1:], sizes[1:], shape[1:], low - at * row, high - low):
            yield low - start + block, (at - offsets[0]) * inner + box, length


def _renew_checksums(path: Path, begin: int, end: int) -> None:
    from pma.merge.formats.dcp import Window

    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        whole = memoryview(mapped)
        data = whole[begin:end]
        with zipfile.ZipFile(Window(data)) as archive:
            entries, directory = archive.infolist(), archive.start_dir
        for entry in entries:  # in the order of the directory
            lengths = [int.from_bytes(data[directory + i : directory + i + 2], "little") for i in (28, 30, 32)]
            at = _data(data, entry.header_offset)
            checksum = zlib.crc32(data[at : at + entry.file_size]).to_bytes(4, "little")
            behind = at + entry.file_size  # where torch puts the checksum, after a signature
            first = behind + 4 if bytes(data[behind : behind + 4]) == _SIGNATURE else entry.header_offset + 14
            for place in (first, directory + 16):
                data[place : place + 4] = checksum
            directory += 46 + sum(lengths)
        data.release()
        whole.release()


def _data(archive: memoryview, header: int) -> int:
    """First byte of an entry's data, behind its header."""
    return header + 30 + sum(int.from_bytes(archive[header + i : header + i + 2], "little") for i in (26, 28))
