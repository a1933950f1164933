"""Averages in memory against float64 numpy, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from pma.merge import Policy, average, sma
from pma.merge.memory import trials
from pma.merge.options import Part


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_average_equals_float64_numpy(tmp_path_factory, data, model_folder):
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
    merged = average(folders, weights, Policy(suspicious="warn"))  # random models are no window of a run
    assert merged.keys() == exact.keys()
    for name, value in exact.items():
        assert merged[name].dtype == torch.float32
        np.testing.assert_allclose(merged[name].numpy(), value, rtol=1e-5, atol=1e-5)


def test_merging_one_model_alone_or_equal_models_changes_no_bit(tmp_path, model_folder):
    tensors = {"w": torch.randn(5, 3)}
    folders = [model_folder(tmp_path / str(i), tensors) for i in range(4)]
    assert torch.equal(average(folders[:1], [1.0])["w"], tensors["w"])
    assert torch.equal(average(folders, sma(4))["w"], tensors["w"])  # quarters are exact


def test_bf16_is_summed_in_fp32(tmp_path, model_folder):
    # In bf16 256 + 1 = 256: a sum kept in the storage type would lose the small models altogether.
    values = [256.0, 1.0, 1.0, 1.0]
    folders = [
        model_folder(tmp_path / str(i), {"w": torch.tensor([v], dtype=torch.bfloat16)}) for i, v in enumerate(values)
    ]
    assert average(folders, [1.0] * 4, Policy(suspicious="warn"))["w"].item() == 259.0


def test_the_sum_is_the_fused_chain_from_the_oldest_on(tmp_path, snapshots_of_a_run):
    folders = snapshots_of_a_run(tmp_path, 5)
    weights = [0.3, -0.2, 0.5, 0.15, 0.25]
    merged = average(folders, weights)
    tensors = [load_file(folder / "model.safetensors") for folder in folders]
    for name, value in merged.items():
        if value.is_floating_point():
            chain = tensors[0][name].double() * np.float32(weights[0])
            for w, t in zip(weights[1:], tensors[1:], strict=True):
                chain = (chain.float().double() + t[name].double() * float(np.float32(w))).float().double()
            assert torch.equal(value, chain.float())  # a product of two fp32 is exact in float64: one rounding a step


def test_equal_integers_are_copied_and_unequal_ones_refused(tmp_path, model_folder):
    same = [model_folder(tmp_path / f"s{i}", {"ids": torch.arange(3), "w": torch.ones(1)}) for i in range(2)]
    assert torch.equal(average(same, sma(2))["ids"], torch.arange(3))
    other = model_folder(tmp_path / "other", {"ids": torch.arange(3) + 1, "w": torch.ones(1)})
    with pytest.raises(ValueError, match="ids"):
        average([same[0], other], sma(2))


def test_many_trials_share_a_pass_and_each_is_judged_alone(tmp_path, model_folder):
    generator = torch.Generator().manual_seed(0)
    base, tensors = torch.randn(70, 90, generator=generator), []
    for i in range(8):
        walk = base + 0.02 * i + 0.05 * torch.randn(70, 90, generator=generator)
        tensors.append(walk + (9 if i == 1 else 0))  # a spike
    folders = [model_folder(tmp_path / str(i), {"layers.0.w": t}) for i, t in enumerate(tensors)]
    late, wide, pair = [0] * 3 + sma(5), sma(8), [0.5] + [0] * 6 + [0.5]
    found = trials(folders, [late, wide, pair], Policy(), Part())
    assert torch.equal(found[0].merge.tensors["layers.0.w"], average(folders[3:], sma(5))["layers.0.w"])
    assert found[1].merge is None and f"{folders[1]}:" in found[1].refusal and "a spike" in found[1].refusal
    assert found[2].merge is not None and found[2].cosines == []
    steps = [(b - a).double().flatten() for a, b in zip(tensors[3:], tensors[4:], strict=False)]
    cosines = [torch.cosine_similarity(a, b, dim=0).item() for a, b in zip(steps, steps[1:], strict=False)]
    np.testing.assert_allclose(found[0].cosines, cosines, atol=1e-4)
    warned = trials(folders, [wide], Policy(suspicious="warn"), Part())
    assert warned[0].merge is not None and len(warned[0].cosines) == 6
