"""Figure 4: merging methods against the last checkpoint at four points of training.

python analysis/figure_4.py --scale cpu
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from style import bar_rows, caption, moving, new_figure, paper_table, run_figure, table_axes, tokens_label

SETTINGS = {"last": "last", "sma": "SMA", "wma": "WMA", "ema_0.1": "EMA(0.1)", "ema_0.2": "EMA(0.2)"}


def draw(table: pd.DataFrame) -> Figure:
    """Grouped bars, one panel a metric, and the paper's numbers."""
    merged = table[table["method"] != "last"]
    # Single snapshots elsewhere only serve the signal-to-noise ratio.
    table = table.assign(setting=table["method"].map(SETTINGS).where(table["tokens"].isin(merged["tokens"])))
    settings = list(SETTINGS.values())
    figure, axes = new_figure([3, 2, 1.2], len(moving(table)), 8)
    bar_rows(axes[:2], table, settings, "merging method")
    paper_table(*table_axes(figure, axes, 1), "figure_4", settings)
    n, interval = merged["n"].iloc[0], merged["interval"].iloc[0]
    figure.suptitle("Figure 4: merging methods along one run at constant learning rate", fontsize=11)
    caption(figure, table, f"N = {n} snapshots, V = {tokens_label(interval)} tokens apart.")
    return figure


if __name__ == "__main__":
    run_figure("figure_4", draw)
