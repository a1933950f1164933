"""Tiny model folders for the tests of merging."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file


def _model_folder(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def model_folder() -> Callable[[Path, dict[str, torch.Tensor]], Path]:
    """Function that makes a model folder of some tensors."""
    return _model_folder


@pytest.fixture(scope="session")
def snapshots_of_a_run() -> Callable[[Path, int], list[Path]]:
    """Function that makes a number of snapshots near a common point, with tensors of every kind and size."""

    def snapshots(root: Path, n: int) -> list[Path]:
        generator = torch.Generator().manual_seed(0)
        base = torch.randn(300, 513, generator=generator)
        folders = []
        for i in range(n):
            noise = 0.1 * torch.randn(300, 513, generator=generator)
            tensors = {
                "model.layers.0.mlp.weight": (base + noise).bfloat16(),
                "model.layers.1.mlp.weight": torch.randn(33, generator=generator),
                "model.embed.weight": torch.randn(500, 601, generator=generator).half(),
                "ids": torch.arange(4),
            }
            folders.append(_model_folder(root / str(i), tensors))
        return folders

    return snapshots


@pytest.fixture(scope="session")
def nothing_left() -> Callable[[Path], bool]:
    """Function that says whether a refused merge into `folder`/out left nothing there."""
    return lambda folder: not (folder / "out").exists() and not list(folder.glob(".out*"))
