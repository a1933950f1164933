"""Figure 4: merging methods against the last snapshot at four points of training.

python analysis/draw.py --scale cpu figure_4
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import style
from matplotlib.figure import Figure

from pma.records import SIGNAL_TO_NOISE_MINIMUM

SETTINGS = {"last": style.GREY, "SMA": style.BLUE, "WMA": style.ORANGE, "EMA(0.1)": style.GREEN, "EMA(0.2)": style.PINK}


def columns(source: style.Source) -> list[tuple[str, str, str]]:
    """(task, metric, title) of what is drawn: bits per byte always, average accuracy where it moves."""
    ratios = style.signal_to_noise(source)
    names = {
        ("average", "acc"): "accuracy on the four axes",
        ("average", "bits_per_byte"): "right answers of the four axes",
        ("heldout", "bits_per_byte"): "held-out text of all domains",
    }
    moves = ratios.get(("average", "acc"), 0) >= SIGNAL_TO_NOISE_MINIMUM
    return [
        (*key, f"{name}\n(signal to noise {ratios[key]:.0f})")
        for key, name in names.items()
        if key[1] != "acc" or moves
    ]


def bar_rows(axes: np.ndarray, source: style.Source, table: pd.DataFrame, settings: dict[str, str]) -> None:
    """Two rows of panels of scores with a column `setting`, a column a metric: the values, under them the gains."""
    groups = {tokens: style.quantity(tokens) for tokens in sorted(table.dropna(subset="setting")["tokens"].unique())}
    for column, (task, metric, title) in zip(axes.T, columns(source), strict=True):
        drawn = style.METRICS[metric]
        for ax, what, label in zip(column, ("value", "gain"), (drawn.label, drawn.gain), strict=True):
            style.bars(ax, style.pick(table, task=task, metric=metric), "tokens", groups, settings, drawn, what)
            ax.set_ylabel(label.replace(", ", "\n"))
        column[0].set_title(title)
        column[1].set_xlabel("training tokens")


def draw(source: style.Source) -> Figure:
    """Values and gains by method, and the paper's numbers."""
    names = dict(zip(("last", "sma", "wma", "ema_0.1", "ema_0.2"), SETTINGS, strict=True))
    table = style.scores(source, "figure_4")
    merged = style.pick(table, method="sma")
    # Single snapshots elsewhere only serve the signal-to-noise ratio.
    table = table[table["tokens"].isin(merged["tokens"])].assign(setting=lambda t: t["method"].map(names))
    heights = {"height_ratios": [3, 2.4, 1.3]}
    figure, axes = plt.subplots(3, len(columns(source)), figsize=(9, 6.6), squeeze=False, gridspec_kw=heights)
    bar_rows(axes[:2], source, table, SETTINGS)
    style.legend_above(figure, axes[0, 0])
    for ax in axes[2, 1:]:
        ax.remove()
    style.paper_table(figure.add_subplot(axes[2, 0].get_gridspec()[2, :]), "figure_4", SETTINGS)
    axes[2, 0].remove()
    style.title(figure, "Figure 4: merging methods along one run at constant learning rate")
    n, interval = merged["n"].iloc[0], merged["interval"].iloc[0]
    style.caption(
        figure, f"N = {n} snapshots, V = {style.quantity(interval)} tokens apart.", style.scores_text(source, table),
        style.measure_text(source, ["average"]), "Axes of values do not start at 0.",
    )  # fmt: skip
    return figure
