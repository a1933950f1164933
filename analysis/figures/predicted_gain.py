"""B10: the gain that curvature predicts, against the measured one, over all runs at constant rate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import style
from drawing.captions import runs_text
from drawing.description import INK, Figure, Line, Panel, figure
from drawing.numbers import mean_points
from drawing.scores import counted_seeds
from formats import quantity
from records import Study
from verdicts.evidence.beyond import CONSTANT_RUNS, gains_of_runs

_N = 10
_KINDS = {"moe": ("mixture of experts", style.BLUE), "dense": ("dense", style.ORANGE)}
_KINDS |= {"lr": ("smallest dense model, other rates", style.GREEN)}


def describe(study: Study) -> Figure:
    """A point a run."""
    seeds = sorted(study.measurement("predicted_gain", "curvature_losses")["seed"].unique())
    by_seed = {seed: gains_of_runs(study, seed, _N) for seed in seeds}
    predicted, measured = (
        pd.DataFrame({seed: gains[i] for seed, gains in by_seed.items()}, index=list(CONSTANT_RUNS)).T for i in (0, 1)
    )
    lines, farthest = [], 0.0
    for kind, (label, color) in _KINDS.items():
        runs = [run for run in CONSTANT_RUNS if run.partition("_")[0] == kind]
        x = predicted.loc[counted_seeds(seeds), runs].mean()
        points = mean_points(measured[runs], x, label, color, 0.0, dash="", marker="s")
        if points.dots:  # each seed stands at its own prediction
            points = replace(points, dots=replace(points.dots, x=predicted[runs].sort_index().to_numpy().T.ravel()))
        lines.append(points)
        farthest = max(farthest, x.max(), points.y.max())
    ends = np.array([0.0, farthest])
    lines.append(Line("measured = predicted", INK, ends, ends, dash="--", width=0.8))
    xlabel, ylabel = "predicted gain (nats a token)", "measured gain (nats a token)"
    panel = Panel("gain of the mean over the mean loss", xlabel, ylabel, tuple(lines), legend="best")
    unit = study.config("moe_main")["scale"]["merge_interval"]
    return figure(
        "Predicted against measured gain over all runs at constant rate",
        [[panel]],
        (6, 4.6),
        f"{len(CONSTANT_RUNS)} runs: four sizes of mixtures of experts, four of dense models, and the smallest dense "
        f"model at four more learning rates. Merged: the last {_N} snapshots, {quantity(unit)} tokens apart. Predicted "
        "by the second-order expansion (Eq. 15), with the Hessian of held-out cross-entropy at the window's mean.",
        f"Scale {study.scale}. {runs_text(seeds)}",
        legend=False,
        see="The nearer the points lie to the dashed line, the better curvature foretells what merging gains.",
    )
