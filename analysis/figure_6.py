"""Figure 6: continued training on a shifted domain mix, from the last snapshot and from merged ones.

python analysis/draw.py --scale cpu figure_6
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import style
from matplotlib.figure import Figure

# Run: its start, the paper's learning rates, its colour. Ours stand in the same ratios to our peak rate.
RUNS = {
    "continued_baseline": ("last snapshot", "4.08e-4 → 1e-5", style.GREY),
    "continued_pma": ("PMA", "4.08e-4 → 1e-5", style.BLUE),
    "continued_pma_half": ("PMA", "2.04e-4 → 1e-5", style.ORANGE),
    "continued_pma_half_end": ("PMA", "2.04e-4 → 1.5e-5", style.GREEN),
}
SMOOTHING = 9  # steps of the centred rolling mean


def draw(source: style.Source) -> Figure:
    """Training loss, its difference to the baseline's, and the knowledge axis."""
    table = style.scores(source, "figure_6")
    metric = style.measure(source, ["knowledge"])
    losses = {run: source.curve(run).set_index("step")["loss"] for run in RUNS}
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.5))
    for run, (start, _, color) in RUNS.items():
        schedule = source.config(run)["schedule"]
        label = f"{start}, {style.rate(schedule['peak_lr'])} → {style.rate(schedule['end_lr'])}"
        difference = losses[run] - losses["continued_baseline"]
        for ax, curve in ((left, losses[run]), (middle, difference)):
            ax.plot(curve.index, curve, color=color, lw=0.6, alpha=0.3)
            ax.plot(curve.index, curve.rolling(SMOOTHING, center=True).mean(), color=color, label=label)
        rows = style.pick(table, run=run, task="knowledge", metric=metric)
        if run == "continued_baseline":
            style.errorbars(right, rows, "tokens", "value", color=color, lw=1.2)
        else:
            right.plot(rows["tokens"], rows["value"], "o-", color=color, lw=1.2)
    for ax, title in ((left, "training loss (nats a token)"), (middle, "its difference to the baseline's")):
        ax.set_title(title)
        ax.set_xlabel("steps of continued training")
    right.set_title("knowledge (for MMLU)")
    right.set_ylabel(style.METRICS[metric].label)
    style.token_axis(right, label="tokens of continued training")
    style.legend_above(figure, left)
    style.title(figure, "Figure 6: continued training from the last snapshot and from merged ones")
    parent = source.config("continued_pma")["init"]["parent"]
    pairs = ", ".join(lrs for _, lrs, _ in RUNS.values())
    interval = style.quantity(parent["interval"])
    style.caption(
        figure,
        f"Starts: the main run at {style.quantity(parent['tokens'])} tokens; PMA: mean of {parent['n']} snapshots, V = "
        f"{interval} tokens. Cosine learning rates as labelled, the paper's ratios ({pairs}). "
        f"Loss: centred rolling mean over {SMOOTHING} steps, light: every step; all runs see the same batches.",
        style.scores_text(source, table), "Drawn for the baseline alone.",
        style.measure_text(source, ["knowledge"]), "Axes do not start at 0.",
    )  # fmt: skip
    return figure
