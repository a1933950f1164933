"""Section 4.3: the gain of merging against the interval V between snapshots, by size of the model.

python analysis/draw.py --scale cpu interval_by_size
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import style
from matplotlib.figure import Figure


def draw(source: style.Source) -> Figure:
    """A column for MoE, one for dense; the average of the axes, and held-out text."""
    table = style.scores(source, "interval_by_size")
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True)
    rows = (("average", style.measure(source), "four axes"), ("heldout", "bits_per_byte", "held-out text"))
    for column, kind in zip(axes.T, ("moe", "dense"), strict=True):
        sizes = source.sizes(run for run in table["run"].unique() if source.config(run)["model"]["kind"] == kind)
        for ax, (task, metric, name) in zip(column, rows, strict=True):
            for (run, size), color in zip(sizes.items(), style.COLORS[1:], strict=False):
                merged = style.pick(table, run=run, task=task, metric=metric, method="sma").sort_values("interval")
                style.errorbars(ax, merged, "interval", "gain", color=color, label=size.replace("\n", " "))
                best = merged.loc[merged["gain"].idxmax()]
                ax.plot(best["interval"], best["gain"], "*", color=color, ms=13, mec="black", mew=0.6)
            ax.set_xscale("log", base=2)
            ax.axhline(0, color="black", lw=0.8)
            ax.set_ylabel(f"{name}\n{style.METRICS[metric].gain}")
        column[0].set_title({"moe": "MoE", "dense": "dense"}[kind])
        column[0].legend(fontsize=7.5)
        column[1].set_xticks(merged["interval"], map(style.quantity, merged["interval"]))
        column[1].minorticks_off()
        column[1].set_xlabel("interval V (tokens)")
    style.title(figure, "Section 4.3: the gain over the last snapshot against the interval V, by size")
    paper = pd.read_csv(style.HERE / "paper" / "interval_by_size.csv")
    best = ", ".join(f"{row.interval_billions:g}B ({row.stands_for})" for row in paper.itertuples())
    style.caption(
        figure, f"SMA over N = {merged['n'].iloc[0]} snapshots; sizes: total parameters (the paper's size they stand "
        "for); stars: the best V.", style.scores_text(source, table), style.measure_text(source),
        f"The paper's best V, in tokens: about {best}.",
    )  # fmt: skip
    return figure
