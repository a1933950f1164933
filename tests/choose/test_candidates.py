"""The candidates of `python -m pma.choose`."""

from __future__ import annotations

import pytest

from pma.choose.candidates import candidates


def test_candidates_are_all_windows_that_fit_and_the_newest_alone():
    found, across = candidates([10, 20, 30, 40, 50], ["sma", "wma"], longest=40, singles=3)
    assert [c.window for c in found if c.method == "single"] == [(50,), (40,), (30,)]
    windows = {(c.method, c.n, c.every): c.window for c in found}
    assert windows["sma", 3, 2] == (10, 30, 50) and windows["sma", 2, 4] == (10, 50)
    assert windows["wma", 5, 1] == (10, 20, 30, 40, 50) and across == 0
    assert ("wma", 2, 1) not in windows and ("sma", 3, 3) not in windows and len(found) == len(set(found)) == 3 + 8 + 4


def test_of_many_windows_a_grid_is_tried_the_coarse_part_of_it_first():
    found, _ = candidates(range(1, 401), ["sma"], longest=40, singles=1)
    sizes = [(c.n, c.every) for c in found[1:]]
    assert sizes[0] == (3, 1) and {(40, 1), (2, 256), (40, 8)} <= set(sizes) and len(set(sizes)) == len(sizes) < 200
    assert max(n for n, _ in sizes) == 40 and {e for _, e in sizes[:20]} == {1, 3, 6, 12}


@pytest.mark.parametrize(
    "positions,methods,message",
    [
        ([10], ["sma"], "nothing to merge"),
        ([10, 20], ["ema"], "ema is none of"),
        ([10, 20], [], "at least one method"),
        ([10, 20, 30, 70], ["sma"], "a gap lies between 30 and 70; end=30"),
    ],
)
def test_impossible_searches_are_refused(positions, methods, message):
    with pytest.raises(ValueError, match=message):
        candidates(positions, methods, 40, 10)


def test_no_window_reaches_across_a_gap():
    found, across = candidates([10, 20, 60, 70, 80, 90], ["sma"], longest=40, singles=1)
    assert across > 0 and {c.window[0] for c in found} == {60, 70, 80, 90}
