"""Eq. 15, measured: both sides of the inequality, and the gain that the second-order expansion predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import style
from drawing.captions import model_text, runs_text
from drawing.description import INK, Cells, Figure, Line, Panel, figure
from drawing.numbers import mean_points
from drawing.parts import ZERO
from drawing.scores import counted_seeds
from formats import quantity
from records import Study
from verdicts.evidence.weight_space import inequalities

from pma.weightspace.inequality import hessian_terms, windows

_RUN = "moe_main"


def _of_seed(study: Study, name: str, seed: int) -> pd.DataFrame:
    table = study.measurement("equation_15", f"curvature_{name}")
    return table[(table["run"] == _RUN) & (table["seed"] == seed)]


def _matrix(study: Study, seed: int, window: Sequence[int]) -> Panel:
    """d_i' H d_j of a window."""
    matrix = hessian_terms(_of_seed(study, "terms", seed), window[::-1])
    heading = f"d_i' H d_j, N = {len(window)}, V = {quantity(window[0] - window[1])}, seed {seed}"
    return Panel(heading, "snapshot j (1 = oldest)", "snapshot i", (Cells(matrix),))


def _room(numbers: dict[str, pd.DataFrame], names: Sequence[str]) -> Panel:
    """What is left between both sides, as a share of the right one."""
    room = (numbers["bound"] - numbers["cross"]) / numbers["bound"].abs()
    points = mean_points(room, range(len(names)), "", style.BLUE, 0.5, dash="", marker="s")
    ylabel = "(right - left side) / |right side|"
    return Panel("room in the inequality", "N and V", ylabel, (points,), (ZERO,), dict(enumerate(names)))


def _gains(numbers: dict[str, pd.DataFrame], counts: Sequence[int]) -> Panel:
    """Measured against predicted gain, a point a merge, coloured by N."""
    lines, farthest = [], 0.0
    for i, n in enumerate(dict.fromkeys(counts)):
        of_n = [at for at, count in enumerate(counts) if count == n]
        predicted, measured = (numbers[name][of_n] for name in ("predicted_gain", "measured_gain"))
        x = predicted.loc[counted_seeds(predicted.index)].mean()
        points = mean_points(measured, x, f"N = {n}", style.color(i + 1), 0.0, dash="", marker="s")
        if points.dots:  # each seed stands at its own prediction
            points = replace(points, dots=replace(points.dots, x=predicted.sort_index().to_numpy().T.ravel()))
        lines.append(points)
        farthest = max(farthest, x.max(), points.y.max())
    ends = np.array([0.0, farthest])
    lines.append(Line("measured = predicted", INK, ends, ends, dash="--", width=0.8))
    title, xlabel = "gain of the mean over the mean loss", "predicted gain (nats a token)"
    return Panel(title, xlabel, "measured gain (nats a token)", tuple(lines), legend="best")


def describe(study: Study) -> Figure:
    """The gain, predicted and measured, the room in the inequality, and the matrix of one merge."""
    seeds = sorted(study.measurement("equation_15", "curvature_losses")["seed"].unique())
    first = counted_seeds(seeds)[0]
    merges = windows(_of_seed(study, "losses", first))  # alike for every seed, in the order of `inequalities`
    order = sorted(range(len(merges)), key=lambda i: (len(merges[i]), merges[i][0] - merges[i][1]))
    by_seed = {seed: inequalities(study, seed) for seed in seeds}
    numbers = {
        name: pd.DataFrame({seed: [of_seed[i][name] for i in order] for seed, of_seed in by_seed.items()}).T
        for name in ("cross", "bound", "predicted_gain", "measured_gain")
    }
    unit = study.config(_RUN)["scale"]["merge_interval"]
    names = [f"{len(merges[i])}\n{(merges[i][0] - merges[i][1]) / unit:g} V" for i in order]
    gains, room = _gains(numbers, [len(merges[i]) for i in order]), _room(numbers, names)
    return figure(
        "Eq. 15, measured: merging helps where cross terms < (k-1) × diagonal terms",
        [[gains, _matrix(study, first, merges[0])], [room]],
        (9, 7),
        model_text(study, _RUN),
        f"{len(names)} merges of the last k = N snapshots, V apart ({quantity(unit)} tokens or a multiple). d_i = "
        "snapshot i - the end of annealing, H the Hessian of the held-out cross-entropy there. Left side: sum of "
        "d_i' H d_j over i ≠ j; right: (k-1) times the sum over i = j. Gain: mean loss of the snapshots minus the "
        "loss of their mean; predicted by the second-order expansion, (right - left) / 2k²; measured on the same "
        "text. The two sides differ by k times the curvature of the snapshots' scatter about their mean: no positive "
        "semi-definite H breaks the inequality, and what can be wrong is the gain. The paper derives it and measures "
        "none of it.",
        f"Scale {study.scale}. {runs_text(seeds)}",
        legend=False,
        see="The nearer the points lie to the dashed line, the better the curvature predicts what merging gains.",
        lead=[gains, room],
    )
