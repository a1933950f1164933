"""The pass: the same bits however it is cut, and infinities seen wherever they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from numba.core import caching

from pma.merge import cached, kernels, summary
from pma.merge.check import open_sources
from pma.merge.stream import Pass
from pma.merge.summary import Seen, Sum, summarize


def run_pass(folders: list[Path], weights: list[list[float]], **options) -> tuple[list[dict], Seen]:
    with open_sources(folders) as sources:
        infos = sources[-1].tensors
        made = [{name: np.zeros(info.count * 8, np.uint8) for name, info in infos.items()} for _ in weights]

        def write(i: int, name: str, start: int, values: np.ndarray) -> None:
            at = start * values.itemsize
            made[i][name][at : at + values.nbytes] = values.view(np.uint8)

        sums = [Sum(tuple(w), "F32") for w in weights]
        return made, summarize(sources, sums, Pass(sources, sums, **options).run(write))


@pytest.mark.parametrize(
    "accumulate,whole", [("float32", summary.WHOLE), ("float64", summary.WHOLE), ("float32", 2**15)]
)
def test_bits_depend_on_snapshots_and_weights_alone(tmp_path, monkeypatch, accumulate, whole, snapshots_of_a_run):
    monkeypatch.setattr(summary, "WHOLE", whole)
    folders = snapshots_of_a_run(tmp_path, 10)
    weights = [[float(x) for x in np.random.default_rng(i).normal(size=10)] for i in range(6)]
    whole, seen = run_pass(folders, weights[:1], accumulate=accumulate)
    for options in ({"threads": 2, "memory": 1}, {"threads": 2, "memory": 2**23}, {"threads": 3, "memory": 2**24}):
        cut, also = run_pass(folders, weights[:1], accumulate=accumulate, **options)
        assert all(np.array_equal(whole[0][name], cut[0][name]) for name in whole[0])
        assert seen.sum_hashes == also.sum_hashes and seen.hashes == also.hashes
        assert all(np.array_equal(seen.grams[layer], also.grams[layer]) for layer in seen.grams)
    many, also = run_pass(folders, weights, accumulate=accumulate, threads=2)
    assert all(np.array_equal(whole[0][name], many[0][name]) for name in whole[0])
    alone, _ = run_pass(folders[4:], [weights[1][4:]], accumulate=accumulate)
    padded, _ = run_pass(folders, [weights[0], [0.0] * 4 + weights[1][4:]], accumulate=accumulate)
    assert all(np.array_equal(alone[0][name], padded[1][name]) for name in alone[0])


@given(values=st.lists(st.floats(width=32), min_size=1, max_size=50), accumulate=st.sampled_from(["<f4", "<f8"]))
def test_bf16_is_rounded_as_torch_does(values, accumulate):
    array = np.array(values, accumulate)[None]
    expected = torch.from_numpy(array[0]).float().bfloat16()
    none, stored = np.empty((1, 0), np.uint16), np.empty(array.shape, np.uint16)
    samples, weights = np.empty((0, 1, summary.UNIT), accumulate), np.ones((1, 1), accumulate)
    kernels.blend(array, none, weights, np.empty((1, 0), accumulate), stored, samples, 0, 0)
    ours = torch.from_numpy(stored[0].view(np.int16)).view(torch.bfloat16)
    assert torch.equal(ours.isnan(), expected.isnan())
    assert torch.equal(ours[~ours.isnan()], expected[~expected.isnan()])


@pytest.mark.parametrize("accumulate", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("at", [0, 255, 256, 3000])
def test_nan_and_infinity_are_seen_wherever_they_are(dtype, accumulate, at):
    values = torch.randn(3001, generator=torch.Generator().manual_seed(at)).to(dtype)
    values[at - 1] = torch.finfo(torch.float32 if dtype == torch.float64 else dtype).max  # large, but a number
    bf16, none = dtype == torch.bfloat16, np.empty((1, 0), accumulate)

    def add() -> bool:
        bits = values.view(torch.int16).numpy().view(np.uint16)[None] if bf16 else np.empty((1, 0), np.uint16)
        numbers = none if bf16 else values.numpy().astype(accumulate)[None]
        sums, samples = np.empty((2, 3001), accumulate), np.empty((0, 1, summary.UNIT), accumulate)
        weights = np.array([[0.5], [0]], accumulate)
        return kernels.blend(numbers, bits, weights, sums, np.empty((2, 0), np.uint16), samples, 0, 0)

    assert add()
    for wild in (float("nan"), float("inf"), -float("inf")):
        values[at] = wild
        assert not add()


def test_a_function_that_numba_did_not_cache_is_called_instead():
    calls = []
    cached.load(lambda *arguments: calls.append(arguments), 1, 2.0)
    assert calls == [(1, 2.0)]


def test_where_no_cache_can_be_written_functions_are_compiled_at_every_start(monkeypatch):
    def refuse(self):
        raise PermissionError("read-only")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    with pytest.raises(RuntimeError, match="cannot cache"):
        njit(cache=True)(lambda x: x)
    double = cached.compiled()(lambda x: 2 * x)
    assert double(3.0) == 6.0
    cached.load(double, 3.0)  # nothing is kept, so it is called
