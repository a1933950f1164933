"""Figure 7: gradient norm in supervised fine-tuning (left); a collapsed run, resumed from merged snapshots (right)."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import model_text, pma_text, seeds_text
from drawing.curves import curve_by_step
from drawing.description import Figure, Line, Panel, figure
from formats import quantity
from records import Study

FINE_TUNED = {"sft_baseline": ("from the last snapshot", style.GREY), "sft_pma": ("from PMA", style.BLUE)}
COLLAPSED = {
    "spike": ("collapsing run", style.RED),
    "spike_last": ("resumed from the last good snapshot", style.GREY),
    "spike_pma": ("resumed from PMA", style.BLUE),
}
WINDOW, FACTOR = 20, 2.0  # steps; a spike is FACTOR times the median of the WINDOW steps before


def gradient_spikes(norms: pd.Series) -> pd.Series:
    """Which steps are spikes: a norm above FACTOR times the running median of the WINDOW steps before it."""
    return norms > FACTOR * norms.rolling(WINDOW).median().shift()


def _seeds(study: Study, run: str) -> list[int]:
    return study.seeds(run) or [0]  # the first one's missing file then names what to do


def _gradient_norms(study: Study) -> Panel:
    lines, highest = [], 0.0
    for run, (label, color) in FINE_TUNED.items():
        for i, seed in enumerate(_seeds(study, run)):
            norms = curve_by_step(study, run, seed)["gradient_norm"]
            spikes = norms[gradient_spikes(norms)]
            text = f"{label}: median {norms.median():.2f}, spikes {len(spikes)} of {len(norms)}"
            steps = norms.index.to_numpy()
            lines.append(Line(text, color, steps, norms.to_numpy(), width=1, alpha=0.4 if i else 0.9))
            marks = {"dash": "", "marker": "v", "size": 5, "edge": "black"}
            lines.append(Line("", color, spikes.index.to_numpy(), spikes.to_numpy(), **marks))
            highest = max(highest, float(norms.max()))
    title = "gradient norm, supervised fine-tuning"
    ylim = (0.0, 1.3 * highest)
    return Panel(title, "steps", "L2 norm before clipping", tuple(lines), ylim=ylim, legend="upper right")


def _collapse(study: Study) -> Panel:
    lines = []
    for run, (label, color) in COLLAPSED.items():
        for i, seed in enumerate(_seeds(study, run)):
            loss = curve_by_step(study, run, seed)["loss"]
            look = {"width": 1, "alpha": 0.4 if i else 0.9}
            lines.append(Line("" if i else label, color, loss.index.to_numpy(), loss.to_numpy(), **look))
    return Panel("training loss around a collapse", "steps", "nats a token", tuple(lines), legend="best")


def describe(study: Study) -> Figure:
    """Both halves, from the runs' curves alone."""
    panels = [_gradient_norms(study), _collapse(study)]
    rescue, tuned = (study.config(run)["init"]["parent"] for run in ("spike_pma", "sft_pma"))
    words = {run: f"fine-tuning {start}" for run, (start, _) in FINE_TUNED.items()}
    words |= {run: f"the run {label}" for run, (label, _) in COLLAPSED.items()}
    seeds = {words[run]: len(_seeds(study, run)) for run in words}
    return figure(
        "Figure 7: gradient norm after PMA, and recovery from a collapse",
        [panels],
        (9, 3.7),
        model_text(study, "sft_baseline"),
        pma_text([]),
        f"Left: fine-tuning starts from the last snapshot or from PMA with N = {tuned['n']}, V = "
        f"{quantity(tuned['interval'])} tokens; triangles: spikes, steps above {FACTOR:g} times the median of the "
        f"{WINDOW} steps before. Right: a learning rate far too high; PMA with N = {rescue['n']}, V = "
        f"{quantity(rescue['interval'])} tokens up to {quantity(rescue['tokens'])} tokens, before the collapse. "
        "Resuming from the last good snapshot is a control that the paper lacks. No curve is smoothed; the right axis "
        f"does not start at 0. Scale {study.scale}: {seeds_text(seeds)}. The paper: 800 steps of fine-tuning; "
        "330M/3.3B at learning rate 6e-3, 3 checkpoints, 2500 steps.",
        legend=False,
        see="Gradient norm: a lower line with fewer triangles is calmer fine-tuning. Collapse: see whether the runs "
        "that resume before the collapse pass it, from the merge and from a single snapshot alike.",
    )
