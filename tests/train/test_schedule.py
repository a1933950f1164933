"""The learning rate at its corners, its shape between them, and that it depends on tokens alone."""

from __future__ import annotations

import math

import pytest

from pma.config import InitConfig, ScheduleConfig
from pma.train.schedule import learning_rate

TOTAL = 1000


def rate(shape: str, tokens: int, decay_tokens: int = 400) -> float:
    schedule = ScheduleConfig(peak_lr=1.0, end_lr=0.1, warmup_tokens=100, decay_tokens=decay_tokens, decay_shape=shape)
    return learning_rate(schedule, TOTAL, tokens)


@pytest.mark.parametrize("shape", ["cosine", "linear", "1-sqrt"])
def test_corners(shape):
    assert rate(shape, 0) == 0.0
    assert rate(shape, 50) == 0.5
    assert rate(shape, 100) == rate(shape, 600) == 1.0
    assert rate(shape, TOTAL) == pytest.approx(0.1)
    assert rate(shape, TOTAL + 500) == pytest.approx(0.1)
    decay = [rate(shape, tokens) for tokens in range(600, 1001, 10)]
    assert decay == sorted(decay, reverse=True)


def test_shapes_at_a_quarter_of_the_decay():
    assert rate("linear", 700) == pytest.approx(0.1 + 0.9 * 0.75)
    assert rate("1-sqrt", 700) == pytest.approx(0.1 + 0.9 * 0.5)
    assert rate("cosine", 700) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)


def test_constant_stays_at_the_peak():
    assert {rate("none", tokens, 0) for tokens in range(100, 1001, 50)} == {1.0}


@pytest.mark.parametrize("shape", ["none", "linear"])
def test_a_rewarmed_run_rises_from_0_at_its_start_to_the_schedule(shape):
    schedule = ScheduleConfig(peak_lr=1.0, warmup_tokens=100, decay_tokens=200 * (shape != "none"), decay_shape=shape)
    init = InitConfig(tokens=500, rewarm_tokens=400)
    rates = [learning_rate(schedule, TOTAL, tokens, init) for tokens in (500, 600, 700, 900)]
    assert rates == [0.0, 0.25, 0.5, learning_rate(schedule, TOTAL, 900)]
