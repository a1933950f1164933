"""The learning-rate study that the paper leaves open: the gain of merging against the peak learning rate.

python analysis/draw.py --scale cpu learning_rate
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import style
from matplotlib.figure import Figure


def draw(source: style.Source) -> Figure:
    """Scores of the last and the merged snapshots, and the gain; the average of the axes, and held-out text."""
    table = style.scores(source, "learning_rate")
    table["lr"] = table["run"].map({run: source.config(run)["schedule"]["peak_lr"] for run in table["run"].unique()})
    points = sorted(table["tokens"].unique())
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True)
    acc = style.measure(source)
    columns = (("average", acc, "average of the four axes"), ("heldout", "bits_per_byte", "held-out text"))
    for (top, bottom), (task, metric, title) in zip(axes.T, columns, strict=True):
        for tokens, look in zip(points, ({"ls": "--", "mfc": "white"}, {"ls": "-"}), strict=True):
            here = {"tokens": tokens, "task": task, "metric": metric}
            last, merged = (style.pick(table, method=method, **here).sort_values("lr") for method in ("last", "sma"))
            after = f"after {style.quantity(tokens)} tokens"
            top.plot(last["lr"], last["value"], marker="o", color=style.GREY, label=f"last snapshot {after}", **look)
            top.plot(merged["lr"], merged["value"], marker="s", color=style.BLUE, label=f"PMA {after}", **look)
            style.errorbars(bottom, merged, "lr", "gain", color=style.BLUE, **{"marker": "s", **look})
        top.set_title(title)
        top.set_ylabel(style.METRICS[metric].label)
        bottom.set_ylabel(style.METRICS[metric].gain)
        bottom.axhline(0, color="black", lw=0.8)
        bottom.set_xscale("log")
        bottom.set_xticks(last["lr"], map(style.rate, last["lr"]))
        bottom.minorticks_off()
        bottom.set_xlabel("peak learning rate (constant)")
    style.legend_above(figure, axes[0, 0])
    style.title(figure, "Gain of merging against the learning rate")
    size = source.sizes(["dense_411m"])["dense_411m"].replace("\n", " ")
    style.caption(
        figure, f"The smallest dense model, {size}, the same tokens at each rate.", style.window_text(table),
        style.scores_text(source, table), "Drawn for the gain.", style.measure_text(source),
        "The upper axes do not start at 0. The paper believes that a higher rate gains more, and measures none of it.",
    )  # fmt: skip
    return figure
