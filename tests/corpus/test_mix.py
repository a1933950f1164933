"""Mixing: permutations without a table, exact shares, and the same rows for every process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st

from pma.config import CONF_DIR, register
from pma.corpus.mix import ROUND, Mix, mixing_weights, permuted, round_counts
from pma.corpus.tokens import TokenDataset
from pma.train.loop import train


@given(size=st.integers(1, 300), seed=st.integers(0, 99))
def test_permutations_visit_everything_once(size: int, seed: int) -> None:
    places = permuted(np.arange(size), size, seed)
    assert np.array_equal(np.sort(places), np.arange(size))
    assert np.array_equal(permuted(np.arange(size)[::2], size, seed), places[::2])


def test_permutations_of_billions_take_no_table_and_look_like_chance() -> None:
    size = 3 * 10**12
    places = permuted(np.arange(100_000), size, 0)
    assert len(np.unique(places)) == 100_000 and 0 <= places.min() and places.max() < size
    quarters = np.bincount(places * 4 // size, minlength=4)
    assert abs(quarters - 25_000).max() < 700  # five standard deviations
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.016
    assert (places != permuted(np.arange(100_000), size, 1)).all()
    orders = {tuple(permuted(np.arange(5), 5, key)) for key in range(2000)}
    assert len(orders) == 120


def _numbered(folder: Path, sizes: list[list[int]]) -> list[list[tuple[Path, int]]]:
    """Files of tokens, each a number of its own."""
    components, first = [], 0
    for component, files in enumerate(sizes):
        components.append([])
        for number, tokens in enumerate(files):
            path = folder / f"{component}-{number}.bin"
            np.arange(first, first + tokens, dtype="<u4").tofile(path)
            components[-1].append((path, tokens))
            first += tokens
    return components


def test_a_mix_keeps_its_shares_and_visits_every_window_once_an_epoch(tmp_path: Path) -> None:
    weights = [0.7, 0.2, 0.1]
    components = _numbered(tmp_path, [[403, 10, 3, 200], [97], [41, 41]])
    mix = Mix(components, weights, np.dtype("<u4"), seed=3, length=4)
    rows = np.arange(3 * ROUND)
    dealt, numbers = mix.dealt(rows)
    assert np.array_equal(np.bincount(dealt), 3 * ROUND * np.array(weights))
    assert np.array_equal(np.bincount(dealt[500:1500]) / 1000 > [0.65, 0.15, 0.07], [True] * 3)  # well mixed
    tokens = mix.read(rows[:5000])
    assert np.array_equal(tokens, tokens[:, :1] + np.arange(5))  # no window crosses files
    for component, windows in enumerate([100 + 2 + 0 + 49, 24, 20]):
        here = dealt == component
        assert np.array_equal(np.sort(numbers[here]), np.arange(here.sum()))
        starts = tokens[here[:5000], 0]
        first, second = starts[:windows], starts[windows : 2 * windows]
        assert len(np.unique(first)) == windows and set(first) == set(second) and list(first) != list(second)
    assert mix.epoch_rows == 24 * ROUND // 2000  # of the component that ends first


def test_round_counts_are_whole_and_nearest() -> None:
    assert round_counts([1, 1, 1]).tolist() == [3334, 3333, 3333]
    assert round_counts([0.9999, 0.0001]).tolist() == [9999, 1]


@pytest.mark.parametrize("size", [2, 4])
def test_every_process_reads_its_rows_of_the_same_batch(
    mixed_corpus: Path, hub_files: Path, make_hub_config, size: int
) -> None:
    weights = mixing_weights(make_hub_config(hub_files))
    data = TokenDataset(mixed_corpus, 1, 16, 8, weights=weights)
    for step in (0, 5, ROUND // 8 - 1, 10**9):  # one across rounds, one after many epochs
        whole = data.batch(step)
        parts = [slice(rank * 8 // size, (rank + 1) * 8 // size) for rank in range(size)]
        others = [TokenDataset(mixed_corpus, 1, 16, 8, weights=weights).batch(step, rows) for rows in parts]
        for array, *pieces in zip(whole, *others, strict=True):
            assert array.dtype == np.int64 and array.shape == (8, 16)
            assert np.array_equal(np.concatenate(pieces), array)
        assert np.array_equal(whole[0][:, 1:], whole[1][:, :-1])
    assert not np.array_equal(data.batch(0)[0], TokenDataset(mixed_corpus, 2, 16, 8, weights=weights).batch(0)[0])


def test_a_run_trains_on_a_mix(mixed_corpus: Path, hub_files: Path, make_hub_config, tmp_path: Path) -> None:
    register()
    overrides = ["scale=smoke", "tracking=off", "threads=1", "train.total_tokens=1024", "train.snapshot_interval=1024"]
    overrides += ["train.checkpoint_interval=1024", "train.fork_points=[]", "train.log_interval=1"]
    folders = [f"runs_dir={tmp_path}", f"data_dir={mixed_corpus.parents[1]}", "schedule.warmup_tokens=256"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("config", [*overrides, *folders, "run=dense_411m"])
    cfg.data = make_hub_config(hub_files)
    losses = [json.loads(line)["loss"] for line in (train(cfg) / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 4 and all(0 < loss < 7 for loss in losses)
