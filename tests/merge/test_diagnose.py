"""Distances and outliers of a window against float64 numpy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import pma
from pma.merge import summary


def test_a_straight_trajectory_has_no_outlier(tmp_path, model_folder):
    folders = [model_folder(tmp_path / str(i), {"w": torch.arange(50.0) * i}) for i in range(12)]
    assert pma.merge(folders, tmp_path / "out").is_dir()


def test_diagnostics_are_those_of_float64_numpy(tmp_path, monkeypatch, snapshots_of_a_run):
    monkeypatch.setattr(summary, "WHOLE", 2**20)
    folders = snapshots_of_a_run(tmp_path, 4)
    out = pma.merge(folders, tmp_path / "out")
    found = json.loads((out / "diagnostics.json").read_text())
    loaded = [load_file(folder / "model.safetensors") for folder in folders]
    names = [name for name, t in loaded[0].items() if t.is_floating_point()]
    vectors = np.stack([np.concatenate([t[n].double().numpy().ravel() for n in names]) for t in loaded])
    expected = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    np.testing.assert_allclose(found["distances"], expected, rtol=1e-4, atol=1e-6 * expected.max())
    np.testing.assert_allclose(found["norms"], np.linalg.norm(vectors, axis=1), rtol=1e-4)
    steps = np.diff(vectors, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    cosines = (steps[1:] * steps[:-1]).sum(1) / (lengths[1:] * lengths[:-1])
    np.testing.assert_allclose(found["update_cosines"], cosines, atol=1e-4)
    layer = np.stack([t["model.layers.0.mlp.weight"].double().numpy() for t in loaded])
    assert found["layer_variance"]["layers.0"] == pytest.approx(layer.var(axis=0).mean(), rel=1e-3)
    ratio = np.linalg.norm(vectors.mean(0)) / np.linalg.norm(vectors[-1])
    assert found["mean_norm_ratio"] == pytest.approx(ratio, rel=1e-4)


def test_of_a_large_tensor_every_eighth_unit_stands_for_all(tmp_path, monkeypatch, snapshots_of_a_run):
    monkeypatch.setattr(summary, "WHOLE", 2**15)
    folders = snapshots_of_a_run(tmp_path, 4)
    found = json.loads((pma.merge(folders, tmp_path / "out") / "diagnostics.json").read_text())
    loaded = [load_file(folder / "model.safetensors") for folder in folders]
    squares = 0.0
    for name, tensor in loaded[1].items():
        if tensor.is_floating_point():
            flat = (tensor.double() - loaded[0][name].double()).reshape(-1)
            units = flat.split(summary.UNIT)[:: summary.SAMPLED] if flat.numel() > 2**15 else [flat]
            seen = torch.cat(units)
            squares += float(seen.square().sum()) * flat.numel() / seen.numel()
    assert found["distances"][0][1] == pytest.approx(squares**0.5, rel=1e-4)


def test_a_snapshot_too_wild_for_sums_of_squares_is_an_outlier(tmp_path, model_folder):
    def outlier(wild: int) -> str:
        root = tmp_path / str(wild)
        folders = [
            model_folder(root / str(i), {"w": torch.full((9,), 1e25 if i == wild else float(i))}) for i in range(5)
        ]
        with pytest.raises(ValueError, match="inf times as far") as error:
            pma.merge(folders, root / "out")
        return str(error.value).partition(":")[0]

    assert [outlier(wild) for wild in (0, 3)] == [str(tmp_path / "0" / "0"), str(tmp_path / "3" / "3")]
