"""Merged models on disk: Hugging Face layout in shards, or a torch distributed checkpoint."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pma.files import write_json
from pma.json_files import MANIFEST, read_json
from pma.merge.card import CARD, model_card
from pma.merge.formats import ADAPTER, DCP, SAFETENSORS, SIZES, Source, TensorInfo
from pma.merge.ranks import Group

if TYPE_CHECKING:
    from pma.merge.plan import Plan

WEIGHTS = (".safetensors", ".distcp", ".metadata")  # ends of names of weight files, which the content hash stands for
_STRETCH = 2**23  # bytes: the disk begins with so many when they are there, so that the fsync at the end waits less
# What speaks of the checkpoint and not of the model: the Trainer's, Megatron's and OLMo-core's.
_NOT_ASSETS = {MANIFEST, "trainer_state.json", "optimizer_config.json", "metadata.json", ".metadata.json"}
_CONFIG, _ADAPTER_CONFIG = "config.json", "adapter_config.json"
_ASSETS = (".json", ".model", ".txt", ".jinja", ".py", ".tiktoken")


def assets(source: Source, folder: Path | None) -> list[Path]:
    """Config, generation config, tokenizer, code and licence that go with a model: of `folder`, or of the source."""
    if folder is None and source.format != "dcp":
        configs = [source.folder / name for name in (_CONFIG, _ADAPTER_CONFIG)]
        if not any(path.is_file() for path in configs):
            return []  # a file among others that have nothing to do with it
    files = sorted(path for path in (folder or source.folder).iterdir() if path.is_file())
    kept = [
        path
        for path in files
        if path.name not in _NOT_ASSETS
        and not path.name.endswith(".index.json")
        and (path.suffix in _ASSETS or path.name.upper().startswith(("LICENSE", "NOTICE")))
    ]
    for path in kept:
        _require_own(path)
        if path.name == _CONFIG:
            read_json(path)  # a damaged one makes a model that nothing loads
    return kept


def _require_own(path: Path) -> None:
    """Refuse a link that leads out of its folder: a merge would publish whatever file it names.

    In the hub's cache every file is a link to the blobs of its repository.
    """
    target, folder = path.resolve(), path.parent.resolve()
    blobs = folder.parent.parent / "blobs"
    if folder not in target.parents and blobs not in target.parents:
        raise ValueError(f"{path}: a link to {target}, outside of its folder; put the file itself there, or remove it")


def copy_assets(paths: Sequence[Path], output: Path, dtype: str | None, source: Source) -> None:
    """Copy them, and correct what they say of the weights.

    Args:
        dtype: storage type of the weights, a name of torch; null: as config.json says.
        source: the newest.
    """
    for path in paths:
        shutil.copyfile(path, output / path.name)
    if source.adapter is not None:
        write_json(output / _ADAPTER_CONFIG, source.adapter)
    config = output / _CONFIG
    if (dtype or source.dequantized) and config.is_file():  # from_pretrained believes it, whatever the file holds
        values = read_json(config)
        if source.dequantized:
            values.pop("quantization_config", None)
        values.pop("torch_dtype", None)
        write_json(config, {**values, "dtype": dtype or "float32"})


class SafetensorsWriter:
    """The weight files of one model, laid out beforehand and filled in any order.

    Args:
        shard_bytes: largest size of a shard; a tensor alone may exceed it.
        create: whether this process lays out the files (another may, and this one only fills in).
        single: name of the file, where there is one.

    Raises:
        OSError: here or in `write`, when the disk cannot hold them.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, TensorInfo],
        shard_bytes: int,
        create: bool = True,
        single: str = SAFETENSORS,
    ) -> None:
        self._where: dict[str, tuple[str, int]] = {}
        self._files: dict[str, int] = {}
        # Wide types first, so that every tensor is aligned to its own type; then by name.
        order = sorted(tensors, key=lambda name: (-SIZES[tensors[name].dtype], name))
        shards: list[list[str]] = [[]]
        size = 0
        for name in order:
            if shards[-1] and size + tensors[name].nbytes > shard_bytes:
                shards.append([])
                size = 0
            shards[-1].append(name)
            size += tensors[name].nbytes
        for i, names in enumerate(shards):
            many = len(shards) > 1
            file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" if many else single
            self._lay_out(folder / file, names, tensors, create)
        if create and len(shards) > 1:
            total = sum(info.nbytes for info in tensors.values())
            weight_map = {name: self._where[name][0] for name in sorted(tensors)}
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            (folder / f"{SAFETENSORS}.index.json").write_text(json.dumps(index, indent=1) + "\n")
        self._itemsize = {name: SIZES[info.dtype] for name, info in tensors.items()}

    def _lay_out(self, path: Path, names: list[str], tensors: Mapping[str, TensorInfo], create: bool) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # older readers need it
        at = 0
        for name in names:
            info = tensors[name]
            header[name] = {
                "dtype": info.dtype,
                "shape": list(info.shape),
                "data_offsets": [at, at + info.nbytes],
            }
            at += info.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        begin = 8 + len(text)
        for name in names:
            self._where[name] = path.name, begin + header[name]["data_offsets"][0]
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0), 0o644)
        self._files[path.name] = descriptor
        if create:
            os.ftruncate(descriptor, begin + at)  # not reserved: that takes as long as writing on some disks
            os.pwrite(descriptor, len(text).to_bytes(8, "little") + text, 0)

    def write(self, name: str, start: int, values: np.ndarray) -> None:
        """Put elements of a tensor (contiguous, in its storage type) in place."""
        file, offset = self._where[name]
        view = memoryview(values).cast("B")
        offset += start * self._itemsize[name]
        while view:
            done = os.pwrite(self._files[file], view, offset)
            view, before, offset = view[done:], offset // _STRETCH, offset + done
            if offset // _STRETCH > before and hasattr(os, "posix_fadvise"):
                at, size = before * _STRETCH, (offset // _STRETCH - before) * _STRETCH
                os.posix_fadvise(self._files[file], at, size, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}


class ModelFolder:
    """What a merge is written as: a model folder, or a torch distributed checkpoint.

    `pma.merge.resume.TrainerCheckpoint` is the other way.
    """

    weight_files = WEIGHTS

    def __init__(self, prepared: Plan) -> None:
        self._prepared, self._newest, self._options = prepared, prepared.sources[-1], prepared.options
        self.format = self._options.format
        self._assets = assets(self._newest, None if self._options.assets is None else Path(self._options.assets))

    def sizes(self) -> tuple[int, int]:
        """Bytes of each merge, and bytes more while one is made."""
        size = sum(info.nbytes for info in self._prepared.stored().values())
        return size, size if self.format == "dcp" else 0  # which is written as safetensors first

    def writer(self, aside: Path, create: bool) -> SafetensorsWriter:
        """Lay out the weights: a model in shards, an adapter in the one file that PEFT reads."""
        tensors = self._prepared.stored()
        if self._newest.adapter is None:
            return SafetensorsWriter(aside, tensors, self._options.shard_size, create)
        return SafetensorsWriter(aside, tensors, sys.maxsize, create, ADAPTER)

    def average_beside(self, writers: Sequence[Any], outputs: Sequence[str], group: Group) -> None:
        """A model folder holds the model alone."""

    def finish(self, aside: Path, writer: Any) -> dict[str, Any]:
        """Put beside the weights what goes with them; return what the manifest says of it."""
        if self.format == "dcp":
            to_dcp(aside)
        copy_assets(self._assets, aside, self._prepared.dtype(), self._newest)
        return {}

    def describe(self, aside: Path, manifest: Mapping[str, Any]) -> None:
        """Write the model card."""
        loads = self.format == "safetensors" and (aside / _CONFIG).is_file()
        sources, policy = self._prepared.sources, self._prepared.policy
        text = model_card(manifest, sources, self._options, policy, loads)
        (aside / CARD).write_text(text, encoding="utf-8")

    def published(self, output: Path) -> None:
        """Nobody has to be told."""

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def dcp_errors(folder: Path) -> Iterator[None]:
    """Turn what torch raises where it cannot write a distributed checkpoint into an error of the disk.

    Its exception is none that a program expects: it inherits from BaseException.
    """
    from torch.distributed.checkpoint import CheckpointException

    try:
        yield
    except CheckpointException as error:
        reason = next(iter(error.failures.values()))[0]
        raise OSError(f"{folder}: the distributed checkpoint could not be written ({reason})") from error


def to_dcp(folder: Path) -> None:
    """Turn the safetensors files of a folder into a torch distributed checkpoint, reading them memory-mapped."""
    from safetensors import safe_open
    from torch.distributed import checkpoint

    from pma.merge.formats.dcp_metadata import read_metadata

    files = sorted(folder.glob("model*.safetensors"))
    handles = [safe_open(path, framework="pt") for path in files]
    state = {name: handle.get_tensor(name) for handle in handles for name in handle.keys()}
    with dcp_errors(folder):
        checkpoint.save(state, checkpoint_id=folder, no_dist=True)
    del state, handles
    metadata = read_metadata(folder / DCP)
    metadata.storage_meta = None  # where, and under which random number, torch wrote: other bytes at every call
    with open(folder / DCP, "wb") as file:
        pickle.dump(metadata, file)
    for path in (*files, folder / f"{SAFETENSORS}.index.json"):
        path.unlink(missing_ok=True)
