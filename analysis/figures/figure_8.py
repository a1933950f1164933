"""Figure 8: score contours in two planes of weight space, snapshots as dots, the merged model as a star."""

from __future__ import annotations

import numpy as np
import pandas as pd
import style
from drawing.captions import BITS, model_text, pma_text
from drawing.description import INK, Contour, Figure, Line, Panel, figure
from drawing.scores import pick
from matplotlib.ticker import MaxNLocator
from records import Study

METRIC = "bits_per_byte"  # finer than accuracy, whose steps are whole items
LEVELS = 14
# Plane: names of its axes, and its title.
PLANES = {
    "weights": ("mean gain before attention", "mean gain before the experts", "means of two norm gains of one layer"),
    "principal": ("first principal direction", "second principal direction", "first two principal directions"),
}


def _levels(values: np.ndarray) -> np.ndarray:
    """About LEVELS round values that enclose `values`."""
    levels = MaxNLocator(LEVELS + 1, min_n_ticks=1).tick_values(values.min(), values.max())
    below, above = levels[levels < values.min()], levels[levels > values.max()]
    low, high = below[-1] if len(below) else levels[0], above[0] if len(above) else levels[-1]
    return levels[(levels >= low) & (levels <= high)]


def _panel(plane: pd.DataFrame, names: tuple[str, str, str]) -> Panel:
    grid = pick(plane, role="grid")
    surface = grid.pivot(index="y", columns="x", values="value")
    values = surface.to_numpy()
    x, y = surface.columns.to_numpy(dtype=float), surface.index.to_numpy(dtype=float)
    snapshots, merged = pick(plane, role="snapshot"), pick(plane, role="merged")
    best = grid.loc[[grid["value"].idxmin()]]

    def marks(rows: pd.DataFrame, label: str, color: str, marker: str, size: float) -> Line:
        places = rows["x"].to_numpy(), rows["y"].to_numpy()
        return Line(label, color, *places, dash="", marker=marker, size=size, edge=INK)

    xlabel, ylabel = (
        f"{name} ({100 * plane[part].iloc[0]:.2g}% of the variance)"
        for name, part in zip(names, ("explained_x", "explained_y"), strict=False)
    )
    path = Line("", INK, snapshots["x"].to_numpy(), snapshots["y"].to_numpy(), width=0.6, alpha=0.6)
    series = (
        Contour(style.METRICS[METRIC].label, x, y, values, _levels(values)),
        path,
        marks(snapshots, "snapshots, in order", "white", "o", 5.5),
        marks(merged, "their mean (PMA)", style.RED, "*", 13.8),
        marks(best, "best of the grid", style.ORANGE, "X", 7.1),
    )
    return Panel(names[2], xlabel, ylabel, series)


def describe(study: Study) -> Figure:
    """Both planes."""
    table = pick(study.measurement("figure_8", "landscape"), metric=METRIC)
    panels = [_panel(pick(table, plane=plane), names) for plane, names in PLANES.items()]
    run = table["run"].iloc[0]
    n, points = table["snapshot"].max(), (table["role"] == "grid").sum() // 2
    interval = study.config(run)["scale"]["merge_interval"]
    return figure(
        "Figure 8: score contours in planes of weight space",
        [panels],
        (9, 4.2),
        model_text(study, run),
        pma_text([(n, interval)]),
        f"Each of the {points} points of a plane's grid is the merged model, moved in that plane alone, and scored on "
        f"the knowledge axis (for MMLU, which the paper shows): {BITS}. Snapshots stand at their projections. Left: "
        "our reading of the paper's 'mean of two chosen parameters of one layer', all entries of a gain shifted by a "
        f"constant. Axes do not start at 0. Scale {study.scale}: one seed (training run).",
        see="The star is the merge, the circles the snapshots it is made of, the cross the best point found: see which "
        "lies nearer to the cross.",
    )
