"""Figure 5: the interval V (N = 10) and the number N (V of the scale) of the merged snapshots.

python analysis/draw.py --scale cpu figure_5
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import style
from figure_4 import bar_rows, columns
from matplotlib.figure import Figure

INTERVALS = {0.5: "V / 2", 1.0: "V", 2.0: "2 V", 4.0: "4 V"}
NUMBERS = {n: f"N = {n}" for n in (3, 6, 10, 15)}


def draw(source: style.Source) -> Figure:
    """Two rows of panels for V, two for N, each with the paper's numbers."""
    table = style.scores(source, "figure_5")
    interval = style.pick(table, n=15)["interval"].iloc[0]
    multiple = table["interval"] / interval
    merged = table["method"] == "sma"
    last = ~merged & table["tokens"].isin(table.loc[merged, "tokens"])
    # N = 10 except at the first point, where 4 V leaves room for 6 (as in the paper).
    over_v = merged & ((table["n"] == 10) | (multiple == 4))
    over_n = merged & (multiple == 1)
    figure = plt.figure(figsize=(9, 12))
    halves = figure.subfigures(2, 1)
    for half, chosen, label, names, title, name in (
        (halves[0], over_v, multiple.map(INTERVALS), INTERVALS, "interval V, N = 10", "figure_5_top"),
        (halves[1], over_n, table["n"].map(NUMBERS), NUMBERS, "number N, interval V", "figure_5_bottom"),
    ):
        settings = dict(zip(["last", *names.values()], style.COLORS, strict=False))
        grid = half.add_gridspec(3, len(columns(source)), height_ratios=[3, 2.4, 1])
        axes = grid.subplots(squeeze=False)
        bar_rows(axes[:2], source, table.assign(setting=label.where(chosen).mask(last, "last")), settings)
        for ax in axes[2]:
            ax.remove()
        style.paper_table(half.add_subplot(grid[2, :]), name, settings)
        half.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=5)
        half.suptitle(title, fontsize=9.5, x=0.02, ha="left", fontweight="bold")
    style.title(figure, "Figure 5: interval and number of the merged snapshots (SMA)")
    style.caption(
        figure, f"V = {style.quantity(interval)} tokens; N = 6 for 4 V at the first point.",
        style.scores_text(source, table), style.measure_text(source, ["average"]), "Axes of values do not start at 0.",
    )  # fmt: skip
    return figure
