"""Eq. 15, measured: cross terms and diagonal terms of the Hessian between snapshots, predicted and measured gain.

python analysis/draw.py --scale cpu equation_15
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import style
from matplotlib.figure import Figure


def draw(source: style.Source) -> Figure:
    """A column a measurement: the matrix, both sides of the inequality, the gain."""
    terms, losses = (pd.read_csv(source.file("equation_15", f"curvature_{name}.csv")) for name in ("terms", "losses"))
    terms = style.pick(terms.assign(tokens=0), term="hessian")
    cases = list(terms.groupby(["run", "reference"], sort=False))
    figure, axes = plt.subplots(3, len(cases), figsize=(9, 7), squeeze=False, height_ratios=[2.4, 1, 1])
    for (heat, sides, gains), ((run, reference), rows) in zip(axes.T, cases, strict=True):
        matrix = rows.pivot(index="i", columns="j", values="value").to_numpy()
        k, limit = len(matrix), np.abs(matrix).max()
        diagonal = matrix.trace()
        cross = matrix.sum() - diagonal
        image = heat.imshow(
            matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(0.5, k + 0.5, k + 0.5, 0.5), aspect="auto"
        )
        figure.colorbar(image, ax=heat, orientation="horizontal", aspect=30)
        heat.set_title(f"snapshots of {run}\nreference: {reference}")
        heat.set(xlabel="snapshot j (1 = oldest)", ylabel="snapshot i")
        loss = losses[(losses["run"] == run) & (losses["reference"] == reference)].set_index("name")["value"]
        measured = loss[loss.index.str.startswith("snapshot_")].mean() - loss["merged"]
        predicted = ((k - 1) * diagonal - cross) / (2 * k**2)
        for ax, names, values, colors in (
            (sides, ["cross", "(k-1) × diagonal"], [cross, (k - 1) * diagonal], [style.ORANGE, style.BLUE]),
            (gains, ["predicted gain", "measured gain"], [predicted, measured], [style.GREY, style.BLUE]),
        ):
            ax.bar_label(ax.bar(names, values, color=colors, width=0.55), fmt="%.3g", padding=2, fontsize=8)
            ax.axhline(0, color="black", lw=0.8)
            ax.margins(y=0.25)
    axes[1, 0].set_ylabel("nats a token")
    axes[2, 0].set_ylabel("nats a token")
    style.title(figure, "Eq. 15, measured: merging helps where cross terms < (k-1) × diagonal terms")
    interval = style.quantity(source.config(cases[0][0][0])["scale"]["merge_interval"])
    style.caption(
        figure,
        f"Scale {source.scale}, one seed; the last k = {k} snapshots of each run, V = {interval} tokens apart. Top: "
        "d_i' H d_j with d_i = snapshot i - reference, H the Hessian of the held-out cross-entropy at the reference. "
        "Cross: sum over i ≠ j; diagonal: sum over i = j. Gain: mean loss of the snapshots minus the loss of their "
        "mean; predicted by the second-order expansion, ((k-1) diagonal - cross) / 2k²; measured on the same text. "
        "The two sides differ by k times the curvature of the snapshots' scatter about their mean, whatever the "
        "reference: no positive semi-definite H breaks the inequality. The paper derives it and measures none of it.",
    )
    return figure
