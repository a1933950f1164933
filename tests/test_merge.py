"""Merging: weights against their definitions, averages against float64 numpy, windows, provenance, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pma.files import MANIFEST
from pma.merge import average, ema, explicit, merge_folders, method_weights, sma, window, wma


def model_folder(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@given(n=st.integers(1, 40), alpha=st.floats(0.01, 1.0))
def test_ema_weights_are_the_papers_recursion(n, alpha):
    models = np.eye(n)  # row i is "model i": the recursion's result is then its vector of weights
    recursive = models[0]
    for model in models[1:]:
        recursive = alpha * model + (1 - alpha) * recursive
    np.testing.assert_allclose(ema(n, alpha), recursive, rtol=1e-12, atol=1e-15)


@given(n=st.integers(1, 200))
def test_sma_and_wma_weights(n):
    np.testing.assert_allclose(sma(n), np.full(n, 1 / n))
    ranks = np.arange(1, n + 1)
    np.testing.assert_allclose(wma(n), ranks / ranks.sum())


@pytest.mark.parametrize("method,alpha", [("ema", None), ("sma", 0.1), ("ema", 0.0), ("ema", 1.5), ("mean", None)])
def test_impossible_methods_are_refused(method, alpha):
    with pytest.raises(ValueError, match="alpha|method"):
        method_weights(method, 3, alpha)


def test_explicit_weights_must_match_in_number():
    with pytest.raises(ValueError, match="2 given for 3"):
        explicit([0.5, 0.5], 3)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_average_equals_float64_numpy(tmp_path_factory, data):
    shapes = data.draw(st.lists(st.lists(st.integers(1, 7), min_size=0, max_size=3), min_size=1, max_size=4))
    dtypes = data.draw(
        st.lists(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), min_size=4, max_size=4)
    )
    n = data.draw(st.integers(1, 6))
    weights = data.draw(st.lists(st.floats(-1, 1), min_size=n, max_size=n))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    folders, exact = [], {}
    root = tmp_path_factory.mktemp("average")
    for i in range(n):
        tensors = {
            f"t{k}": torch.randn(shape, generator=generator).to(dtype)
            for k, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False))
        }
        folders.append(model_folder(root / str(i), tensors))
        for name, tensor in tensors.items():
            exact[name] = exact.get(name, 0) + weights[i] * tensor.to(torch.float64).numpy()
    merged = average(folders, weights)
    assert merged.keys() == exact.keys()
    for name, value in exact.items():
        assert merged[name].dtype == torch.float32
        np.testing.assert_allclose(merged[name].numpy(), value, rtol=1e-5, atol=1e-5)


def test_merging_one_model_alone_or_equal_models_changes_no_bit(tmp_path):
    tensors = {"w": torch.randn(5, 3)}
    folders = [model_folder(tmp_path / str(i), tensors) for i in range(4)]
    assert torch.equal(average(folders[:1], [1.0])["w"], tensors["w"])
    assert torch.equal(average(folders, sma(4))["w"], tensors["w"])  # quarters are exact


def test_bf16_is_summed_in_fp32(tmp_path):
    # In bf16 256 + 1 = 256: a sum kept in the storage type would lose the small models altogether.
    values = [256.0, 1.0, 1.0, 1.0]
    folders = [
        model_folder(tmp_path / str(i), {"w": torch.tensor([v], dtype=torch.bfloat16)}) for i, v in enumerate(values)
    ]
    assert average(folders, [1.0] * 4)["w"].item() == 259.0


def test_equal_integers_are_copied_and_unequal_ones_refused(tmp_path):
    same = [model_folder(tmp_path / f"s{i}", {"ids": torch.arange(3), "w": torch.ones(1)}) for i in range(2)]
    assert torch.equal(average(same, sma(2))["ids"], torch.arange(3))
    other = model_folder(tmp_path / "other", {"ids": torch.arange(3) + 1, "w": torch.ones(1)})
    with pytest.raises(ValueError, match="ids"):
        average([same[0], other], sma(2))


def test_differing_names_shapes_missing_and_truncated_files_are_named(tmp_path):
    good = model_folder(tmp_path / "good", {"w": torch.ones(4), "v": torch.ones(2)})
    shape = model_folder(tmp_path / "shape", {"w": torch.ones(5), "v": torch.ones(2)})
    name = model_folder(tmp_path / "name", {"w": torch.ones(4), "u": torch.ones(2)})
    cut = model_folder(tmp_path / "cut", {"w": torch.ones(4), "v": torch.ones(2)})
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[:-5])
    for bad, message in ((shape, r"w has shape \(5,\)"), (name, "tensor u|tensor v"), (cut, "not a whole safetensors")):
        with pytest.raises(ValueError, match=message):
            merge_folders([good, bad], sma(2), tmp_path / "out")
    with pytest.raises(ValueError, match="no model.safetensors"):
        merge_folders([good, tmp_path / "nowhere"], sma(2), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_snapshot_that_differs_from_its_manifest_is_refused(tmp_path):
    folder = model_folder(tmp_path / "a", {"w": torch.ones(4)})
    (folder / MANIFEST).write_text(json.dumps({"files": {"model.safetensors": "0" * 64}}))
    with pytest.raises(ValueError, match="truncated or changed"):
        average([folder], [1.0])


def test_output_carries_provenance_config_and_format(tmp_path):
    folders = [model_folder(tmp_path / str(i), {"w": torch.full((2,), float(i))}) for i in range(3)]
    merge_folders(folders, wma(3), tmp_path / "out", "bfloat16", {"method": "wma"})
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert [source["weight"] for source in manifest["sources"]] == wma(3)
    assert len({source["sha256"] for source in manifest["sources"]}) == 3
    assert load_file(tmp_path / "out" / "model.safetensors")["w"].dtype == torch.bfloat16
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"model_type": "qwen3", "dtype": "bfloat16"}
    with pytest.raises(ValueError, match="exists already"):
        merge_folders(folders, wma(3), tmp_path / "out")


@given(n=st.integers(1, 12), interval=st.integers(1, 9), end=st.integers(0, 150))
def test_a_window_is_exact_or_refused(n, interval, end):
    have = range(0, 101, 2)
    wanted = [end - (n - 1 - i) * interval for i in range(n)]
    if all(tokens in have for tokens in wanted):
        assert window(have, n, interval, end) == wanted
    else:
        with pytest.raises(ValueError, match="no snapshot at"):
            window(have, n, interval, end)


def test_a_refused_window_names_the_nearest_that_can_be_filled():
    with pytest.raises(ValueError, match="nearest end that n=3 interval=10 can fill is end=90"):
        window(range(0, 100, 10), 3, 10, 100)
    with pytest.raises(ValueError, match="at most n=10 can be filled"):
        window(range(0, 100, 10), 20, 10, 90)
