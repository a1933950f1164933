"""Batches are a pure function of seed and step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pma.corpus.tokens import TokenDataset, order_seed


@given(seed=st.integers(0, 5), step=st.integers(0, 500), length=st.sampled_from([4, 8]), batch=st.integers(1, 5))
def test_batches_are_a_pure_function_of_seed_and_step(
    tmp_path_factory: pytest.TempPathFactory, seed: int, step: int, length: int, batch: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "tokens"
    if not folder.exists():
        folder.mkdir()
        for part in ("train", "instruct"):
            np.arange(203, dtype="<u2").tofile(folder / f"{part}.bin")
        (np.arange(203) % 3 == 0).astype(np.uint8).tofile(folder / "instruct.mask.bin")
        (folder / "manifest.json").write_text('{"dtype": "uint16"}')
    data = TokenDataset(folder, seed, length, batch)
    data.batch(step + 7)  # what was asked before must not matter
    inputs, targets = data.batch(step)
    assert inputs.dtype == targets.dtype == np.int64 and inputs.shape == targets.shape == (batch, length)
    assert np.array_equal(inputs, TokenDataset(folder, seed, length, batch).batch(step)[0])
    assert np.array_equal(inputs - inputs[:, :1], np.tile(np.arange(length), (batch, 1)))
    assert np.array_equal(targets, inputs + 1)  # the tokens of the file are 0, 1, 2, ...
    assert not (inputs[:, 0] % length).any()
    masked = TokenDataset(folder, seed, length, batch, "instruct").batch(step)
    assert np.array_equal(masked[0], inputs)
    assert np.array_equal(masked[1], np.where(targets % 3 == 0, targets, -100))
    epoch = [data.batch(s)[0][:, 0] for s in range(data.epoch_steps)]
    starts = np.concatenate(epoch)
    assert len(np.unique(starts)) == len(starts)  # no window twice an epoch
    with pytest.raises(ValueError, match="less than one batch"):
        TokenDataset(folder, seed, 64, 8)
    with pytest.raises(ValueError, match="has no part continued; set data.continued"):
        TokenDataset(folder, seed, length, batch, "continued")


def test_another_order_of_the_same_data_has_a_seed_of_its_own():
    assert order_seed(3, None) == 3
    assert len({order_seed(seed, order) for seed in (2, 3) for order in (None, 1, 2)}) == 6
    assert order_seed(3, 1) == order_seed(3, 1)
