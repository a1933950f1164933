"""The average worked out a second time, in float64 and without the merge engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

Tensors = Mapping[str, np.ndarray]


def read(folder: Path) -> Tensors | None:
    """Every tensor of a folder's .safetensors files, in float64, or None when the library itself refuses a file."""
    return read_files(sorted(folder.glob("*.safetensors")))


def read_files(paths: Sequence[Path]) -> Tensors | None:
    """The same of some files; None too when two of them hold one tensor."""
    tensors: dict[str, np.ndarray] = {}
    try:
        for path in paths:
            with safe_open(path, "pt") as file:
                own = {name: file.get_tensor(name).double().numpy() for name in file.keys()}  # noqa: SIM118
            if own.keys() & tensors.keys():
                return None
            tensors |= own
    except (SafetensorError, OSError):
        return None
    return tensors


def read_shards(folder: Path) -> Tensors | None:
    """Every tensor of the shards that a folder's index names; None when it names what is not in its folder."""
    try:
        weight_map = json.loads((folder / "model.safetensors.index.json").read_bytes())["weight_map"]
        paths = [folder / file for file in sorted(set(weight_map.values()))]
        outside = any(folder.resolve() not in path.resolve().parents for path in paths)
    except (ValueError, TypeError, KeyError, AttributeError, OSError):
        return None
    tensors = None if outside or not paths else read_files(paths)
    return tensors if tensors is not None and weight_map.keys() <= tensors.keys() else None


def weighted_sum(sources: Sequence[Tensors | None], weights: Sequence[float]) -> Tensors | None:
    """The sum over sources in float64; None when there is none, for want of a tensor somewhere."""
    if any(source is None or source.keys() != sources[0].keys() for source in sources):
        return None
    if any(source[name].shape != values.shape for source in sources for name, values in sources[0].items()):
        return None
    return {
        name: sum(weight * source[name] for weight, source in zip(weights, sources, strict=True)) for name in sources[0]
    }


def decay_weights(positions: Sequence[float], factor: str) -> list[float]:
    """Weights of a learning-rate decay over positions (WSM): the differences of its factor from each to the next."""
    span = (positions[-1] - positions[0]) * len(positions) / (len(positions) - 1)
    done = [(position - positions[0]) / span for position in positions]
    shapes = {
        "linear": lambda x: 1 - x,
        "cosine": lambda x: np.cos(np.pi * x) / 2 + 0.5,
        "1-sqrt": lambda x: 1 - x**0.5,
    }
    factors = [*(float(shapes[factor](x)) for x in done), 0.0]
    return [a - b for a, b in zip(factors, factors[1:], strict=False)]


def differs(merged: Tensors | None, expected: Tensors | None, tolerance: float = 1e-5, scale: float = 1.0) -> str:
    """Where a merge is not what it should be, in words; empty when it is. NaN and infinity are never right.

    Args:
        tolerance: relative error of the type that the merge is stored in.
        scale: of the numbers that are added up, where they cancel out.
    """
    if merged is None or expected is None:
        return "a merge of what cannot be merged" if expected is None else "an output that cannot be read"
    if merged.keys() != expected.keys():
        return f"other tensors: {sorted(merged.keys() ^ expected.keys())[:3]}"
    for name, values in merged.items():
        if values.shape != expected[name].shape:
            return f"{name}: another shape"
        if not np.isfinite(values).all():
            return f"{name}: not finite"
        if not np.allclose(values, expected[name], rtol=tolerance, atol=tolerance * scale):
            return f"{name}: off by {np.abs(values - expected[name]).max():.2e}"
    return ""
