"""Eq. 15, measured: cross terms and diagonal terms of the Hessian between snapshots, predicted and measured gain."""

from __future__ import annotations

import numpy as np
import style
from drawing.captions import model_text
from drawing.description import Bars, Cells, Figure, Panel, figure
from drawing.parts import ZERO
from formats import quantity
from records import Study

from pma.weightspace.inequality import hessian_terms, measured_gain, predicted_gain, sides

_NAMES = {"moe_main": "the main run", "annealed_moe_main": "the annealed fork", "mean": "their mean"}


def _two_bars(
    names: tuple[str, str], values: tuple[float, float], colors: tuple[str, str], ylabel: str, title: str
) -> Panel:
    bars = tuple(
        Bars("", color, np.array([i]), np.array([value]), width=0.55, upright=False)
        for i, (value, color) in enumerate(zip(values, colors, strict=True))
    )
    low, high = min(0.0, *values), max(0.0, *values)
    room = 0.25 * (high - low)
    limits = (low - room * (low < 0), high + room * (high > 0))
    return Panel(title, "", ylabel, bars, levels=(ZERO,), xticks=dict(enumerate(names)), ylim=limits)


def describe(study: Study) -> Figure:
    """A column a measurement: the matrix, both sides of the inequality, the gain."""
    terms, losses = (study.measurement("equation_15", f"curvature_{name}") for name in ("terms", "losses"))
    cases = list(terms.groupby(["run", "reference"], sort=False))
    heat: list[Panel] = []
    both_sides: list[Panel] = []
    gains: list[Panel] = []
    for (run, reference), rows in cases:
        matrix = hessian_terms(rows)
        loss = losses[(losses["run"] == run) & (losses["reference"] == reference)].set_index("name")["value"].to_dict()
        title, ylabel = (
            f"snapshots of {_NAMES.get(run, run)}\nreference: {_NAMES.get(reference, reference)}",
            "" if heat else "nats a token",
        )
        heat.append(Panel(title, "snapshot j (1 = oldest)", "snapshot i", (Cells(matrix),)))
        names = ("cross", "(k-1) × diagonal")
        both_sides.append(_two_bars(names, sides(matrix), (style.ORANGE, style.BLUE), ylabel, "both sides of Eq. 15"))
        gain = predicted_gain(matrix), measured_gain(loss)
        gains.append(
            _two_bars(("predicted gain", "measured gain"), gain, (style.GREY, style.BLUE), ylabel, "gain of their mean")
        )
    main = cases[0][0][0]
    interval = quantity(study.config(main)["scale"]["merge_interval"])
    return figure(
        "Eq. 15, measured: merging helps where cross terms < (k-1) × diagonal terms",
        [heat, both_sides, gains],
        (9, 7),
        model_text(study, main),
        f"The last k = {len(matrix)} snapshots of each run, {interval} training tokens apart; scale {study.scale}, one "
        "seed (training run). Top: d_i' H d_j with d_i = snapshot i - reference, H the Hessian of the held-out "
        "cross-entropy at the reference (the end of the named run, or the mean). "
        "Cross: sum over i ≠ j; diagonal: sum over i = j. Gain: mean loss of the snapshots minus the loss of their "
        "mean; predicted by the second-order expansion, ((k-1) diagonal - cross) / 2k²; measured on the same "
        "text. The two sides differ by k times the curvature of the snapshots' scatter about their mean, whatever the "
        "reference: no positive semi-definite H breaks the inequality. The paper derives it and measures none of it.",
        heights=(2.4, 1, 1),
        legend=False,
        see="Merging helps where the bar of the cross terms is lower than that of the diagonal ones; the gain that "
        "this predicts stands beside the measured one.",
        lead=(both_sides[0], gains[0]),
    )
