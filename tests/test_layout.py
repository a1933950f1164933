"""Positions in the names of checkpoints, and windows over them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pma.layout import (
    gaps,
    last,
    list_by_tokens,
    position_of,
    positions,
    run_window,
    snapshot_dir,
    tokens_of,
    trajectory,
    window,
)


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


def test_a_window_of_a_billion_is_refused_at_once_in_one_short_line():
    with pytest.raises(ValueError, match=r"no snapshot at .*, \.\.\.; .* at most n=10") as error:
        window(range(0, 100, 10), 10**9, 10, 90)
    assert len(str(error.value)) < 300


def test_folders_are_known_by_their_number(tmp_path):
    for tokens in (100, 10, 9):
        snapshot_dir(tmp_path, tokens).mkdir(parents=True)
    for name in ("tokens-10x", ".tokens-11.partial-host-1", "other"):  # no snapshots
        (tmp_path / "snapshots" / name).mkdir()
    assert list(list_by_tokens(tmp_path / "snapshots")) == [9, 10, 100]
    assert [tokens_of(folder) for folder in run_window(tmp_path, 2, 1, 10)] == [9, 10]
    with pytest.raises(ValueError, match="its name is no tokens-N"):
        tokens_of(tmp_path)
    with pytest.raises(ValueError, match="no snapshots there; give the folder of a trained run"):
        run_window(tmp_path / "snapshots", 2, 1, 10)


@pytest.mark.parametrize(
    "name,position",
    [
        ("checkpoint-500", 500),
        ("step-1000", 1000),
        ("step_1000", 1000),
        ("step1000", 1000),
        ("iter_0000100", 100),
        ("global_step40", 40),
        ("tokens-000000512", 512),
        ("epoch=3-step=400.ckpt", 400),
        ("epoch=03-val_loss=1.25.ckpt", 3),
        ("model--val_loss=2.5-step=70-consumed_samples=560.0", 70),
        ("org/model@stage1-step1000-tokens5B", None),
        ("org/model@step1000-tokens5B", 1000),
        ("step=400-last", None),
        ("step-11x", None),
        ("checkpoint-best", None),
        ("last.ckpt", None),
    ],
)
def test_the_position_in_a_name_is_a_number(name, position):
    assert position_of(name) == position


def test_positions_are_in_their_order_and_each_once(tmp_path):
    for name in ("step-9", "step-100", "checkpoint-10", "step-11x", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "epoch=1-step=50.ckpt").touch()
    (tmp_path / "step-60").touch()  # a file of no known kind
    assert list(positions(tmp_path)) == [9, 10, 50, 100]
    (tmp_path / "step_100").mkdir()
    with pytest.raises(ValueError, match="step-100 and step_100 both stand at 100"):
        positions(tmp_path)
    (tmp_path / "checkpoints" / "iter_0000005").mkdir(parents=True)
    assert list(positions(tmp_path)) == [5]
    assert positions(tmp_path / "nothing") == {}


@given(have=st.sets(st.integers(0, 99), min_size=1), n=st.integers(1, 9), every=st.integers(1, 3))
def test_the_last_positions_are_every_so_many_back_from_the_end(have, n, every):
    back = sorted(have, reverse=True)[::every]
    if len(back) < n:
        with pytest.raises(ValueError, match=f"enough for last={len(back)}"):
            last(have, n, every)
    else:
        assert last(have, n, every) == back[:n][::-1]


def test_a_gap_is_wider_than_the_others():
    assert gaps([100, 200, 400, 500]) == [(200, 400)]
    assert gaps([100, 200, 300, 350]) == gaps([100, 900]) == gaps([7]) == []


@pytest.mark.parametrize("fork", [7, [], {}, {"run": 7, "tokens": 3}, {"run": "../a", "tokens": 3}, {"run": "a"}])
def test_a_fork_of_a_run_that_is_none_is_refused(tmp_path, fork):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"continues": fork}))
    with pytest.raises(ValueError, match="run/manifest.json: continues is .*, not the run and tokens of a fork"):
        trajectory(tmp_path / "run")
