"""Windows over the snapshots of a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pma.layout import list_by_tokens, run_window, snapshot_dir, tokens_of, window


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
