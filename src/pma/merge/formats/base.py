"""What every format gives: tensors by name, their types and shapes, and their bytes from any element on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

# Bytes of an element, by safetensors' names.
FLOATS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
INTEGERS = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
SCALED = {"F8_E4M3": 1, "F8_E5M2": 1}  # numbers of which another tensor holds the scales
SIZES = FLOATS | INTEGERS | SCALED

SAFETENSORS, TORCH, DCP = "model.safetensors", "pytorch_model.bin", ".metadata"
DCP_HOMES = (".", "model_and_optim", "weights", "pytorch_model_fsdp_0")  # OLMo-core, NeMo, accelerate
SPAN = 2**22  # elements: the unit of work and of hashing, so a change of it changes every content hash


@dataclass(frozen=True)
class TensorInfo:
    """Type (safetensors' name) and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes."""
        return self.count * SIZES[self.dtype]

    @property
    def floating(self) -> bool:
        """Whether the tensor is averaged."""
        return self.dtype in FLOATS


@dataclass(frozen=True)
class Piece:
    """A box of a tensor that lies row by row in a file.

    Attributes:
        offsets: where the box begins in the tensor.
        sizes: its sides.
        at: its first byte in the file.
        archive: first byte, and the one after the last, of the zip of torch.save that it lies in; null: in none.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    path: Path
    at: int
    archive: tuple[int, int] | None = None


class Source:
    """A checkpoint open for reading, from any number of threads.

    Attributes:
        name: as the user gave it.
        folder: where it lies, with its config and tokenizer.
        format: safetensors | torch | dcp.
        tensors: type and shape of each tensor, in the order of the names.
        whole: whether it is all that `folder` holds, so that a manifest there speaks of it.
        chosen: whether `state` decided already, between the entries of a file, so that no names of tensors have to.
        dequantized: whether scaled types were multiplied by their scales.
        inner: the source that this one is a view of, where it is one.
        adapter: config of a merge of LoRA adapters, where it is one.
        copied: floating tensors that a merge takes from the newest source instead of averaging them.
    """

    whole = True
    chosen = False
    dequantized = False
    adapter: dict[str, Any] | None = None
    inner: Source
    copied: frozenset[str] = frozenset()
    format = ""

    def __init__(self, name: str, folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
        self.name, self.folder = name, folder
        self.tensors = dict(sorted(tensors.items()))

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        """Fill `out` (uint8) with the bytes of a tensor from element `start` on, in row-major order."""
        raise NotImplementedError

    def pieces(self, name: str) -> list[Piece]:
        """Where a tensor lies, as it is stored.

        Raises:
            ValueError: when it is not stored row by row.
        """
        raise NotImplementedError

    def files(self) -> list[Path]:
        """The files that hold the weights; all others of the folder go with the model as they are."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the files."""


class View(Source):
    """Another source with some of its tensors left out, renamed or changed."""

    def __init__(self, inner: Source, tensors: Mapping[str, TensorInfo]) -> None:
        super().__init__(inner.name, inner.folder, tensors)
        self.inner, self.format, self.dequantized, self.whole = inner, inner.format, inner.dequantized, inner.whole

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        self.inner.read(name, start, out)

    def pieces(self, name: str) -> list[Piece]:
        return self.inner.pieces(name)

    def files(self) -> list[Path]:
        return self.inner.files()

    def close(self) -> None:
        self.inner.close()


def dcp_home(folder: Path) -> Path | None:
    """Where the torch distributed checkpoint of a folder lies, in it or in one of the places that writers choose."""
    return next((folder / home for home in DCP_HOMES if (folder / home / DCP).is_file()), None)


def iterate_spans(info: TensorInfo) -> Iterator[tuple[int, int]]:
    """Yield (start, count) of consecutive spans of at most SPAN elements; one empty span for an empty tensor."""
    for start in range(0, max(info.count, 1), SPAN):
        yield start, min(SPAN, info.count - start)


def inside(folder: Path, name: str, where: Path) -> Path:
    """The file of a folder that an index names.

    Raises:
        ValueError: when the name leads out of the folder.
    """
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(
            f"{where}: names {name}, which lies outside of {folder}; fetch it again from a source you trust"
        )
    return folder / relative


def shards_of(folder: Path, single: str) -> dict[Path, set[str]]:
    """Weight files of a folder in Hugging Face layout, with the tensors that the index says they hold.

    Args:
        single: name of the file that holds all weights, where they are not in shards.

    Raises:
        ValueError: when the index is damaged or names a file that is missing.
    """
    if (folder / single).is_file():
        return {folder / single: set()}
    index = folder / f"{single}.index.json"
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
    except (ValueError, KeyError, TypeError):
        weight_map = None
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise ValueError(f"{index}: not readable as an index of shards; fetch it again")
    shards: dict[Path, set[str]] = {}
    for tensor, file in weight_map.items():
        shards.setdefault(inside(folder, file, index), set()).add(tensor)
    for path in shards:
        if not path.is_file():
            raise ValueError(f"{path}: missing, but {index.name} names it; fetch it")
    return dict(sorted(shards.items()))
