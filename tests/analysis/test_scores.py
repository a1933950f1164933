"""Scores for figures: means and intervals over the seeds that count, on a small table whose numbers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawing.scores import counted_seeds, mean_and_half, pick, scores, seed_scores
from records import Study
from scipy import stats

from pma.records import COLUMNS

LAST = {2: 2.0, 3: 2.2, 4: 2.1, 0: 9.0, 1: 8.0}  # bits per byte by seed; the exploratory ones stand out
MERGED = {2: 1.9, 3: 2.15, 4: 2.0, 0: 5.0, 1: 5.0}
HERE = {"run": "mine", "task": "heldout", "metric": "bits_per_byte"}


def write(root: Path, seeds: list[int]) -> Study:
    """One run at one point: its last snapshot, and a merge."""
    folder = root / "cpu" / "my_study"
    folder.mkdir(parents=True)
    rows, items = [], []
    for seed in seeds:
        for method, value in (("last", LAST[seed]), ("sma", MERGED[seed])):
            key = {**HERE, "seed": seed, "tokens": 100, "method": method, "n": 1 if method == "last" else 10}
            key |= {"interval": 10, "suite": "proxy"}
            rows.append({**key, "scale": "cpu", "experiment": "my_study", "value": value, "stderr": 0.1})
            of_items = value + 0.1 * np.arange(4) * (1 if method == "last" else 2)
            items.append({**key, "task": "heldout_code", "values": of_items})
    pd.DataFrame(rows).assign(config_hash="0")[COLUMNS].to_csv(folder / "records.csv", index=False)
    pd.DataFrame(items).to_parquet(folder / "items.parquet")
    return Study(root / "cpu")


def interval_of(values: list[float]) -> float:
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return (high - low) / 2


def test_means_and_intervals_are_students_over_the_confirmatory_seeds(tmp_path):
    table = scores(write(tmp_path, [0, 1, 2, 3, 4]), "my_study")
    last, merged = (pick(table, method=method, **HERE).iloc[0] for method in ("last", "sma"))
    assert last["value"] == pytest.approx(2.1) and last["seeds"] == 3
    assert last["error"] == pytest.approx(interval_of([2.0, 2.2, 2.1]))
    assert merged["gain"] == pytest.approx(np.mean([0.1, 0.05, 0.1]))
    assert merged["gain_error"] == pytest.approx(interval_of([0.1, 0.05, 0.1]))
    values = pd.DataFrame({"a": [2.0, 2.2, 2.1]})
    assert mean_and_half(values).loc["a"].to_list() == pytest.approx([2.1, interval_of([2.0, 2.2, 2.1])])


def test_every_seed_stands_in_a_row_and_says_whether_it_counts(tmp_path):
    table = seed_scores(write(tmp_path, [0, 1, 2, 3, 4]), "my_study")
    merged = pick(table, method="sma", **HERE).set_index("seed")
    assert merged["counted"].to_dict() == {0: False, 1: False, 2: True, 3: True, 4: True}
    assert merged["gain"].to_dict() == pytest.approx({seed: LAST[seed] - MERGED[seed] for seed in LAST})


def test_without_a_confirmatory_seed_all_count_and_one_alone_has_its_items_error(tmp_path):
    assert counted_seeds([9, 0, 2]) == [2, 9] and counted_seeds([1, 0]) == [0, 1]
    alone = scores(write(tmp_path, [0]), "my_study")
    last, merged = (pick(alone, method=method, **HERE).iloc[0] for method in ("last", "sma"))
    assert last["seeds"] == 1 and last["value"] == 9.0 and last["error"] == pytest.approx(1.96 * 0.1)
    paired = stats.sem([0.0, 0.1, 0.2, 0.3])  # what the merge's items lie further apart
    assert merged["gain_error"] == pytest.approx(1.96 * paired)
