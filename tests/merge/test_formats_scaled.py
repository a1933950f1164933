"""Eight-bit floats with scales: read as the numbers they stand for, or refused where the scales are not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import pma
from pma.merge.formats import open_source

TYPES = [torch.float8_e4m3fn, torch.float8_e5m2]


def folder_of(folder: Path, tensors: dict[str, torch.Tensor], **config: object) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "torch_dtype": "bfloat16"} | config))
    return folder


def blocks(shape: tuple[int, int], scale: torch.Tensor, sides: tuple[int, int]) -> torch.Tensor:
    """A scale for each element."""
    return scale.repeat_interleave(sides[0], 0).repeat_interleave(sides[1], 1)[: shape[0], : shape[1]]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_block_scales_are_multiplied_in(tmp_path, kind):
    generator = torch.Generator().manual_seed(0)
    shape, folders, means = (300, 200), [], []
    for i in range(2):
        weight = torch.randn(shape, generator=generator).to(kind)
        scale = torch.rand(3, 2, generator=generator) + 0.1
        tensors = {"a.weight": weight, "a.weight_scale_inv": scale, "a.norm": torch.ones(3).bfloat16()}
        config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
        folders.append(folder_of(tmp_path / str(i), tensors, **config))
        means.append(weight.float() * blocks(shape, scale, (128, 128)))
    out = pma.merge(folders, tmp_path / "out", dtype="float32")
    made = load_file(out / "model.safetensors")
    assert made.keys() == {"a.weight", "a.norm"} and torch.allclose(made["a.weight"], sum(means) / 2, rtol=1e-6)
    config = json.loads((out / "config.json").read_text())
    assert "quantization_config" not in config and config["dtype"] == "float32"
    assert json.loads((out / "manifest.json").read_text())["dequantized"] is True


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_every_byte_stands_for_the_number_that_torch_says(tmp_path, kind):
    every = torch.arange(256, dtype=torch.uint8)
    finite = every[every.view(kind).float().isfinite()].view(kind)
    folder = folder_of(tmp_path / "a", {"w": finite, "w_scale": torch.tensor(1.0)})
    made = load_file(pma.merge([folder], tmp_path / "out") / "model.safetensors")["w"]
    assert torch.equal(made, finite.float())


@pytest.mark.parametrize(
    "shape,scale", [((4, 6), (1,)), ((4, 6), (4,)), ((4, 6), (4, 1)), ((2, 128, 6), (2, 1, 1)), ((2, 4, 6), (2, 4, 1))]
)
def test_scales_of_a_tensor_or_a_row_are_multiplied_in(tmp_path, shape, scale):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(torch.float8_e4m3fn)
    scales = torch.arange(1.0, 1 + torch.Size(scale).numel()).reshape(scale).bfloat16()
    folder = folder_of(tmp_path / "a", {"w.weight": weight, "w.weight_scale": scales, "w.input_scale": torch.ones(1)})
    made = load_file(pma.merge([folder], tmp_path / "out") / "model.safetensors")
    factors = scales.float()[:, None] if len(scale) == 1 and len(scales) > 1 else scales.float()
    assert made.keys() == {"w.weight"} and torch.equal(made["w.weight"], weight.float() * factors)


def test_scales_that_do_not_fit_and_packed_numbers_are_refused(tmp_path):
    weight = torch.ones(4, 6).to(torch.float8_e4m3fn)
    folder = folder_of(tmp_path / "a", {"w": weight, "w_scale_inv": torch.ones(3, 5)})
    with pytest.raises(ValueError, match=r"w_scale_inv has shape \(3, 5\), which is neither"):
        open_source(folder)
    packed = folder_of(
        tmp_path / "b", {"w": torch.ones(4, dtype=torch.uint8)}, quantization_config={"quant_method": "mxfp4"}
    )
    with pytest.raises(ValueError, match=r"stored as mxfp4, .* model.dequantize\(\).save_pretrained"):
        open_source(packed)
