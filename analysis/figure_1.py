"""Figure 1: four MoE sizes at constant learning rate, the last snapshot against PMA on four axes.

python analysis/draw.py --scale cpu figure_1
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import style
from matplotlib.figure import Figure

SETTINGS = {"last snapshot": style.GREY, "PMA (SMA)": style.BLUE}


def draw_sizes(source: style.Source, name: str, title: str) -> Figure:
    """Four panels for the axes; under them their average and held-out text, each with the gain."""
    table = style.scores(source, name)
    table["setting"] = table["method"].map(dict(zip(("last", "sma"), SETTINGS, strict=True)))
    sizes = {run: size.replace("/", "/\n") for run, size in source.sizes(table["run"].unique()).items()}
    acc = style.measure(source)
    panels = [(task, acc, "value", f"{task} (for {paper})") for task, paper in style.AXES.items()]
    panels += [("average", acc, column, f"four axes: {column}") for column in ("value", "gain")]
    panels += [("heldout", "bits_per_byte", column, f"held-out text: {column}") for column in ("value", "gain")]
    figure, axes = plt.subplots(2, 4, figsize=(9, 5.8))
    for ax, (task, metric, column, heading) in zip(axes.flat, panels, strict=True):
        drawn = style.METRICS[metric]
        style.bars(ax, style.pick(table, task=task, metric=metric), "run", sizes, SETTINGS, drawn, column)
        ax.set_title(heading)
        ax.set_ylabel((drawn.label if column == "value" else drawn.gain).replace(", ", "\n"), fontsize=8)
        ax.tick_params(axis="x", labelsize=7)
    style.legend_above(figure, axes[0, 0])
    style.title(figure, title)
    figure.supxlabel("total parameters (the paper's size it stands for)", fontsize=8.5)
    merged = style.pick(table, method="sma").drop_duplicates("run").set_index("run").loc[list(sizes)]
    windows = ", ".join(
        f"{n} and {style.quantity(v)} ({sizes[run].split()[0]})"
        for run, n, v in merged[["n", "interval"]].itertuples(name=None)
    )
    tokens = " and ".join(style.quantity(t) for t in sorted(table["tokens"].unique()))
    style.caption(
        figure,
        f"After {tokens} tokens. PMA: unweighted mean of N snapshots V tokens apart; N and V by size: {windows}.",
        style.scores_text(source, table), style.measure_text(source), "Axes of values do not start at 0.",
        style.paper_text(name),
    )  # fmt: skip
    return figure


def draw(source: style.Source) -> Figure:
    """The MoE ladder."""
    return draw_sizes(source, "figure_1", "Figure 1: MoE models at constant learning rate, last snapshot against PMA")
