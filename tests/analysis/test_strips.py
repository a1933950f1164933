"""The picture of a claim: a row a part and column, a dot a seed, and what the mean has to pass."""

from __future__ import annotations

import pytest
from drawing import chart
from drawing.strips import describe_claim
from formats import column_words
from synthetic_world import World, write_world
from verdicts.decide import Decision, Decisions, decide
from verdicts.rules import load_rules


@pytest.fixture(scope="module")
def decisions(world) -> Decisions:
    return decide(world, load_rules())


def rows_of(decision: Decision):
    """The rows of a claim's strips, in order, and the panels."""
    panels = describe_claim(decision).panels
    return [line for panel in panels for line in panel.series if line.across], panels


def test_every_claim_with_parts_has_a_row_for_each_column_and_a_dot_for_each_seed(decisions):
    for decision in filter(lambda decision: decision.parts, decisions):
        rows, panels = rows_of(decision)
        columns = [column for judged in decision.parts for column in judged.evidence.numbers.values]
        assert len(rows) == len(columns) == sum(len(panel.yticks) for panel in panels)
        for row in rows:
            assert len(row.dots.x) in (3, 4)  # C18's coverage has no number of an exploratory seed of its own
            assert row.dots.hollow.sum() == len(row.dots.x) - 3
        assert all(chart.chart(panel)["doc"] for panel in panels)


def test_a_row_shows_the_mean_and_the_interval_that_decide(decisions):
    judged, (row, *_) = decisions["C5"].parts[0], rows_of(decisions["C5"])[0]
    low, high = judged.headline.interval()
    assert row.x[0] == judged.headline.mean and row.error[0] == pytest.approx((high - low) / 2)
    numbers = judged.evidence.numbers.values.iloc[:, 0]
    assert sorted(row.dots.x[~row.dots.hollow]) == sorted(numbers)


def test_what_the_mean_must_pass_is_marked(decisions):
    panel, share = describe_claim(decisions["C5"]).panels  # d has a unit, and so an axis, of its own
    marks = [float(line.x[0]) for line in (*panel.series, *share.series) if not line.across]
    a, b, c, _ = decisions["C5"].parts
    assert marks == [a.part.smallest, b.part.smallest, -c.margin, c.margin]
    assert panel.levels[0].at == 0 and panel.levels[0].upright


def test_a_newcomers_number_is_hollow_and_has_no_mean(tmp_path):
    alone = decide(write_world(tmp_path / "cpu", World(), seeds=(0,)), load_rules())
    rows, _ = rows_of(alone["C1"])
    assert all(row.dots.hollow.tolist() == [True] for row in rows)
    assert all(row.x[0] != row.x[0] for row in rows)  # NaN: nothing counts


def test_a_claim_without_numbers_has_no_picture(decisions):
    nothing = Decision(decisions["C1"].claim, "condition not reached", "what was tried")
    assert describe_claim(nothing) is None


def test_columns_are_named_in_words():
    assert column_words("moe_main") == "1.3B/13B" and column_words("moe_10b_100b") == "10B/100B"
    assert column_words("dense_411m") == "411M" and column_words("sft_pma_double") == "twice the rate"
    assert column_words("ema_0.2 over ema_0.1") == "EMA(0.2) over EMA(0.1)"
