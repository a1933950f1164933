"""Checkpoints as they lie on disk, opened from their headers and read in pieces: what merging reads.

Detected from the files of a folder, in this order:

| format | files |
|---|---|
| safetensors | model.safetensors, or model.safetensors.index.json and its shards |
| torch | pytorch_model.bin, or pytorch_model.bin.index.json and its shards; opened with weights_only |
| dcp | .metadata and *.distcp: torch distributed checkpoint (torchtitan, OLMo-core, FSDP, Megatron's torch_dist) |

A source that is no folder here but reads `repo@revision` is fetched from the Hugging Face hub. No pickle is executed:
.bin goes through torch's weights_only, .metadata through an unpickler that knows DCP's own classes and nothing else.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

# Bytes of an element, by safetensors' names.
FLOATS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
INTEGERS = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
SIZES = FLOATS | INTEGERS

SAFETENSORS, TORCH, DCP = "model.safetensors", "pytorch_model.bin", ".metadata"
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)")
# What torch's distributed checkpoints hold beside a model. Anything else of theirs is named by the option prefix.
_NOT_THE_MODEL = re.compile(r"(.*\.)?(optimizers?|optim|opt_state|lr_scheduler|dataloader|train_state|rng_state)(\.|$)")


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
        """Whether it is averaged."""
        return self.dtype in FLOATS


class Source:
    """A checkpoint open for reading, from any number of threads.

    Attributes:
        name: as the user gave it.
        folder: where it lies.
        format: safetensors | torch | dcp.
        tensors: of each name, in the order of the names.
    """

    format = ""

    def __init__(self, name: str, folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
        self.name, self.folder = name, folder
        self.tensors = dict(sorted(tensors.items()))
        for tensor, info in self.tensors.items():
            if info.dtype not in SIZES:
                raise ValueError(
                    f"{name}: tensor {tensor} has type {info.dtype}, whose values mean nothing without their scales; "
                    f"convert the model to bfloat16 first"
                )

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        """Fill `out` (uint8) with the bytes of a tensor from element `start` on, in row-major order."""
        raise NotImplementedError

    def files(self) -> list[Path]:
        """The files that hold the weights; all others of the folder go with the model as they are."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the files back."""


def _pread(descriptor: int, out: np.ndarray, offset: int, path: Path) -> None:
    view = memoryview(out).cast("B")
    while view:
        got = os.preadv(descriptor, [view], offset)
        if not got:
            raise ValueError(f"{path}: ends early, at byte {offset}; it was cut while it was read")
        view, offset = view[got:], offset + got


# ---- safetensors -----------------------------------------------------------------------------------------------------


def _safetensors_header(path: Path) -> tuple[dict[str, tuple[TensorInfo, int]], int]:
    """Tensors of a file with the position of their first byte, and the size that the file must have."""
    mend = "fetch or train it again"
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, 100_000_000):
            raise ValueError(f"{path}: not a whole safetensors file ({size} bytes); {mend}")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise ValueError(
                f"{path}: its header is no JSON; not a safetensors file, or a damaged one; {mend}"
            ) from None
    header.pop("__metadata__", None)
    tensors, end = {}, 8 + length
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        info = TensorInfo(entry["dtype"], tuple(entry["shape"]))
        if info.dtype in SIZES and last - first != info.nbytes:
            raise ValueError(f"{path}: tensor {name} should hold {info.nbytes} bytes and holds {last - first}; {mend}")
        tensors[name] = info, 8 + length + first
        end = max(end, 8 + length + last)
    if end != size:
        raise ValueError(f"{path}: truncated or damaged: its header promises {end:,} bytes, it has {size:,}; {mend}")
    return tensors, end


class SafetensorsSource(Source):
    """Hugging Face safetensors, one file or shards."""

    format = "safetensors"

    def __init__(self, name: str, folder: Path) -> None:
        self._where: dict[str, tuple[Path, int]] = {}
        found: dict[str, TensorInfo] = {}
        self._files = _shards(folder, SAFETENSORS)
        for path, expected in self._files.items():
            tensors = _safetensors_header(path)[0]
            for tensor in expected - tensors.keys():
                raise ValueError(f"{path}: tensor {tensor} is not in it, although the index says so; fetch it again")
            for tensor, (info, offset) in tensors.items():
                found[tensor], self._where[tensor] = info, (path, offset)
        super().__init__(name, folder, found)
        self._descriptors = {path: os.open(path, os.O_RDONLY) for path in self._files}

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        path, offset = self._where[name]
        _pread(self._descriptors[path], out, offset + start * SIZES[self.tensors[name].dtype], path)

    def files(self) -> list[Path]:
        return list(self._files)

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}


