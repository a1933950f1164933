"""Snapshots: weights at a known token count, in Hugging Face layout, published whole or not at all.

A snapshot folder holds config.json, generation_config.json, model.safetensors, the tokenizer and manifest.json with
the content hash of the weights and the SHA-256 of every other file. `AutoModelForCausalLM.from_pretrained(folder)`
loads it. torch and transformers are imported by the functions that save.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pma.files import hash_files, publish_folder, sha256_file, write_json
from pma.json_files import MANIFEST, read_manifest
from pma.merge.content import source_hash
from pma.merge.formats import open_source
from pma.merge.options import Part
from pma.merge.write import WEIGHTS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MEND = "put the file back, or remove the run's whole folder and train it again: it gives the same bits"


def copy_to_cpu(tensors: Mapping[str, torch.Tensor]) -> Callable[[], dict[str, torch.Tensor]]:
    """Copy tensors as they stand now; the caller may change them as soon as this returns.

    Tensors on a GPU are copied by a stream of their own, while the GPU computes on.

    Returns:
        A function that waits for the copies and returns them, on the CPU. Any thread may call it.
    """
    import torch

    held = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    if not any(tensor.is_cuda for tensor in held.values()):
        return lambda: held
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        copies = {name: tensor.to("cpu", non_blocking=True) for name, tensor in held.items()}  # to pinned memory
    done = aside.record_event()

    def wait() -> dict[str, torch.Tensor]:
        done.synchronize()
        held.clear()  # not sooner: their memory could be given away while it is copied
        return copies

    return wait


def copy_weights(weights: Mapping[str, torch.Tensor], dtype: str) -> Callable[[], dict[str, torch.Tensor]]:
    """`copy_to_cpu` of a model's weights, in the storage type (float32 or bfloat16)."""
    import torch

    return copy_to_cpu({name: tensor.to(getattr(torch, dtype)) for name, tensor in weights.items()})


def save_snapshot(
    folder: Path,
    model: PreTrainedModel,
    weights: Callable[[], dict[str, torch.Tensor]],
    finish: Callable[[Path], None],
) -> None:
    """Publish weights as a snapshot, replacing one that stands there.

    Args:
        folder: the snapshot's final name.
        model: gives only the config, and may train on meanwhile.
        weights: what `copy_weights` returned.
        finish: puts the other files into the folder that it is given; see `complete_snapshot`.
    """
    with publish_folder(folder) as aside:
        model.save_pretrained(aside, state_dict=weights())
        finish(aside)


def complete_snapshot(aside: Path, tokenizer: PreTrainedTokenizerBase, manifest: dict[str, Any]) -> None:
    """Add tokenizer and manifest, with the hash of each file, to a folder that holds config and weights."""
    tokenizer.save_pretrained(aside)
    write_json(aside / MANIFEST, {**manifest, "content": content_of(aside), "files": hash_files(aside, but=WEIGHTS)})


def content_of(folder: Path, part: Part | None = None) -> str:
    """Content hash of the weights in a model folder, or of the part of them that is the model.

    Raises:
        ValueError: when they are not whole.
    """
    part = part or Part()
    source = open_source(folder, part.prefix, part.state, part.key)
    try:
        return source_hash(source)
    finally:
        source.close()


def verify(folder: Path) -> dict[str, Any]:
    """Check that the files of a snapshot or merge stand as they were published, and return its manifest.

    Raises:
        ValueError: naming the file that is missing or differs.
    """
    manifest = read_manifest(folder, "content", "files")
    content = content_of(folder)
    if content != manifest["content"]:
        raise ValueError(f"{folder}: its weights are not those of its manifest ({content}); {_MEND}")
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path}: missing, but listed in the manifest; {_MEND}")
        if sha256_file(path) != expected:
            raise ValueError(
                f"{path}: truncated or changed ({path.stat().st_size} bytes, another hash than in its manifest); "
                f"{_MEND}"
            )
    return manifest
