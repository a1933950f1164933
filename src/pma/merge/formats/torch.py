"""Files of torch.save, read through torch's weights_only loader, memory-mapped.

Which part of a file is the model, in this order: what `key` names; the file itself, where all its values are tensors;
the one entry whose values all are (Lightning's `state_dict`, or `model`, `module`, ...). Where several entries are,
optimizers, schedulers and generators of random numbers are left out; if several remain, the user has to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pma.merge.formats.base import Piece, Source, TensorInfo
from pma.merge.formats.part import is_copy

_NO_MODEL = re.compile(r"optim|sched|rng|random|scaler", re.IGNORECASE)
_EXTRA = "_extra_state"  # what layers of Transformer Engine keep beside their weights


@cache
def torch_dtypes() -> dict[torch.dtype, str]:
    """Safetensors' name of each type that torch and safetensors both know."""
    names = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16", "BOOL": "bool"}
    names |= {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
    for bits in (8, 16, 32, 64):
        names |= {f"I{bits}": f"int{bits}", f"U{bits}": f"uint{bits}"}
    return {getattr(torch, name): short for short, name in names.items()}


class TorchSource(Source):
    """One file or shards.

    Args:
        folder: where its config lies.
        files: the file, or all shards.
        key: path of the state dict in a file, with dots between the entries.
        state: model | ema; null: a file holds one of them.
    """

    format = "torch"

    def __init__(
        self, name: str, folder: Path, files: list[Path], key: str | None = None, state: str | None = None
    ) -> None:
        self._files, self._key, self._state = files, key, state
        self._loaded: dict[str, torch.Tensor] = {}
        for path in self._files:
            for tensor, value in self._tensors(path).items():
                if value.layout != torch.strided or value.is_meta or value.is_quantized:
                    raise ValueError(
                        f"{path}: {tensor} is a sparse, quantized or empty (meta) tensor; save its plain values"
                    )
                self._loaded[tensor] = value.detach().contiguous()
        infos = {
            k: TensorInfo(torch_dtypes().get(v.dtype, str(v.dtype)), tuple(v.shape)) for k, v in self._loaded.items()
        }
        super().__init__(name, folder, infos)

    def _tensors(self, path: Path) -> dict[str, torch.Tensor]:
        """The tensors of a file that are merged, as they lie in it."""
        tensors, chosen = state_dict(path, self._key, self._state)
        self.chosen |= chosen
        return tensors

    @cached_property
    def _where(self) -> dict[str, tuple[Path, torch.Tensor]]:
        """File of each tensor, and what says where in it: a tensor without numbers."""
        with FakeTensorMode():
            return {name: (path, value) for path in self._files for name, value in self._tensors(path).items()}

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        tensor = self._loaded[name].reshape(-1)
        part = tensor[start : start + out.nbytes // tensor.element_size()]
        out[...] = part.view(torch.uint8).numpy()

    def pieces(self, name: str) -> list[Piece]:
        path, value = self._where[name]
        if not value.is_contiguous():
            raise ValueError(f"{path}: {name} is not stored row by row; save it from contiguous tensors")
        at = value.untyped_storage()._checkpoint_offset + value.storage_offset() * value.element_size()
        return [Piece((0,) * value.dim(), tuple(value.shape), path, at, (0, path.stat().st_size))]

    def files(self) -> list[Path]:
        return list(self._files)

    def close(self) -> None:
        self._loaded = {}


class TorchState(TorchSource):
    """All tensors of one file, each under the path that leads to it: `state.0.exp_avg`.

    Args:
        prefix: what stands before every path.
        keep: which tensors are read, by path without the prefix.
    """

    def __init__(
        self, name: str, folder: Path, path: Path, prefix: str = "", keep: Callable[[str], bool] = lambda path: True
    ) -> None:
        self._prefix, self._keep = prefix, keep
        super().__init__(name, folder, [path])

    def _tensors(self, path: Path) -> dict[str, torch.Tensor]:
        return {f"{self._prefix}{k}": value for k, value in _flat(_load(path), "") if self._keep(k)}


def _flat(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path.removeprefix("."), value
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from _flat(entry, f"{path}.{key}")


def _load(path: Path) -> Any:
    """What a file of torch.save holds, memory-mapped.

    Raises:
        ValueError: when the file is damaged, or needs code of its own to be read.
    """
    try:
        return torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # pickle's, zipfile's and torch's own
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{path}: not a whole state dict in torch's zip format ({_blamed(error) or first}); load it where you "
            f"trust it, and save its state dict again with torch.save"
        ) from None


def state_dict(path: Path, key: str | None = None, state: str | None = None) -> tuple[dict[str, torch.Tensor], bool]:
    """Tensors of the model in a file of torch.save, and whether `state` decided which they are.

    Raises:
        ValueError: when the file is damaged, needs code of its own to be read, or does not say which part is the model.
    """
    contents = _load(path)
    chosen = False
    if key is not None:
        contents = _entry(path, contents, key)
    elif not _all_tensors(contents):
        contents, chosen = _only_state_dict(path, contents, state)
    for tensor, value in contents.items():
        if not isinstance(value, torch.Tensor) and not str(tensor).endswith(_EXTRA):
            raise ValueError(f"{path}: {tensor} is no tensor; name the state dict of the model in it with key=NAME")
    tensors = {str(k): v for k, v in contents.items() if isinstance(v, torch.Tensor) and not str(k).endswith(_EXTRA)}
    return tensors, chosen


def _blamed(error: Exception) -> str:
    """The class that weights_only does not load, where the message names one."""
    match = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
    return f"it holds an object of {match[1]}, which weights_only does not load" if match else ""


def _all_tensors(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    kept = [v for k, v in value.items() if not str(k).endswith(_EXTRA)]
    return bool(kept) and all(isinstance(v, torch.Tensor) for v in kept)


def _entry(path: Path, contents: Any, key: str) -> Mapping[Any, Any]:
    for step in key.split("."):
        if not isinstance(contents, Mapping) or step not in contents:
            there = ", ".join(map(str, contents)) if isinstance(contents, Mapping) else f"a {type(contents).__name__}"
            raise ValueError(f"{path}: key={key}: no {step} there, only {there[:200]}")
        contents = contents[step]
    if not isinstance(contents, Mapping) or not contents:
        raise ValueError(f"{path}: key={key}: that is no state dict but a {type(contents).__name__}")
    return contents


def _only_state_dict(path: Path, contents: Any, state: str | None) -> tuple[Mapping[Any, Any], bool]:
    if not isinstance(contents, Mapping):
        raise ValueError(f"{path}: holds a {type(contents).__name__} and no state dict; save model.state_dict()")
    entries = [str(k) for k, value in contents.items() if _all_tensors(value)]
    if len(entries) > 1:
        entries = [entry for entry in entries if not _NO_MODEL.search(entry)]
    several = len(entries) > 1
    if state is not None and several:
        entries = [entry for entry in entries if is_copy(entry) == (state == "ema")]
    if len(entries) == 1:
        chosen = state is not None and is_copy(entries[0]) == (state == "ema") and (several or state == "ema")
        return next(value for k, value in contents.items() if str(k) == entries[0]), chosen
    some = ", ".join(map(str, list(contents)[:8])) or "nothing"
    if not entries:
        raise ValueError(f"{path}: not a state dict, nor is one an entry of it; it has {some}; name it with key=PATH")
    raise ValueError(f"{path}: {' and '.join(entries)} are state dicts; say which to merge with key={entries[0]}")
