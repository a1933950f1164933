"""Opening a source by its name: a folder or file in any format, or a revision of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from pma.merge.formats.adapter import ADAPTER, ADAPTER_TORCH, Adapter
from pma.merge.formats.base import DCP, SAFETENSORS, TORCH, Source, dcp_home, shards_of
from pma.merge.formats.foreign import describe_folder
from pma.merge.formats.part import choose_part
from pma.merge.formats.safetensors import SafetensorsSource
from pma.merge.formats.scaled import dequantize

_TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt")
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)")


def fetch(name: str) -> Path:
    """Return the folder or file of a source; `repo@revision` of the hub is fetched into the hub's cache first.

    Raises:
        ValueError: when it is neither, or the hub does not give it.
    """
    folder = Path(name)
    if folder.exists():
        return folder
    match = _HUB.fullmatch(name)
    if match is None:
        raise ValueError(f"{name}: no such folder; give a model folder or file, or a hub model as repo@revision")
    from huggingface_hub import HfApi, snapshot_download

    repo, revision = match["repo"], match["revision"]
    try:
        listed = HfApi().list_repo_files(repo, revision=revision)
        safe = any(file.endswith(".safetensors") for file in listed)  # many repositories hold both
        weights = ["*.safetensors", "*.safetensors.index.json"] if safe else ["*.bin", "*.bin.index.json"]
        patterns = [*weights, "*.json", "*.model", "*.txt", "*.jinja", "README.md", "LICENSE*", "NOTICE*"]
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except hub_errors() as error:
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{name}: the hub did not give it ({first}); check the names, the network and HF_TOKEN"
        ) from None


def hub_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises when it does not get through, the errors of its HTTP library among it."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, ValueError, *HfHubHTTPError.__bases__)


def open_source(
    name: str | Path, prefix: str | None = None, state: str | None = None, key: str | None = None
) -> Source:
    """Open a checkpoint from its headers alone.

    Args:
        name: a folder, a file, or `repo@revision` of the Hugging Face hub.
        prefix: take only the tensors whose name begins with it, and take it off; "" takes all.
        state: model | ema, of a checkpoint that holds the weights and an average of them.
        key: path of the state dict in a file of torch.save.

    Raises:
        ValueError: when nothing readable is there, or not all of it, saying what is missing; or when it is not clear
            which part is the model.
    """
    path = fetch(str(name))
    source = (_open_folder if path.is_dir() else _open_file)(str(name), path, key, state)
    try:
        if key is not None and source.format != "torch":
            raise ValueError(f"key={key}: {name} is no file of torch.save; prefix=... names a part of other formats")
        return choose_part(dequantize(source), prefix, None if source.chosen else state)
    except ValueError:
        source.close()
        raise


def _open_folder(name: str, folder: Path, key: str | None, state: str | None) -> Source:
    def holds(file: str) -> bool:
        return (folder / file).is_file() or (folder / f"{file}.index.json").is_file()

    if holds(SAFETENSORS):
        return SafetensorsSource(name, folder)
    if holds(TORCH):
        return _open_torch(name, folder, list(shards_of(folder, TORCH)), key, state)
    if (folder / ADAPTER).is_file():
        return Adapter(SafetensorsSource(name, folder, ADAPTER))
    if (folder / ADAPTER_TORCH).is_file():
        return Adapter(_open_torch(name, folder, [folder / ADAPTER_TORCH], key, state))
    if dcp_home(folder) is not None:
        from pma.merge.formats.dcp import DcpSource

        return DcpSource(name, folder)
    indices = list(folder.glob("*.safetensors.index.json"))
    singles = [path.name.removesuffix(".index.json") for path in indices or folder.glob("*.safetensors")]
    if len(singles) == 1:
        return SafetensorsSource(name, folder, singles[0])
    raise ValueError(
        f"{folder}: no checkpoint in it; looked for {SAFETENSORS}, {TORCH}, their index.json, {ADAPTER}, and the {DCP} "
        f"of a torch distributed checkpoint; {describe_folder(folder)}"
    )


def _open_file(name: str, path: Path, key: str | None, state: str | None) -> Source:
    if path.suffix == ".safetensors":
        source: Source = SafetensorsSource(name, path.parent, path.name)
    elif path.suffix in _TORCH_FILES:
        source = _open_torch(name, path.parent, [path], key, state)
    else:
        known = ", ".join((".safetensors", *_TORCH_FILES))
        raise ValueError(f"{name}: a file of no known kind; give one of {known}, or a folder")
    source.whole = False
    return Adapter(source) if path.name in (ADAPTER, ADAPTER_TORCH) else source


def _open_torch(name: str, folder: Path, files: list[Path], key: str | None, state: str | None) -> Source:
    from pma.merge.formats.torch import TorchSource

    return TorchSource(name, folder, files, key, state)
