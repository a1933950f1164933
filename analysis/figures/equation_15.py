"""Eq. 15, measured: both sides of the inequality, and the gain that the second-order expansion predicts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import style
from drawing.captions import model_text, runs_text
from drawing.description import INK, Cells, Figure, Line, Panel, figure
from drawing.numbers import mean_points
from drawing.parts import ZERO, dots_of
from drawing.scores import counted_seeds, mean_and_half, pick
from formats import quantity
from records import Study
from verdicts.evidence.weight_space import inequalities

from pma.weightspace.inequality import hessian_terms, windows

_RUN = "moe_main"


def _matrix(study: Study, seed: int) -> Panel:
    """d_i' H d_j of the first window."""
    tables = (study.measurement("equation_15", f"curvature_{name}") for name in ("terms", "losses"))
    terms, losses = (pick(table, run=_RUN, seed=seed) for table in tables)
    window = windows(losses)[0]
    heading = f"d_i' H d_j, N = {len(window)}, V = {quantity(window[0] - window[1])}, seed {seed}"
    return Panel(heading, "snapshot j (1 = oldest)", "snapshot i", (Cells(hessian_terms(terms, window[::-1])),))


def _sides(numbers: dict[str, pd.DataFrame], names: Sequence[str]) -> Panel:
    """What is left between both sides, as a share of the right one."""
    room = (numbers["bound"] - numbers["cross"]) / numbers["bound"].abs()
    points = mean_points(room, range(len(names)), "", style.BLUE, 0.5, dash="", marker="s")
    ylabel = "(right - left side) / |right side|"
    return Panel("room in the inequality", "N and V", ylabel, (points,), (ZERO,), dict(enumerate(names)))


def _gains(numbers: dict[str, pd.DataFrame]) -> Panel:
    """Measured against predicted gain, a point a window."""
    counted = counted_seeds(numbers["cross"].index)
    predicted = mean_and_half(numbers["predicted_gain"].loc[counted])
    measured = mean_and_half(numbers["measured_gain"].loc[counted])
    x, y = predicted["mean"].to_numpy(), measured["mean"].to_numpy()
    half = measured["half"].to_numpy() if measured["half"].notna().any() else None
    dots = dots_of(numbers["measured_gain"].to_dict().values(), x, 0.0)
    places = [at for of in numbers["predicted_gain"].to_dict().values() for _, at in sorted(of.items())]
    dots = None if dots is None else type(dots)(np.array(places), dots.y, dots.hollow)
    ends = np.array([0.0, max(x.max(), y.max())])
    lines = (
        Line("measured = predicted", INK, ends, ends, dash="--", width=0.8),
        Line("a merge", style.BLUE, x, y, half, dash="", marker="s", dots=dots),
    )
    title, xlabel = "gain of the mean over the mean loss", "predicted gain (nats a token)"
    return Panel(title, xlabel, "measured gain (nats a token)", lines, legend="best")


def describe(study: Study) -> Figure:
    """The gain, predicted and measured, the room in the inequality, and the matrix of one merge."""
    losses = pick(study.measurement("equation_15", "curvature_losses"), run=_RUN)
    seeds = sorted(losses["seed"].unique())
    by_seed = {seed: inequalities(study, seed) for seed in seeds}
    numbers = {
        name: pd.DataFrame({seed: [window[name] for window in of_seed] for seed, of_seed in by_seed.items()}).T
        for name in ("cross", "bound", "predicted_gain", "measured_gain")
    }
    unit = study.config(_RUN)["scale"]["merge_interval"]
    of_first = windows(pick(losses, seed=seeds[0]))
    names = [f"{len(window)}\n{(window[0] - window[1]) / unit:g} V" for window in of_first]
    gains, room = _gains(numbers), _sides(numbers, names)
    return figure(
        "Eq. 15, measured: merging helps where cross terms < (k-1) × diagonal terms",
        [[gains, _matrix(study, counted_seeds(seeds)[0])], [room]],
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
