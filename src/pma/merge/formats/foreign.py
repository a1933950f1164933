"""What lies in a folder that is no checkpoint we read, and how to make one of it: the end of an error message."""

from __future__ import annotations

import re
from pathlib import Path

from pma.merge.formats.base import DCP

_TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt")
_NOT_WEIGHTS = re.compile(r"(optimizer|scheduler|rng_state.*|training_args|scaler)\.(pt|pth|bin)")
# What a name means, and what to do; the first that fits.
_FOREIGN = (
    (
        r"mp_rank_\d+.*_states\.pt|zero_.*_states\.pt|global_step\d+",
        "a DeepSpeed checkpoint: run its zero_to_fp32.py first",
    ),
    (r"mp_rank_\d+(_\d+)?", "Megatron's old format: save it with --ckpt-convert-format torch_dist"),
    (r"\.zarray|.*\.zarr", "Megatron's zarr format: save it with --ckpt-convert-format torch_dist"),
    (r".*\.distcp", f"a distributed checkpoint without its {DCP}: it is not whole; wait for it, or save it again"),
    (r".*\.gguf", "GGUF: merge the model that it was made from"),
    (r".*\.nemo", "a NeMo archive: unpack it with tar, and give the folder"),
    (r"_CHECKPOINT_METADATA|_METADATA|.*\.orbax.*", "an Orbax checkpoint: save it as safetensors first"),
    (r"flax_model.*|tf_model.*|.*\.msgpack|.*\.h5", "weights of another framework: save them as safetensors first"),
)


def describe_folder(folder: Path) -> str:
    """Say what is there, and what would be a source, in half a sentence."""
    entries = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    if not entries:
        return "it is empty"
    for pattern, meaning in _FOREIGN:
        match = next((entry for entry in entries if re.fullmatch(pattern, entry.rstrip("/"))), None)
        if match is not None:
            return f"found {match}, {meaning}"
    files = [
        name for name in entries if name.endswith((*_TORCH_FILES, ".safetensors")) and not _NOT_WEIGHTS.match(name)
    ]
    if files:
        return f"found {_few(files)}; give the file itself, {folder / files[0]}"
    numbered = [entry for entry in entries if entry.endswith("/") and re.search(r"\d", entry)]
    if numbered:
        return f"found {_few(numbered)}; run_dir={folder} last=N merges the newest of them"
    return f"found {_few(entries)}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
