"""Evidence from measurements in weight space: planes of scores (C15), cross terms of the Hessian (C16).

claims.yaml names each function and its settings. A test's statistic is positive where it favours the claim.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from records import Missing
from scipy.stats import binomtest

from pma.weightspace.inequality import hessian_terms, measured_gain, predicted_gain, sides
from verdicts.rules import Test
from verdicts.sample import BITS, Sample


def planes(sample: Sample, experiment: str, run: str) -> list[Test]:
    """C15: share of the snapshots farther from the grid's optimum than the merged model, plane by plane."""
    table = sample.study.measurement(experiment, "landscape")
    table = table[(table["run"] == run) & (table["metric"] == BITS)]
    tests = []
    for plane, points in table.groupby("plane", sort=True):
        grid = points[points["role"] == "grid"]
        dots = points[points["role"] == "snapshot"]
        best = grid.loc[grid["value"].idxmin()]
        # Two weights differ in scale; principal directions are lengths in one space.
        scale = dots[["x", "y"]].std().to_numpy() if plane == "weights" else 1.0

        def distance(places: pd.DataFrame, best: pd.Series = best, scale: Any = scale) -> np.ndarray:
            offsets = (places[["x", "y"]].to_numpy() - best[["x", "y"]].to_numpy(dtype=float)) / scale
            return np.linalg.norm(offsets, axis=1)

        merged = points[points["role"] == "merged"]
        farther = int((distance(dots) > distance(merged)[0]).sum())
        worse = int((dots["value"] > merged["value"].iloc[0]).sum())
        low, high = binomtest(farther, len(dots)).proportion_ci(method="wilson")
        border = any(best[axis] in (grid[axis].min(), grid[axis].max()) for axis in ("x", "y"))
        note = f"{worse} of {len(dots)} snapshots score worse than the merged model" if plane == "principal" else ""
        tests.append(
            Test(
                f"share of snapshots farther from the optimum, plane of {plane}",
                "most",
                np.array([farther / len(dots)]),
                "share",
                interval=(float(low), float(high)),
                snapshots=len(dots),
                seeds=1,
                note=note,
                undecidable="the optimum lies on the grid's border" if border else "",
            )
        )
    if not tests:
        raise Missing(f"{experiment}: no landscape of {run}")
    return tests


def _ratio(matrix: np.ndarray) -> float:
    # Cross terms over the bound; written so that it stays below 1 just where the inequality holds, whatever the sign of
    # the bound (dividing by a negative one would turn the inequality round).
    cross, bound = sides(matrix)
    return 1 - (bound - cross) / abs(bound)


def cross_terms(sample: Sample, experiment: str, run: str, reference: str) -> list[Test]:
    """C16: cross terms over (k - 1) times diagonal terms, for each window and reference measured."""
    table = sample.study.measurement(experiment, "curvature_terms")
    losses = sample.study.measurement(experiment, "curvature_losses")
    tests = []
    for (name, at), terms in table.groupby(["run", "reference"], sort=True):
        matrix = hessian_terms(terms)
        k = len(matrix)
        ratio = _ratio(matrix)
        left_out = [_ratio(np.delete(np.delete(matrix, i, 0), i, 1)) for i in range(k)]
        error = float(np.sqrt((k - 1) * np.var(left_out)))  # jackknife, Efron and Tibshirani 1993, 11.5
        loss = losses[(losses["run"] == name) & (losses["reference"] == at)].set_index("name")["value"].to_dict()
        predicted, measured = predicted_gain(matrix), measured_gain(loss)
        tests.append(
            Test(
                f"cross over diagonal terms, {name}, Hessian at {at}",
                "bound",
                np.array([ratio]),
                "ratio",
                margin=1.0,
                interval=(ratio - 1.96 * error, ratio + 1.96 * error),
                snapshots=k,
                seeds=1,
                control=(name, at) != (run, reference),
                note=f"Predicted gain {predicted:.4f}, measured {measured:.4f} nats per token",
            )
        )
    if all(test.control for test in tests):
        raise Missing(f"{experiment}: no terms of {run} at {reference}")
    return sorted(tests, key=lambda test: test.control)
