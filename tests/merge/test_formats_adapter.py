"""LoRA adapters: the exact mean of their products, the cheap mean of their factors, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import pma
from pma.json_files import MANIFEST

Q, EMBED = "base_model.model.layers.0.q_proj", "base_model.model.embed"
CONFIG = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "base_model_name_or_path": "some/base", "target_modules": ["q"]}


def adapter(folder: Path, seed: int, kind: torch.dtype = torch.float32, rows: int = 5, **config: Any) -> Path:
    """An adapter of a matrix of `rows` x 7 and of an embedding of 11 x 7, with a head that was trained whole."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    shapes = {f"{Q}.lora_A.weight": (3, 7), f"{Q}.lora_B.weight": (rows, 3), f"{Q}.lora_B.bias": (rows,)}
    shapes |= {
        f"{EMBED}.lora_embedding_A": (3, 11),
        f"{EMBED}.lora_embedding_B": (7, 3),
        "base_model.model.head.weight": (2, 7),
    }
    tensors = {name: torch.randn(shape, generator=generator).to(kind) for name, shape in shapes.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    return folder


def updates(folder: Path) -> dict[str, torch.Tensor]:
    """What an adapter adds to its matrices, in float64."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = {name: tensor.double() for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    return {
        Q: scale * tensors[f"{Q}.lora_B.weight"] @ tensors[f"{Q}.lora_A.weight"],
        EMBED: scale * tensors[f"{EMBED}.lora_embedding_B"] @ tensors[f"{EMBED}.lora_embedding_A"],
        "bias": scale * tensors[f"{Q}.lora_B.bias"],
        "head": tensors["base_model.model.head.weight"],
    }


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}])
def test_an_exact_merge_is_the_weighted_sum_of_the_products(tmp_path, config):
    folders = [adapter(tmp_path / str(i), i, **config) for i in range(4)]
    weights = [0.1, 0.2, 0.3, 0.4]
    out = pma.merge(folders, tmp_path / "out", weights=weights)
    kept = json.loads((out / "adapter_config.json").read_text())
    assert kept["r"] == 12 and kept["base_model_name_or_path"] == "some/base"
    made, given = updates(out), [updates(folder) for folder in folders]
    for name, update in made.items():
        expected = sum(weight * each[name] for weight, each in zip(weights, given, strict=True))
        assert torch.allclose(update, expected, rtol=1e-5, atol=1e-5), name
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["lora"] == "exact" and [source["weight"] for source in manifest["sources"]] == weights
    assert not (out / "model.safetensors").exists()


def test_blocks_of_any_size_give_the_same_exact_merge(tmp_path):
    folders = [adapter(tmp_path / str(i), i, torch.bfloat16, rows=5000) for i in range(3)]
    weights = [0.25, 0.25, 0.5]  # exact in bf16
    whole = pma.merge(folders, tmp_path / "whole", weights=weights, dtype="newest")
    parts = pma.merge(folders, tmp_path / "parts", weights=weights, dtype="newest", memory=1)
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    own = [load_file(folder / "adapter_model.safetensors")[f"{Q}.lora_B.weight"] for folder in folders]
    expected = torch.cat([weight * each for weight, each in zip(weights, own, strict=True)], 1)
    assert torch.equal(first[f"{Q}.lora_B.weight"], expected)
    assert {tensor.dtype for tensor in first.values()} == {torch.bfloat16}


def test_factors_are_averaged_apart_where_that_is_asked_for(tmp_path):
    folders = [adapter(tmp_path / str(i), i) for i in range(2)]
    out = pma.merge(folders, tmp_path / "out", lora="factors")
    first, second, made = (load_file(folder / "adapter_model.safetensors") for folder in (*folders, out))
    assert all(torch.allclose(made[name], (first[name] + second[name]) / 2) for name in first)
    assert json.loads((out / "adapter_config.json").read_text()) == CONFIG
    assert json.loads((out / MANIFEST).read_text())["lora"] == "factors"


@pytest.mark.parametrize(
    "config,options,message",
    [
        ({"base_model_name_or_path": "other/base"}, {}, "an adapter of other/base, .* of some/base; merge one base"),
        ({"lora_alpha": 3}, {}, "lora_alpha is 3, in .* 6; merge adapters of one run"),
        ({}, {"format": "dcp"}, "format=dcp: adapters are written as PEFT reads them"),
        ({}, {"lora": "both"}, "lora=both: choose exact or factors"),
    ],
)
def test_adapters_that_do_not_go_together_are_refused(tmp_path, nothing_left, config, options, message):
    folders = [adapter(tmp_path / "0", 0, **config), adapter(tmp_path / "1", 1)]
    with pytest.raises(ValueError, match=message):
        pma.merge(folders, tmp_path / "out", **options)
    assert nothing_left(tmp_path)


def test_what_is_no_plain_adapter_is_refused(tmp_path, model_folder):
    dora = [adapter(tmp_path / str(i), i, use_dora=True) for i in range(2)]
    with pytest.raises(ValueError, match="an adapter of DoRA, whose exact mean is none; .*lora=factors"):
        pma.merge(dora, tmp_path / "out")
    model = model_folder(tmp_path / "model", {"w": torch.ones(2)})
    with pytest.raises(ValueError, match="model: no adapter, and .* is one; merge one kind only"):
        pma.merge([dora[0], model], tmp_path / "out")
    (dora[0] / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match="adapter_config.json: missing, and without it"):
        pma.merge(dora, tmp_path / "out")


@pytest.mark.parametrize(
    "content,message",
    [
        ("[]", "a JSON object should stand there"),
        ('[["r", 3]]', "a JSON object should stand there"),
        ("{", "not readable as JSON"),
        (json.dumps({**CONFIG, "r": "3"}), "r is '3'"),
        (json.dumps({**CONFIG, "r": True}), "r is 'True'"),
        (json.dumps({k: v for k, v in CONFIG.items() if k != "r"}), "r is 'None'"),
        (json.dumps({**CONFIG, "lora_alpha": None}), "lora_alpha is 'None'"),
        (json.dumps({**CONFIG, "rank_pattern": [3]}), "rank_pattern is"),
        (json.dumps({**CONFIG, "alpha_pattern": {"q": "6"}}), "alpha_pattern is"),
    ],
)
def test_a_damaged_config_is_refused_though_all_have_the_same(tmp_path, nothing_left, content, message):
    folders = [adapter(tmp_path / str(i), i) for i in range(2)]
    for folder in folders:
        (folder / "adapter_config.json").write_text(content)
    with pytest.raises(ValueError, match=f"0/adapter_config.json: .*{message}") as error:
        pma.merge(folders, tmp_path / "out")
    assert "\n" not in str(error.value) and nothing_left(tmp_path)
