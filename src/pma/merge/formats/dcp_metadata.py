"""`.metadata` of a torch distributed checkpoint, read without running anything that it names.

It is a pickle. An unpickler that knows DCP's own classes reads it. Writers put objects of their own beside them:
Megatron-Core its plans of saving, OLMo-core its records of where a tensor lies. Those become empty objects that keep
the name and the values that stand in the file; their packages are not needed, and none of their code is called.
"""

from __future__ import annotations

import collections
import pathlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import filesystem, metadata

_KNOWN = [getattr(metadata, name) for name in (*metadata.__all__, "_MEM_FORMAT_ENCODING") if hasattr(metadata, name)]
_KNOWN += [filesystem._StorageInfo, torch.Size, collections.OrderedDict, pathlib.PosixPath, pathlib.Path]
_MEND = "save the checkpoint again"


class Unknown:
    """An object of a class that is only known by name: it holds what the file says of it and does nothing."""

    name = ""

    def __init__(self, *values: Any, **named: Any) -> None:
        self.values = [*values, *named.values()]

    def append(self, value: Any) -> None:
        """Take an element of a list."""
        self.values.append(value)

    def extend(self, values: Any) -> None:
        """Take elements of a list."""
        self.values.extend(values)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.values.append((key, value))

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.__dict__.update(part)

    def __hash__(self) -> int:
        return id(self)

    def __call__(self, *values: Any) -> Unknown:
        return self


class MetadataUnpickler(pickle.Unpickler):
    """Knows the classes that DCP's metadata is made of; of any other it keeps the name."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch.serialization" and name == "_get_layout":
            return torch.serialization._get_layout
        if module in ("torch", "torch._C") and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        for kind in _KNOWN:
            same_module = kind.__module__ == module or module in ("torch", "pathlib", "pathlib._local")
            if kind.__name__ == name and same_module:
                return kind
        return type(name.rpartition(".")[2], (Unknown,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        return Unknown(pid)


def read_metadata(path: Path) -> metadata.Metadata:
    """Return DCP's metadata; where a tensor lies has at least relative_path, offset and length.

    Raises:
        ValueError: when the file is damaged, or is no such metadata.
    """
    try:
        with open(path, "rb") as file:
            contents = MetadataUnpickler(file).load()
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        first = str(error).split("\n")[0]
        raise ValueError(f"{path}: not the metadata of a torch distributed checkpoint ({first}); {_MEND}") from None
    # Megatron-Core 0.15 writes a subclass of Metadata, which is not known here but holds the same.
    tables = [getattr(contents, key, None) for key in ("state_dict_metadata", "storage_data")]
    if not all(isinstance(table, dict) for table in tables):
        found = f"it names {contents.name}" if isinstance(contents, Unknown) else f"it is a {type(contents).__name__}"
        raise ValueError(f"{path}: not the metadata of a torch distributed checkpoint ({found}); {_MEND}")
    for index, info in contents.storage_data.items():
        if not isinstance(index, metadata.MetadataIndex):
            raise ValueError(f"{path}: damaged, it says where {str(index)[:40]!r} lies; {_MEND}")
        if not all(hasattr(info, key) for key in ("relative_path", "offset", "length")):
            kind = info.name if isinstance(info, Unknown) else type(info).__name__
            raise ValueError(f"{path}: {kind} does not say where {index.fqn} lies; save it with torch's own writer")
        if not _whole((info.offset, info.length)) or not isinstance(index.fqn, str):
            raise ValueError(f"{path}: damaged, {index.fqn} lies from {info.offset}, {info.length} bytes; {_MEND}")
    for name, kept in contents.state_dict_metadata.items():
        if isinstance(kept, metadata.TensorStorageMetadata) and not _sound(name, kept):
            raise ValueError(f"{path}: damaged, it gives {str(name)[:80]!r} an impossible shape or pieces; {_MEND}")
    return contents


def _whole(values: Any) -> bool:
    return isinstance(values, (tuple, list)) and all(type(value) is int and value >= 0 for value in values)


def _sound(name: Any, kept: metadata.TensorStorageMetadata) -> bool:
    """Whether shape and pieces of a tensor are numbers that fit together, as every writer gives them."""
    if not isinstance(name, str) or not _whole(kept.size) or not isinstance(kept.chunks, list):
        return False
    boxes = [(getattr(chunk, "offsets", None), getattr(chunk, "sizes", None)) for chunk in kept.chunks]
    sides = all(_whole(side) and len(side) == len(kept.size) for box in boxes for side in box)
    return sides and isinstance(getattr(kept.properties, "dtype", None), torch.dtype)
