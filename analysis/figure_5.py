"""Figure 5: the interval V (N = 10) and the number N (V of the scale) of the merged checkpoints.

python analysis/figure_5.py --scale cpu
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from style import bar_rows, caption, moving, new_figure, paper_table, run_figure, table_axes, tokens_label

INTERVALS = {0.5: "V / 2", 1.0: "V", 2.0: "2 V", 4.0: "4 V"}
NUMBERS = {n: f"N = {n}" for n in (3, 6, 10, 15)}


def draw(table: pd.DataFrame) -> Figure:
    """A row of panels for V, one for N, and the paper's numbers."""
    merged = table["method"] == "sma"
    interval = table.loc[merged & (table["n"] == 15), "interval"].iloc[0]
    multiple = table["interval"] / interval
    last = table["tokens"].isin(table.loc[merged, "tokens"]) & (table["method"] == "last")
    # N = 10 except at the first point, where 4 V leaves room for 6 (as in the paper).
    over_v = merged & ((table["n"] == 10) | (multiple == 4))
    over_n = merged & (multiple == 1)
    figure, axes = new_figure([3, 2, 3, 2, 1.3], len(moving(table)), 14)
    tables = table_axes(figure, axes, 2)
    for row, chosen, labels, title, name in (
        (0, over_v, multiple.map(INTERVALS), "interval V, N = 10", "figure_5_top"),
        (1, over_n, table["n"].map(NUMBERS), "number N, interval V", "figure_5_bottom"),
    ):
        setting = labels.where(chosen).mask(last, "last")
        settings = ["last", *(INTERVALS if row == 0 else NUMBERS).values()]
        bar_rows(axes[2 * row : 2 * row + 2], table.assign(setting=setting), settings, title)
        paper_table(tables[row], name, settings)
    figure.suptitle("Figure 5: interval and number of the merged checkpoints (SMA)", fontsize=11)
    caption(figure, table, f"V = {tokens_label(interval)} tokens; N = 6 for 4 V at the first point.")
    return figure


if __name__ == "__main__":
    run_figure("figure_5", draw)
