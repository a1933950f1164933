"""Checkpoints as they lie on disk, opened from their headers and read in pieces.

The format is detected from the files of a folder, in this order:

| format | files |
|---|---|
| safetensors | model.safetensors, or model.safetensors.index.json and its shards |
| torch | pytorch_model.bin, or pytorch_model.bin.index.json and its shards; opened with weights_only |
| either | adapter_model.safetensors or .bin: a LoRA adapter |
| dcp | .metadata and *.distcp, there or in model_and_optim, weights, pytorch_model_fsdp_0: torch's distributed one |
| safetensors | the only .safetensors file or index, whatever its name |

Writers of dcp are torchtitan, FSDP, Megatron-Core (torch_dist), OLMo-core, NeMo and accelerate. A source may also be
one file: .safetensors, or .pt, .pth, .bin and .ckpt of torch.save. A name that is nothing here but reads
`repo@revision` is fetched from the Hugging Face hub. No pickle is executed: files of torch.save go through torch's
weights_only, .metadata through an unpickler that runs nothing of what it names.
torch is imported only to read its own two formats.
"""

from pma.merge.formats.adapter import ADAPTER, stack
from pma.merge.formats.base import (
    DCP,
    SAFETENSORS,
    SIZES,
    SPAN,
    TORCH,
    Piece,
    Source,
    TensorInfo,
    View,
    dcp_home,
    iterate_spans,
)
from pma.merge.formats.open import fetch, open_source
from pma.merge.formats.part import is_copy

__all__ = [
    "ADAPTER",
    "DCP",
    "SAFETENSORS",
    "SIZES",
    "SPAN",
    "TORCH",
    "Piece",
    "Source",
    "TensorInfo",
    "View",
    "dcp_home",
    "fetch",
    "is_copy",
    "iterate_spans",
    "open_source",
    "stack",
]
