"""Figure 8: score contours in two planes of weight space, snapshots as dots, the merged model as a star.

python analysis/draw.py --scale cpu figure_8
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

METRIC = "bits_per_byte"  # finer than accuracy, whose steps are whole items
AXES = {
    "weights": ("mean gain before attention", "mean gain before the experts", "means of two norm gains of one layer"),
    "principal": ("first principal direction", "second principal direction", "first two principal directions"),
}


def contour(ax: Axes, plane: pd.DataFrame, names: tuple[str, str, str]) -> None:
    """One plane."""
    grid = style.pick(plane.assign(tokens=0), role="grid")
    filled = grid.pivot(index="y", columns="x", values="value")
    shown = ax.contourf(filled.columns, filled.index, filled, levels=14, cmap="viridis_r")
    ax.contour(filled.columns, filled.index, filled, levels=14, colors="white", linewidths=0.3)
    ax.figure.colorbar(shown, ax=ax, label=style.METRICS[METRIC].label, format=ScalarFormatter(useOffset=False))
    snapshots = plane[plane["role"] == "snapshot"]
    ax.plot(snapshots["x"], snapshots["y"], "-", color="black", lw=0.6, alpha=0.6)
    ax.scatter(snapshots["x"], snapshots["y"], c="white", ec="black", s=30, zorder=3, label="snapshots, in order")
    merged, best = plane[plane["role"] == "merged"], grid.loc[[grid["value"].idxmin()]]
    mark = {"ec": "black", "zorder": 4, "clip_on": False}
    ax.scatter(merged["x"], merged["y"], marker="*", s=190, color=style.RED, label="their mean (PMA)", **mark)
    ax.scatter(best["x"], best["y"], marker="X", s=50, color="white", label="best of the grid", **mark)
    for set_label, name, part in ((ax.set_xlabel, names[0], "explained_x"), (ax.set_ylabel, names[1], "explained_y")):
        set_label(f"{name} ({100 * plane[part].iloc[0]:.2g}% of the variance)")
    ax.set_title(names[2])


def draw(source: style.Source) -> Figure:
    """Both planes."""
    table = pd.read_csv(source.file("figure_8", "landscape.csv"))
    table = style.pick(table.assign(tokens=0), metric=METRIC)
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2))
    for ax, (plane, names) in zip(axes, AXES.items(), strict=True):
        contour(ax, style.pick(table, plane=plane), names)
    style.legend_above(figure, axes[0])
    run = table["run"].iloc[0]
    style.title(figure, "Figure 8: score contours in planes of weight space")
    n, points = table["snapshot"].max(), (table["role"] == "grid").sum() // 2
    interval = style.quantity(source.config(run)["scale"]["merge_interval"])
    style.caption(
        figure,
        f"Scale {source.scale}, run {run}, one seed; the last {n} snapshots, V = {interval} tokens apart; {points} "
        "grid points a plane; bits per byte of the knowledge axis (for MMLU, which the paper shows). Each grid point "
        "is the merged model, moved in the plane alone; snapshots stand at their projections. Left: our reading of the "
        "paper's 'mean of two chosen parameters of one layer', all entries of a gain shifted by a constant. Axes do "
        "not start at 0.",
    )
    return figure
