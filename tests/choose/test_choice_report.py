"""What a search says of the way a run moves."""

from __future__ import annotations

import pytest

from pma.choose.candidates import Candidate
from pma.choose.kept import Scored
from pma.choose.report import reason
from pma.choose.result import Result

LAST, PAIR = Candidate("single", 1, 1, (30,)), Candidate("sma", 2, 1, (20, 30))
THREE, FOUR = Candidate("wma", 3, 1, (10, 20, 30)), Candidate("sma", 4, 1, (0, 10, 20, 30))


def result(scored: dict[Candidate, Scored]) -> Result:
    return Result(None, scored, {}, 0, ["sma"])


@pytest.mark.parametrize(
    "cosine,words", [(0.1, "lie like a cloud"), (0.4, "between a cloud"), (0.9, "along a path, and old checkpoints")]
)
def test_the_best_window_that_can_tell_speaks_for_the_run(cosine, words):
    best = result({THREE: Scored([], cosine), PAIR: Scored([]), LAST: Scored([])})
    assert reason(best).startswith(f"successive updates of the best window have a mean cosine of {cosine:.2f}")
    assert words in reason(best)
    pair = result({PAIR: Scored([]), LAST: Scored([]), THREE: Scored([], cosine), FOUR: Scored([], 0.99)})
    assert f"of the best window of three checkpoints or more have a mean cosine of {cosine:.2f}" in reason(pair)
    assert reason(result({PAIR: Scored([]), LAST: Scored([])})).startswith("two checkpoints say nothing")
