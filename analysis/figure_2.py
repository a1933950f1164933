"""Figure 2: PMA over the snapshots of an annealing run against the annealing snapshots themselves, three MoE sizes.

python analysis/draw.py --scale cpu figure_2
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import style
from matplotlib.figure import Figure


def draw(source: style.Source) -> Figure:
    """A column a size: the average of the axes, and held-out text."""
    table = style.scores(source, "figure_2")
    sizes = source.sizes(table["run"].unique())
    figure, axes = plt.subplots(2, len(sizes), figsize=(9, 5.2), squeeze=False)
    rows = (("average", style.measure(source), "four axes"), ("heldout", "bits_per_byte", "held-out text"))
    for (task, metric, name), row in zip(rows, axes, strict=True):
        row[0].set_ylabel(f"{name}\n{style.METRICS[metric].label}")
        for ax, (run, size) in zip(row, sizes.items(), strict=True):
            here = {"run": run, "task": task, "metric": metric}
            annealing, merged = (style.pick(table, method=method, **here) for method in ("last", "sma"))
            # The error of a comparison is the paired one, so it stands at the merge.
            ax.plot(annealing["tokens"], annealing["value"], "o-", color=style.ORANGE, label="annealing snapshot")
            paired, label = merged.assign(error=merged["gain_error"]), "PMA over annealing snapshots"
            style.errorbars(ax, paired, "tokens", "value", color=style.BLUE, marker="s", label=label)
            ax.axhline(annealing["value"].iloc[-1], color=style.ORANGE, ls="--", lw=1, label="end of annealing")
            style.token_axis(ax)
            ax.set_title(size.replace("\n", " "))
    style.legend_above(figure, axes[0, 0])
    style.title(figure, "Figure 2: PMA during annealing")
    style.caption(
        figure, style.window_text(table), "Early windows reach back before the fork.", style.scores_text(source, table),
        "Those at PMA are of its difference to the annealing snapshot.", style.measure_text(source),
        "Axes do not start at 0. The paper (1.3B/13B, 10B/100B, 15B/150B): early in annealing PMA is about as good as "
        "the end of annealing.",
    )  # fmt: skip
    return figure
