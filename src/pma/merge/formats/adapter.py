"""LoRA adapters of PEFT: a model's update as products B A of two thin matrices.

The mean of products is not the product of means. An exact merge therefore puts the ranks behind one another: A holds
the rows of all adapters, B their columns, each times its weight, and B A is the weighted sum of the products. Its rank
is the sum of the ranks. `lora=factors` averages A and B apart instead: small, and another model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pma.json_files import read_json
from pma.merge.formats.base import SIZES, Source, TensorInfo, View

CONFIG = "adapter_config.json"
ADAPTER, ADAPTER_TORCH = "adapter_model.safetensors", "adapter_model.bin"
_FACTOR = re.compile(r"\.lora_(embedding_)?(?P<side>[AB])(\.|$)")
_LARGEST = 1e9  # of a rank or scale that is one
_SAME = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out")


class Adapter(View):
    """An adapter with its config.

    Raises:
        ValueError: when the config is missing or damaged.
    """

    def __init__(self, inner: Source) -> None:
        super().__init__(inner, inner.tensors)
        path = inner.folder / CONFIG
        if not path.is_file():
            raise ValueError(f"{path}: missing, and without it an adapter means nothing; fetch it")
        self.adapter = read_json(path)
        if self.adapter.get("peft_type") == "LORA":
            _require_numbers(path, self.adapter)


def _require_numbers(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a config whose rank and scale are no numbers: the ranks of a merge are counted from them."""

    def positive(value: Any, kind: Any = (int, float)) -> bool:
        return isinstance(value, kind) and not isinstance(value, bool) and 0 < value < _LARGEST

    def pattern(value: Any, kind: Any = (int, float)) -> bool:
        return value is None or (isinstance(value, dict) and all(positive(each, kind) for each in value.values()))

    fits = {"r": positive(config.get("r"), int), "lora_alpha": positive(config.get("lora_alpha"))}
    fits |= {"rank_pattern": pattern(config.get("rank_pattern"), int)}
    fits |= {"alpha_pattern": pattern(config.get("alpha_pattern"))}
    for key in [key for key, fit in fits.items() if not fit]:
        raise ValueError(
            f"{path}: {key} is {str(config.get(key))[:40]!r}, and without it an adapter means nothing; fetch it"
        )


class _Stacked(View):
    """An adapter as its share of an exact merge: A and B of the full rank, 0 where other adapters stand.

    A is not weighted, so the newest holds the rows of all, and a merge copies them from it.
    """

    def __init__(self, adapters: Sequence[Adapter], own: int) -> None:
        factors = _factors(adapters[0])
        ranks = {name: [adapter.tensors[name].shape[axis] for adapter in adapters] for name, axis in factors}
        tensors = dict(adapters[own].tensors)
        self._begin: dict[str, list[int]] = {}
        self.copied = frozenset(name for name, axis in factors if axis == 0)
        for name, axis in factors:
            shape = list(tensors[name].shape)
            shape[axis] = sum(ranks[name])
            tensors[name] = TensorInfo(tensors[name].dtype, tuple(shape))
            self._begin[name] = [sum(ranks[name][:i]) for i in range(len(adapters))]
        super().__init__(adapters[own], tensors)
        self.whole = False
        self.adapter = _stacked_config(adapters[own].adapter, len(adapters))
        self._adapters, self._own = adapters, own

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        if name not in self._begin:
            return self.inner.read(name, start, out)
        info = self.tensors[name]
        size = SIZES[info.dtype]
        last = self._own == len(self._adapters) - 1
        out[...] = 0
        values = out.view(f"V{size}")
        for i, adapter in enumerate(self._adapters):
            if i == self._own or (last and name in self.copied):
                self._place(adapter, name, i, start, values)

    def _place(self, adapter: Source, name: str, i: int, start: int, values: np.ndarray) -> None:
        """Put what an adapter holds of a stretch of the stacked factor in place."""
        info, own, begin, kind = self.tensors[name], adapter.tensors[name], self._begin[name][i], values.dtype
        axis = 0 if name in self.copied else 1
        inner = math.prod(own.shape[axis:])  # elements that lie together in the adapter
        row = math.prod(info.shape[axis:])  # from one such stretch to the next here
        begin *= math.prod(own.shape[axis + 1 :])
        if axis == 0:
            low, high = max(begin, start), min(begin + inner, start + len(values))
            if low < high:
                values[low - start : high - start] = _elements(adapter, name, low - begin, high - low, kind)
            return
        first, last = start // row, -(-(start + len(values)) // row)
        rows = np.zeros((last - first, row), kind)
        part = _elements(adapter, name, first * inner, (last - first) * inner, kind)
        rows[:, begin : begin + inner] = part.reshape(last - first, inner)
        values[...] = rows.reshape(-1)[start - first * row :][: len(values)]


