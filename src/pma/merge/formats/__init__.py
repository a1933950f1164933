"""Checkpoints as they lie on disk, opened from their headers and read in pieces.

The format is detected from the files of a folder, in this order:

| format | files |
|---|---|
| safetensors | model.safetensors, or model.safetensors.index.json and its shards |
| torch | pytorch_model.bin, or pytorch_model.bin.index.json and its shards; opened with weights_only |
| dcp | .metadata and *.distcp: torch distributed checkpoint (torchtitan, OLMo-core, FSDP, Megatron's torch_dist) |

A name that is no folder here but reads `repo@revision` is fetched from the Hugging Face hub. No pickle is executed:
.bin goes through torch's weights_only, .metadata through an unpickler that knows DCP's own classes and nothing else.
torch is imported only to read its own two formats.
"""

from pma.merge.formats.base import DCP, SAFETENSORS, SIZES, SPAN, TORCH, Source, TensorInfo, iterate_spans
from pma.merge.formats.open import fetch, open_source

__all__ = [
    "DCP",
    "SAFETENSORS",
    "SIZES",
    "SPAN",
    "TORCH",
    "Source",
    "TensorInfo",
    "fetch",
    "iterate_spans",
    "open_source",
]
