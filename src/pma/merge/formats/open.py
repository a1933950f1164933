"""Opening a source by its name: a folder in any format, or a revision of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pma.merge.formats.base import DCP, SAFETENSORS, TORCH, Source
from pma.merge.formats.safetensors import SafetensorsSource

_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)")


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
    """Return the folder of a source; `repo@revision` of the Hugging Face hub is fetched into the hub's cache first.

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
        name: a folder, or `repo@revision` of the Hugging Face hub.
        prefix: take only the tensors whose name begins with it, and take it off.

    Raises:
        ValueError: when nothing readable is there, or not all of it, saying what is missing.
    """
    folder = fetch(str(name))
    source = _detect(folder)(str(name), folder)
    return source if prefix is None else _Prefixed(source, prefix)


def _detect(folder: Path) -> Callable[[str, Path], Source]:
    def holds(file: str) -> bool:
        return (folder / file).is_file() or (folder / f"{file}.index.json").is_file()

    if holds(SAFETENSORS):
        return SafetensorsSource
    if holds(TORCH):
        from pma.merge.formats.torch import TorchSource

        return TorchSource
    if (folder / DCP).is_file():
        from pma.merge.formats.dcp import DcpSource

        return DcpSource
    raise ValueError(
        f"{folder}: no checkpoint in it; looked for {SAFETENSORS}, {TORCH}, their index.json, and the {DCP} of a torch "
        f"distributed checkpoint"
    )