def _elements(source: Source, name: str, start: int, count: int, kind: np.dtype) -> np.ndarray:
    raw = np.empty(count * kind.itemsize, np.uint8)
    source.read(name, start, raw)
    return raw.view(kind)


def _factors(adapter: Source) -> list[tuple[str, int]]:
    """Names of the factors, each with the axis that is its rank: 0 of A, 1 of B. A bias of B is no factor."""
    matches = ((name, _FACTOR.search(name)) for name, info in adapter.tensors.items() if len(info.shape) > 1)
    return [(name, "AB".index(match["side"])) for name, match in matches if match]


def stack(sources: Sequence[Source], lora: str) -> list[Source]:
    """Check that adapters go together, and prepare an exact merge of them if that is asked for.

    Args:
        sources: all adapters, or none; what are none is returned as it is.
        lora: exact | factors.

    Raises:
        ValueError: naming the adapter that does not fit.
    """
    adapters = [source for source in sources if isinstance(source, Adapter)]
    if not adapters:
        return list(sources)
    for source in sources:
        if not isinstance(source, Adapter):
            raise ValueError(f"{source.name}: no adapter, and {adapters[0].name} is one; merge one kind only")
    newest = adapters[-1]
    for adapter in adapters:
        base, other = (a.adapter.get("base_model_name_or_path") for a in (adapter, newest))
        if base != other:
            raise ValueError(f"{adapter.name}: an adapter of {base}, {newest.name} of {other}; merge one base model")
        for key in _SAME:
            own, other = (a.adapter.get(key) for a in (adapter, newest))
            if own != other:
                raise ValueError(f"{adapter.name}: {key} is {own}, in {newest.name} {other}; merge adapters of one run")
    if lora == "factors" or len(adapters) == 1:
        return list(adapters)
    kind = newest.adapter.get("peft_type")
    if kind != "LORA" or newest.adapter.get("use_dora"):
        kind = "DoRA" if kind == "LORA" else kind
        raise ValueError(
            f"{newest.name}: an adapter of {kind}, whose exact mean is none; merge it into the base model first, or "
            f"average its tensors with lora=factors"
        )
    for adapter in adapters:
        if adapter.tensors.keys() != newest.tensors.keys():
            name = min(adapter.tensors.keys() ^ newest.tensors.keys())
            raise ValueError(f"{adapter.name}: {newest.name} and it do not both have {name}; merge adapters of one run")
        if any(info.dtype != newest.tensors[name].dtype for name, info in adapter.tensors.items()):
            raise ValueError(
                f"{adapter.name}: of another type than {newest.name}; save both alike, or take lora=factors"
            )
    return [_Stacked(adapters, i) for i in range(len(adapters))]


def _stacked_config(config: dict[str, Any], n: int) -> dict[str, Any]:
    """Config of `n` adapters stacked: their ranks together, and alpha such that the scale of B A stays as it was."""
    grow = math.sqrt(n) if config.get("use_rslora") else n  # the scale is alpha / sqrt(r) there, alpha / r else

    def each(key: str, by: float) -> dict[str, Any]:
        return {name: value * by for name, value in (config.get(key) or {}).items()}

    return {
        **config,
        "r": config["r"] * n,
        "lora_alpha": config["lora_alpha"] * grow,
        "rank_pattern": each("rank_pattern", n),
        "alpha_pattern": each("alpha_pattern", grow),
    }
