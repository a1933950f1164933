"""Figure 3: after a fork of the main run, constant learning rate, annealing, and PMA over the constant branch.

python analysis/draw.py --scale cpu figure_3
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import style
from matplotlib.figure import Figure


def draw(source: style.Source) -> Figure:
    """Four axes, their average and held-out text over tokens."""
    table = style.scores(source, "figure_3")
    acc = style.measure(source)
    panels = [(task, acc, f"{task} (for {paper})") for task, paper in style.AXES.items()]
    panels += [("average", acc, "average of the four axes"), ("heldout", "bits_per_byte", "held-out text")]
    figure, axes = plt.subplots(2, 3, figsize=(9, 5.4))
    for ax, (task, metric, title) in zip(axes.flat, panels, strict=True):
        here = {"task": task, "metric": metric}
        constant, merged = (style.pick(table, run="moe_main", method=method, **here) for method in ("last", "sma"))
        annealed = style.pick(table, run="annealed_moe_main", method="last", **here)
        annealed = pd.concat([constant.iloc[:1], annealed])  # it starts at the fork
        ax.plot(constant["tokens"], constant["value"], "o-", color=style.GREY, label="constant learning rate")
        ax.plot(annealed["tokens"], annealed["value"], "^-", color=style.ORANGE, label="annealing")
        paired = merged.assign(error=merged["gain_error"])
        style.errorbars(ax, paired, "tokens", "value", color=style.BLUE, marker="s", label="PMA over constant")
        ax.set_title(title)
        ax.set_ylabel(style.METRICS[metric].label)
        style.token_axis(ax)
    style.legend_above(figure, axes[0, 0])
    style.title(figure, "Figure 3: constant learning rate, annealing, and PMA after a fork")
    style.caption(
        figure, f"Fork of the main run at {style.quantity(table['tokens'].min())} tokens; cosine annealing to 0.",
        style.window_text(table), style.scores_text(source, table),
        "Those at PMA are of its difference to the constant branch.", style.measure_text(source),
        "Axes do not start at 0. The paper (1.3B/13B, fork at 1.4T, 250B tokens more): PMA is first above both, at the "
        "end on a par with annealing.",
    )  # fmt: skip
    return figure
