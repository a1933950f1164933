"""Student's t over seeds and Holm's correction, against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from claims_files import x
from verdicts.student import Student, holm


def test_mean_interval_and_p_are_those_of_the_t_test():
    values = x(0.012)
    ours, theirs = Student.of(values), scipy.stats.ttest_1samp(values, 0, alternative="greater")
    assert ours.p_above == pytest.approx(theirs.pvalue, rel=1e-6)
    assert ours.p_below == pytest.approx(1 - theirs.pvalue, rel=1e-6)
    assert ours.interval() == pytest.approx(tuple(scipy.stats.ttest_1samp(values, 0).confidence_interval()), rel=1e-6)


def test_a_new_seed_falls_into_the_prediction_interval_as_often_as_it_says():
    drawn = np.random.default_rng(0).normal(1.0, 2.0, size=(4000, 9))
    inside = 0
    for row in drawn:
        low, high = Student.of(row[:8]).prediction()
        inside += low <= row[8] <= high
    assert inside / len(drawn) == pytest.approx(0.95, abs=0.012)
    half = 2.364624 * 0.01 * math.sqrt(1 + 1 / 8)  # t(.975; 7) of a table
    assert Student.of(x(0.03)).prediction() == pytest.approx((0.03 - half, 0.03 + half), rel=1e-5)


@pytest.mark.parametrize("values", [[], [0.3]])
def test_below_two_seeds_nothing_is_known_of_the_scatter(values):
    student = Student.of(values)
    assert all(math.isnan(number) for number in (*student.interval(), *student.prediction(), student.p_above))


def test_numbers_without_scatter_are_sure_and_zeros_favour_nobody():
    assert (Student.of([0.1] * 3).p_above, Student.of([0.1] * 3).p_below) == (0, 1)
    # What differs by rounding alone is 0.
    rounding = Student.of([0.1 + 0.2 - 0.3] * 3)
    assert (rounding.p_above, rounding.p_below) == (1, 1)


def test_holm_as_by_hand():
    # sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, never falling: .04 .06 .06 .06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