def _shards(folder: Path, single: str) -> dict[Path, set[str]]:
    """Weight files of a folder in Hugging Face layout, with the tensors the index says they hold."""
    if (folder / single).is_file():
        return {folder / single: set()}
    index = folder / f"{single}.index.json"
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError):
        raise ValueError(f"{index}: not readable as an index of shards; fetch it again") from None
    shards: dict[Path, set[str]] = {}
    for tensor, file in weight_map.items():
        shards.setdefault(folder / Path(file).name, set()).add(tensor)
    for path in shards:
        if not path.is_file():
            raise ValueError(f"{path}: missing, but {index.name} names it; fetch it")
    return dict(sorted(shards.items()))


# ---- torch's own formats ---------------------------------------------------------------------------------------------


@cache
def _torch_names() -> dict[Any, str]:
    import torch

    names = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16", "BOOL": "bool"}
    names |= {f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)} | {
        f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)
    }
    return {getattr(torch, name): short for short, name in names.items()}


class TorchSource(Source):
    """pytorch_model.bin, one file or shards, memory-mapped."""

    format = "torch"

    def __init__(self, name: str, folder: Path) -> None:
        import torch

        self._files = _shards(folder, TORCH)
        self._loaded: dict[str, Any] = {}
        for path in self._files:
            try:
                state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
            except Exception as error:  # pickle's, zipfile's and torch's own
                first = str(error).strip().split("\n")[0]
                raise ValueError(
                    f"{path}: not a whole state dict in torch's zip format ({first}); save it again with torch.save"
                ) from None
            for tensor, value in state.items():
                if not isinstance(value, torch.Tensor):
                    raise ValueError(f"{path}: {tensor} is no tensor; give a plain state dict of the model")
                self._loaded[tensor] = value.detach().contiguous()
        infos = {
            k: TensorInfo(_torch_names().get(v.dtype, str(v.dtype)), tuple(v.shape)) for k, v in self._loaded.items()
        }
        super().__init__(name, folder, infos)

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        import torch

        tensor = self._loaded[name].reshape(-1)
        part = tensor[start : start + out.nbytes // tensor.element_size()]
        out[...] = part.view(torch.uint8).numpy()

    def files(self) -> list[Path]:
        return list(self._files)

    def close(self) -> None:
        self._loaded = {}


class _Window:
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


class MetadataUnpickler(pickle.Unpickler):
    """Knows the classes that DCP's metadata is made of, and refuses any other."""

    def find_class(self, module: str, name: str) -> Any:
        import collections
        import pathlib

        import torch
        from torch.distributed.checkpoint import filesystem, metadata

        if module == "torch.serialization" and name == "_get_layout":
            return torch.serialization._get_layout
        if module in ("torch", "torch._C") and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        known = [getattr(metadata, n) for n in (*metadata.__all__, "_MEM_FORMAT_ENCODING") if hasattr(metadata, n)]
        known += [filesystem._StorageInfo, torch.Size, collections.OrderedDict, pathlib.PosixPath, pathlib.Path]
        for one in known:
            if one.__name__ == name and (one.__module__ == module or module in ("torch", "pathlib", "pathlib._local")):
                return one
        raise pickle.UnpicklingError(f"it names {module}.{name}, which metadata of a checkpoint does not need")


@dataclass(frozen=True)
class _Shard:
    """One piece of a tensor: where it lies in the tensor, and its bytes in a file."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    path: Path
    at: int  # first byte in the file


class DcpSource(Source):
    """A torch distributed checkpoint: every tensor whole in memory is never needed, whatever its sharding was."""

    format = "dcp"

    def __init__(self, name: str, folder: Path) -> None:
        from torch.distributed.checkpoint.metadata import TensorStorageMetadata

        self._maps: dict[Path, mmap.mmap] = {}
        metadata = self._metadata(folder / DCP)
        items: dict[str, list[tuple[tuple[int, ...], Any]]] = {}
        for index, info in metadata.storage_data.items():
            items.setdefault(index.fqn, []).append((tuple(index.offset or ()), info))
        infos: dict[str, TensorInfo] = {}
        self._shards: dict[str, list[_Shard]] = {}
        for tensor, kept in metadata.state_dict_metadata.items():
            if not isinstance(kept, TensorStorageMetadata) or _NOT_THE_MODEL.match(tensor):
                continue
            dtype = _torch_names().get(kept.properties.dtype, str(kept.properties.dtype))
            infos[tensor] = TensorInfo(dtype, tuple(kept.size))
            sizes = {tuple(chunk.offsets): tuple(chunk.sizes) for chunk in kept.chunks}
            where = {offset or (0,) * len(kept.size): info for offset, info in items.get(tensor, [])}
            missing = sizes.keys() - where.keys()
            if missing or sum(map(math.prod, sizes.values())) != infos[tensor].count:
                raise ValueError(f"{folder}: tensor {tensor} is not whole in it; save the checkpoint again")
            self._shards[tensor] = sorted(
                (self._shard(folder, tensor, at, sizes[at], info, dtype) for at, info in where.items() if at in sizes),
                key=lambda shard: shard.offsets,
            )
        super().__init__(name, folder, infos)

    def _metadata(self, path: Path) -> Any:
        try:
            with open(path, "rb") as file:
                return MetadataUnpickler(file).load()
        except (pickle.UnpicklingError, EOFError, AttributeError, TypeError) as error:
            raise ValueError(f"{path}: not the metadata of a torch distributed checkpoint ({error})") from None

    def _map(self, path: Path) -> memoryview:
        if path not in self._maps:
            with open(path, "rb") as file:
                self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return memoryview(self._maps[path])

    def _shard(
        self, folder: Path, tensor: str, offsets: tuple[int, ...], sizes: tuple[int, ...], info: Any, dtype: str
    ) -> _Shard:
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode

        path = folder / info.relative_path
        if getattr(info, "transform_descriptors", None):
            raise ValueError(f"{path}: compressed ({info.transform_descriptors}); save it without transforms")
        if not path.is_file() or path.stat().st_size < info.offset + info.length:
            raise ValueError(f"{path}: missing or truncated: {tensor} lies beyond its end; fetch it or save it again")
        window = _Window(self._map(path)[info.offset : info.offset + info.length])
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
        return _Shard(offsets, sizes, path, info.offset + data[0].header_offset + 30 + names)

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        info = self.tensors[name]
        size = SIZES[info.dtype]
        row = math.prod(info.shape[1:]) * size if info.shape else size
        first, last = start * size // row, -(-(start * size + out.nbytes) // row)
        rows = np.empty((last - first, *info.shape[1:]), f"V{size}")
        for shard in self._shards[name]:
            self._copy(shard, rows, first, last, size)
        out[...] = rows.reshape(-1).view(np.uint8)[start * size - first * row :][: out.nbytes]

    def _copy(self, shard: _Shard, rows: np.ndarray, first: int, last: int, size: int) -> None:
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

    def files(self) -> list[Path]:
        return [self.folder / DCP, *sorted(self.folder.glob("*.distcp"))]

    def close(self) -> None:
        self._maps = {}


# ---- opening ---------------------------------------------------------------------------------------------------------


class _Prefixed(Source):
    """The tensors of a source under a prefix, without it."""

    def __init__(self, inner: Source, prefix: str) -> None:
        self._inner, self._prefix, self.format = inner, prefix, inner.format
        tensors = {k.removeprefix(prefix): v for k, v in inner.tensors.items() if k.startswith(prefix)}
        if not tensors:
            some = ", ".join(list(inner.tensors)[:3])
            raise ValueError(f"prefix={prefix}: no tensor of {inner.name} begins so; it has {some}, ...")
        super().__init__(inner.name, inner.folder, tensors)

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        self._inner.read(self._prefix + name, start, out)

    def files(self) -> list[Path]:
        return self._inner.files()

    def close(self) -> None:
        self._inner.close()


def fetch(name: str) -> Path:
    """The folder of a source: a folder here, or `repo@revision` of the Hugging Face hub, fetched into its cache.

    Raises:
        ValueError: when it is neither, or the hub does not give it.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    match = _HUB.fullmatch(name)
    if match is None:
        raise ValueError(f"{name}: no such folder; give a model folder, or a hub model as repo@revision")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, revision = match["repo"], match["revision"]
    try:
        listed = HfApi().list_repo_files(repo, revision=revision)
        safe = any(file.endswith(".safetensors") for file in listed)  # many repositories hold both
        weights = ["*.safetensors", "*.safetensors.index.json"] if safe else ["*.bin", "*.bin.index.json"]
        patterns = [*weights, "*.json", "*.model", "*.txt", "*.jinja"]
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{name}: the hub did not give it ({first}); check the names, the network and HF_TOKEN"
        ) from None


def open_source(name: str | Path, prefix: str | None = None) -> Source:
    """Open a checkpoint from its headers alone.

    Args:
        prefix: take only the tensors whose name begins with it, and take it off.

    Raises:
        ValueError: when nothing readable is there, or not all of it, saying what is missing.
    """
    folder = fetch(str(name))
    kinds = {SAFETENSORS: SafetensorsSource, TORCH: TorchSource}
    for file, kind in kinds.items():
        if (folder / file).is_file() or (folder / f"{file}.index.json").is_file():
            source = kind(str(name), folder)
            break
    else:
        if not (folder / DCP).is_file():
            raise ValueError(
                f"{name}: no checkpoint in it; looked for {SAFETENSORS}, {TORCH}, their index.json, and the {DCP} of a "
                f"torch distributed checkpoint"
            )
        source = DcpSource(str(name), folder)
    return source if prefix is None else _Prefixed(source, prefix)


def iterate_spans(info: TensorInfo, span: int) -> Iterator[tuple[int, int]]:
    """(start, count) of consecutive spans of at most `span` elements; one empty span for an empty tensor."""
    for start in range(0, max(info.count, 1), span):
        yield start, min(span, info.count - start)
