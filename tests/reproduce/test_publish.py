"""Records: signal to noise, from which readers tell whether a metric moves at all."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from pma.records import signal_to_noise, signal_to_noise_table


def test_signal_to_noise_is_rise_over_scatter():
    assert signal_to_noise([0.0, 9.0, 10.0, 11.0, 10.0, 10.0]) == pytest.approx(10 / 0.7071067811865476)
    assert math.isnan(signal_to_noise([1.0, 2.0]))  # too few to tell
    rows = [
        {"task": "t", "metric": "m", "run": "r", "seed": 0, "tokens": i, "method": method, "value": value}
        for i, value in enumerate([0.0, 9.0, 10.0, 11.0, 10.0, 10.0])
        for method, value in (("last", value), ("sma", 99.0))
    ]
    assert signal_to_noise_table(pd.DataFrame(rows))["signal_to_noise"].item() == pytest.approx(14.142, rel=1e-3)
