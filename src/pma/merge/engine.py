"""The weighted average of model folders, one snapshot in memory at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pma import __version__
from pma.files import MANIFEST, hash_files, publish_folder, write_json
from pma.snapshot import verify

WEIGHTS = "model.safetensors"


def _weights_file(folder: Path) -> Path:
    """The weights of a model folder, checked against the folder's manifest where it has one.

    Raises:
        ValueError: when there are none, or they are not what the manifest says.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{folder}: no {WEIGHTS} there; give model folders in Hugging Face layout, oldest first")
    if (folder / MANIFEST).is_file():
        verify(folder)
    return path


def _header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except Exception as error:  # safetensors raises its own, undocumented type
        raise ValueError(f"{path}: not a whole safetensors file ({error}); fetch or train it again") from None


def preflight(folders: Sequence[Path]) -> list[Path]:
    """Weight files of the folders, after checking that they can be averaged.

    Raises:
        ValueError: naming the first tensor whose name or shape differs from the first folder's.
    """
    paths = [_weights_file(Path(folder)) for folder in folders]
    first = _header(paths[0])
    for path in paths[1:]:
        other = _header(path)
        for name in sorted(first.keys() ^ other.keys()):
            there, missing = (paths[0], path) if name in first else (path, paths[0])
            raise ValueError(f"{missing}: tensor {name} is missing, {there} has it; merge one architecture only")
        for name, (_, shape) in first.items():
            if other[name][1] != shape:
                raise ValueError(
                    f"{path}: tensor {name} has shape {other[name][1]}, in {paths[0]} {shape}; merge one architecture"
                )
    return paths


def average(folders: Sequence[Path], weights: Sequence[float]) -> dict[str, Tensor]:
    """sum_i weights[i] * model_i for every floating tensor, accumulated in fp32 from the oldest on; fp32 tensors.

    Integer and boolean tensors must be equal everywhere and are copied.

    Raises:
        ValueError: for folders that cannot be averaged, before anything is read; for integers that differ.
    """
    paths = preflight(folders)
    total: dict[str, Tensor] = {}
    for path, weight in zip(paths, weights, strict=True):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                tensor = file.get_tensor(name)
                if not tensor.is_floating_point():
                    if name in total and not torch.equal(total[name], tensor):
                        raise ValueError(f"{path}: integer tensor {name} differs from {paths[0]}; cannot be averaged")
                    total[name] = tensor
                elif name in total:
                    total[name].add_(tensor.float(), alpha=weight)
                else:
                    total[name] = tensor.float() * weight
    return total


def content_hash(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(torch.uint8).numpy() if tensor.ndim else tensor.numpy().tobytes())
    return digest.hexdigest()


def merge_folders(
    folders: Sequence[Path], weights: Sequence[float], output: Path, dtype: str = "float32", recipe: dict | None = None
) -> None:
    """Publish the average of model folders as a model folder.

    Config, generation config and tokenizer are the newest folder's. manifest.json holds the provenance: each source
    with the hash of its weights, its weight in the average, the recipe and the version.

    Raises:
        ValueError: for folders that cannot be averaged, a bad dtype, or an output that exists already.
    """
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"dtype={dtype}: choose float32, bfloat16 or float16")
    if output.exists():
        raise ValueError(f"output={output}: exists already; give another folder or remove it")
    merged = average(folders, weights)
    stored = {k: v.to(getattr(torch, dtype)) if v.is_floating_point() else v for k, v in merged.items()}
    newest = Path(folders[-1])
    provenance = {
        "recipe": recipe or {},
        "sources": [
            {"folder": str(folder), "sha256": hash_files(Path(folder))[WEIGHTS], "weight": weight}
            for folder, weight in zip(folders, weights, strict=True)
        ],
        "accumulated_in": "float32",
        "dtype": dtype,
        "version": __version__,
    }
    inherited = json.loads((newest / MANIFEST).read_text()) if (newest / MANIFEST).exists() else {}
    if "corpus" in inherited:
        provenance["corpus"] = inherited["corpus"]
    with publish_folder(output) as aside:
        for path in newest.iterdir():
            if path.is_file() and path.name not in (WEIGHTS, MANIFEST):
                shutil.copyfile(path, aside / path.name)
        _set_dtype(aside / "config.json", dtype)
        save_file(stored, aside / WEIGHTS, metadata={"format": "pt"})
        write_json(aside / MANIFEST, {**provenance, "files": hash_files(aside)})


def _set_dtype(config: Path, dtype: str) -> None:
    # from_pretrained(dtype="auto") believes the config, whatever the file holds.
    values = json.loads(config.read_text())
    write_json(config, {**values, "dtype": dtype})
