"""Figure 7: gradient norm in supervised fine-tuning (left); a collapsed run, resumed from merged snapshots (right).

python analysis/draw.py --scale cpu figure_7
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import style
from matplotlib.figure import Figure

FINE_TUNED = {"sft_baseline": ("from the last snapshot", style.GREY), "sft_pma": ("from PMA", style.BLUE)}
COLLAPSED = {
    "spike": ("collapsing run", style.RED),
    "spike_last": ("resumed from the last good snapshot", style.ORANGE),
    "spike_pma": ("resumed from PMA", style.BLUE),
}
WINDOW, FACTOR = 20, 2.0  # steps; a spike is FACTOR times the median of the WINDOW steps before


def gradient_spikes(norms: pd.Series) -> pd.Series:
    """Which steps are spikes: a norm above FACTOR times the running median of the WINDOW steps before it."""
    return norms > FACTOR * norms.rolling(WINDOW).median().shift()


def draw(source: style.Source) -> Figure:
    """Both halves, from the runs' curves alone."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7))
    for run, (label, color) in FINE_TUNED.items():
        for i, seed in enumerate(source.seeds(run) or [0]):
            curve = source.curve(run, seed).set_index("step")["gradient_norm"]
            spikes = curve[gradient_spikes(curve)]
            said = f"{label}: median {curve.median():.2f}, spikes {len(spikes)} of {len(curve)}"
            left.plot(curve.index, curve, color=color, lw=1, alpha=0.9 if i == 0 else 0.4, label=said)
            left.plot(spikes.index, spikes, "v", color=color, ms=5, mec="black", mew=0.5)
    left.set_title("gradient norm, supervised fine-tuning")
    left.set_ylabel("L2 norm before clipping")
    left.set_ylim(bottom=0, top=left.get_ylim()[1] * 1.25)
    for run, (label, color) in COLLAPSED.items():
        for i, seed in enumerate(source.seeds(run) or [0]):
            curve = source.curve(run, seed).set_index("step")["loss"]
            right.plot(curve.index, curve, color=color, lw=1, alpha=0.4 if i else 0.9, label=None if i else label)
    right.set_title("training loss around a collapse")
    right.set_ylabel("nats a token")
    for ax in (left, right):
        ax.set_xlabel("steps")
    left.legend(loc="upper right", fontsize=7.5)
    right.legend(loc="best", fontsize=7.5, frameon=True, edgecolor="none")
    style.title(figure, "Figure 7: gradient norm after PMA, and recovery from a collapse")
    rescue, tuned = (source.config(run)["init"]["parent"] for run in ("spike_pma", "sft_pma"))
    end, apart, interval = map(style.quantity, (rescue["tokens"], rescue["interval"], tuned["interval"]))
    seeds = ", ".join(f"{run} {len(source.seeds(run))}" for run in (*FINE_TUNED, *COLLAPSED))
    style.caption(
        figure,
        f"Scale {source.scale}; seeds: {seeds}; no curve is smoothed. Left: PMA is the mean of {tuned['n']} snapshots, "
        f"V = {interval} tokens; triangles: spikes, steps above {FACTOR:g} times the median of the {WINDOW} steps "
        f"before. Right: PMA is the mean of the {rescue['n']} snapshots up to {end} tokens, {apart} apart, before the "
        "collapse; the last good snapshot is a control that the paper lacks. The right axis does not start at 0. The "
        "paper: 800 steps of fine-tuning; 330M/3.3B at learning rate 6e-3, 3 checkpoints, 2500 steps.",
    )
    return figure
