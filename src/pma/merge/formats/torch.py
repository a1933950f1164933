"""pytorch_model.bin, read through torch's weights_only loader, memory-mapped."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch

from pma.merge.formats.base import TORCH, Source, TensorInfo, shards_of


@cache
def torch_dtypes() -> dict[torch.dtype, str]:
    """Safetensors' name of each type that torch and safetensors both know."""
    names = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16", "BOOL": "bool"}
    for bits in (8, 16, 32, 64):
        names |= {f"I{bits}": f"int{bits}", f"U{bits}": f"uint{bits}"}
    return {getattr(torch, name): short for short, name in names.items()}


class TorchSource(Source):
    """One file or shards."""

    format = "torch"

    def __init__(self, name: str, folder: Path) -> None:
        self._files = shards_of(folder, TORCH)
        self._loaded: dict[str, torch.Tensor] = {}
        for path in self._files:
            try:
                state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
            except Exception as error:  # pickle's, zipfile's and torch's own
                first = str(error).strip().split("\n")[0]
                raise ValueError(
                    f"{path}: not a whole state dict in torch's zip format ({first}); save it again with torch.save"
                ) from None
            for tensor, value in state.items():
                if not isinstance(value, torch.Tensor):
                    raise ValueError(f"{path}: {tensor} is no tensor; give a plain state dict of the model")
                self._loaded[tensor] = value.detach().contiguous()
        infos = {
            k: TensorInfo(torch_dtypes().get(v.dtype, str(v.dtype)), tuple(v.shape)) for k, v in self._loaded.items()
        }
        super().__init__(name, folder, infos)

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        tensor = self._loaded[name].reshape(-1)
        part = tensor[start : start + out.nbytes // tensor.element_size()]
        out[...] = part.view(torch.uint8).numpy()

    def files(self) -> list[Path]:
        return list(self._files)

    def close(self) -> None:
        self._loaded = {}
