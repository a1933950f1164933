"""The average worked out a second time, in float64 and without the merge engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open


def read(folder: Path) -> dict[str, np.ndarray] | None:
    """Every tensor of a folder's .safetensors files, in float64, or None when the library itself refuses a file."""
    tensors = {}
    try:
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                tensors |= {name: file.get_tensor(name).double().numpy() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
    return tensors


def weighted_sum(sources: list[dict[str, np.ndarray] | None], weights: list[float]) -> dict[str, np.ndarray] | None:
    """The sum over sources in float64; None when there is none, for want of a tensor somewhere."""
    if any(source is None or source.keys() != sources[0].keys() for source in sources):
        return None
    return {
        name: sum(weight * source[name] for weight, source in zip(weights, sources, strict=True)) for name in sources[0]
    }


def differs(merged: dict[str, np.ndarray] | None, expected: dict[str, np.ndarray] | None) -> str:
    """Where a merge is not what it should be, in words; empty when it is. NaN and infinity are never right."""
    if merged is None or expected is None:
        return (
            "a merge of what the safetensors library refuses" if expected is None else "an output that cannot be read"
        )
    if merged.keys() != expected.keys():
        return f"other tensors: {sorted(merged.keys() ^ expected.keys())[:3]}"
    for name, values in merged.items():
        if values.shape != expected[name].shape:
            return f"{name}: another shape"
        if not np.isfinite(values).all():
            return f"{name}: not finite"
        if not np.allclose(values, expected[name], rtol=1e-5, atol=1e-6):
            return f"{name}: off by {np.abs(values - expected[name]).max():.2e}"
    return ""
