"""Figure 8: contours in a plane of weight space, snapshots as dots, the merge as a star; distances to the optimum."""

from __future__ import annotations

import numpy as np
import pandas as pd
import style
from drawing.captions import BITS, model_text, pma_text
from drawing.description import INK, Contour, Figure, Line, Panel, figure
from drawing.parts import ZERO
from drawing.scores import counted_seeds, pick
from formats import seeds_words
from matplotlib.ticker import MaxNLocator
from records import Study
from verdicts.evidence.weight_space import distances

LEVELS = 14
# Metric of the plane: its title, and the label of its colours.
METRICS = {
    "loss": ("held-out text", "cross-entropy, nats a token"),
    "bits_per_byte": ("knowledge (for MMLU)", style.METRICS["bits_per_byte"].label),
}


def _levels(values: np.ndarray) -> np.ndarray:
    """About LEVELS round values that enclose `values`."""
    levels = MaxNLocator(LEVELS + 1, min_n_ticks=1).tick_values(values.min(), values.max())
    below, above = levels[levels < values.min()], levels[levels > values.max()]
    low, high = below[-1] if len(below) else levels[0], above[0] if len(above) else levels[-1]
    return levels[(levels >= low) & (levels <= high)]


def _plane(plane: pd.DataFrame, metric: str) -> Panel:
    """The contours of one metric in one seed's plane, and what lies in it."""
    title, label = METRICS[metric]
    values = pick(plane, metric=metric)
    surface = pick(values, role="grid").pivot(index="y", columns="x", values="value")
    x, y = surface.columns.to_numpy(dtype=float), surface.index.to_numpy(dtype=float)

    def marks(rows: pd.DataFrame, label: str, color: str, marker: str, size: float) -> Line:
        places = rows["x"].to_numpy(), rows["y"].to_numpy()
        return Line(label, color, *places, dash="", marker=marker, size=size, edge=INK)

    snapshots = pick(values, role="snapshot")
    series = (
        Contour(label, x, y, surface.to_numpy(), _levels(surface.to_numpy())),
        Line("", INK, snapshots["x"].to_numpy(), snapshots["y"].to_numpy(), width=0.6, alpha=0.6),
        marks(pick(plane, role="outside"), "earlier snapshots, which span the plane", style.GREY, "o", 4),
        marks(snapshots, "merged snapshots, in order", "white", "o", 5.5),
        marks(pick(values, role="merged"), "their mean (PMA)", style.RED, "*", 13.8),
        marks(pick(values, role="annealed"), "annealed end", style.SKY, "D", 6),
        marks(pick(values, role="optimum"), "best of the grid by held-out loss", style.ORANGE, "X", 7.1),
    )
    names = "towards the annealed end", "earlier snapshots' main\ndirection across it"
    return Panel(title, *names, series)


def _distances(study: Study, seeds: list[int]) -> Panel:
    """How far each snapshot and the merge lie from the optimum, a column a seed."""
    counted = counted_seeds(seeds)
    of_seed = {at: distances(study, seed) for at, seed in enumerate(seeds)}
    singles = [(at, distance) for at, of in of_seed.items() for distance in of.drop(0)]
    look = {"dash": "", "edge": INK}
    places = np.array(singles).T
    merges = np.array(list(of_seed)), np.array([of[0] for of in of_seed.values()])
    lines = (
        Line("snapshot", "white", places[0], places[1], marker="o", size=4, **look),
        Line("their mean (PMA)", style.RED, *merges, marker="*", size=11, **look),
    )
    names = {at: f"seed {seed}" + ("" if seed in counted else "\n(exploratory)") for at, seed in enumerate(seeds)}
    ylabel = "excess loss along the line\nto the optimum (nats a token)"
    return Panel("distance to the optimum of the plane", "", ylabel, lines, (ZERO,), names, legend="best")


def describe(study: Study) -> Figure:
    """Two contours of one seed's plane, and the distances of every seed."""
    table = study.measurement("figure_8", "landscape")
    run, seeds = table["run"].iloc[0], sorted(table["seed"].unique())
    counted = counted_seeds(seeds)
    plane = pick(table, seed=counted[0])
    snapshots = pick(plane, role="snapshot", metric="loss")
    interval = study.config(run)["scale"]["merge_interval"]
    points, share = len(pick(plane, role="grid", metric="loss")), plane["share"].iloc[0]
    return figure(
        "Figure 8: score contours in a plane of weight space",
        [[_plane(plane, metric) for metric in METRICS], [_distances(study, seeds)]],
        (9, 7.2),
        model_text(study, run),
        pma_text([(len(snapshots), interval)]),
        f"Contours: seed {counted[0]}; the plane runs through snapshots before the merged window and the end of "
        f"annealing, so that the window did not choose it, and holds {100 * share:.2g} % of the window's variance. "
        f"{points} points of it were scored: on held-out text, and on the knowledge axis, {BITS}. Snapshots and their "
        "mean stand at their projections. Distance: mean excess loss over the optimum's along the straight line to "
        f"it, off the plane. Scale {study.scale}: {seeds_words(seeds)}. The paper's plane, two weights of one "
        "layer, holds millionths of the variance.",
        see="The star is the merge, the white circles the snapshots it is made of, the cross the best point found: see "
        "which lies nearer to the cross, in every training run.",
    )
