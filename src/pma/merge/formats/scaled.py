"""Eight-bit floats with scales beside them, as the numbers they stand for: the values times their scales, in fp32.

Known are the scales that lie in a tensor of the same name with `_scale_inv` (DeepSeek-V3: one for each block, 128 x 128
where config.json does not say otherwise) or `_scale` (one for the tensor, a row or a block) behind it. Both multiply.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from pma.merge.formats.base import FLOATS, SCALED, SIZES, Source, TensorInfo, View

_ENDS = ("_scale_inv", "_scale")
_BLOCK = (128, 128)
_NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
# Formats that pack several numbers into an integer, by the name in config.json.
_PACKED = {"awq", "bitsandbytes", "bitnet", "gptq", "hqq", "mxfp4", "quanto", "aqlm", "vptq", "eetq", "torchao"}


class _Dequantized(View):
    """A source in which tensors of scaled types are F32, and their scales are gone."""

    def __init__(self, inner: Source, scales: dict[str, str], block: tuple[int, int]) -> None:
        gone = set(scales.values()) | {name.removesuffix("weight") + "input_scale" for name in scales}
        tensors = {
            name: TensorInfo("F32", info.shape) if name in scales else info
            for name, info in inner.tensors.items()
            if name not in gone
        }
        super().__init__(inner, tensors)
        self.whole, self.dequantized = False, True
        self._scales = {name: _by_element(inner, name, scale, block) for name, scale in scales.items()}

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        if name not in self._scales:
            return self.inner.read(name, start, out)
        scale, rows, columns = self._scales[name]
        values = out.view(np.float32)
        raw = np.empty(len(values), np.uint8)
        self.inner.read(name, start, raw)
        at = np.arange(start, start + len(values))
        row, column = np.divmod(at, self.tensors[name].shape[-1])
        values[...] = _VALUES[self.inner.tensors[name].dtype][raw]
        values *= scale[np.minimum(row // rows, len(scale) - 1), np.minimum(column // columns, scale.shape[1] - 1)]


def dequantize(source: Source) -> Source:
    """Return a source without scaled types.

    Raises:
        ValueError: when a tensor's scales are not there, or are of a kind that is not known; or when config.json says
            that the numbers are packed into integers.
    """
    config = _quantization(source.folder)
    method = str(config.get("quant_method", "")).lower()
    packed = method in _PACKED and any(not info.floating for info in source.tensors.values())
    if packed:
        raise ValueError(
            f"{source.name}: stored as {method}, whose packed numbers cannot be averaged; load it with transformers, "
            f"model.dequantize().save_pretrained(DIR), and merge that"
        )
    scales: dict[str, str] = {}
    for name, info in source.tensors.items():
        ends = [name + end for end in _ENDS if source.tensors.get(name + end, info).dtype in FLOATS]
        if info.dtype in SCALED and ends:
            scales[name] = ends[0]
        elif info.dtype in SCALED or info.dtype not in SIZES:
            raise ValueError(
                f"{source.name}: tensor {name} has type {info.dtype}, whose values mean nothing without their scales, "
                f"and no {name}{_ENDS[0]} is there; convert the model to bfloat16 first"
            )
    sides = config.get("weight_block_size") or _BLOCK
    return _Dequantized(source, scales, (int(sides[0]), int(sides[1]))) if scales else source


def _quantization(folder: Path) -> dict:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return dict(config.get("quantization_config") or {})
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _by_element(source: Source, name: str, scale: str, block: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    """Scales as a matrix, and how many rows and columns of the tensor share one."""
    info, kept = source.tensors[name], source.tensors[scale]
    raw = np.empty(kept.nbytes, np.uint8)
    source.read(scale, 0, raw)
    if kept.dtype == "BF16":
        values = np.left_shift(raw.view(np.uint16), 16, dtype=np.uint32).view(np.float32)
    else:
        values = raw.view(_NUMPY[kept.dtype]).astype(np.float32)
    shape = info.shape or (1,)
    rows, columns = math.prod(shape[:-1]), shape[-1]
    if kept.count == 1:
        return values.reshape(1, 1), rows, columns
    if kept.count == rows and kept.shape in (shape[:-1], (*shape[:-1], 1)):
        return values.reshape(rows, 1), 1, columns
    blocks = (*shape[:-2], *(-(-side // part) for side, part in zip(shape[-2:], block, strict=False)))
    if kept.shape == blocks and (len(shape) == 2 or shape[-2] % block[0] == 0):  # no block reaches over two experts
        return values.reshape(-1, blocks[-1]), *block
    raise ValueError(
        f"{source.name}: {scale} has shape {kept.shape}, which is neither one scale, one a row nor one a block of "
        f"{block[0]} x {block[1]} of {name} {info.shape}; say the block in config.json (weight_block_size)"
    )


def _e4m3() -> np.ndarray:
    """The number of each byte: sign, four bits of exponent, three of mantissa; no infinity, all bits set is NaN."""
    byte = np.arange(256)
    exponent, mantissa = (byte >> 3) & 15, (byte & 7) / 8
    size = np.where(exponent == 0, mantissa * 2.0**-6, (1 + mantissa) * 2.0 ** (exponent - 7))
    size[(byte & 127) == 127] = np.nan
    return np.where(byte >> 7, -size, size).astype(np.float32)


_VALUES = {
    "F8_E4M3": _e4m3(),
    "F8_E5M2": (np.arange(256, dtype=np.uint16) << 8).view(np.float16).astype(np.float32),  # half of float16
}
