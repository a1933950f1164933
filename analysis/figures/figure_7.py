"""Figure 7: gradient norm in supervised fine-tuning (left); a collapsed run, resumed from merged snapshots (right)."""

from __future__ import annotations

import numpy as np
import style
from drawing.captions import model_text, pma_text, runs_text
from drawing.curves import curves_by_step, mean_line, seeds_of, single_lines
from drawing.description import Figure, Line, Panel, figure
from drawing.scores import counted_seeds
from formats import quantity
from records import Study
from verdicts.evidence.curves import running_median, spikes

FINE_TUNED = {"sft_baseline": ("from the last snapshot", style.GREY), "sft_pma": ("from PMA", style.BLUE)}
COLLAPSED = {
    "spike": ("collapsing run", style.RED),
    "spike_last": ("resumed from the last good snapshot", style.GREY),
    "spike_pma": ("resumed from PMA", style.BLUE),
}


def _gradient_norms(study: Study) -> Panel:
    """Every step's norm, mean over seeds, lightly; the running median over it; a triangle at each spike of a seed."""
    lines, highest = [], 0.0
    for run, (label, color) in FINE_TUNED.items():
        norms = curves_by_step(study, run, "gradient_norm")
        medians, marked = norms.apply(running_median), norms.apply(spikes)
        counted = counted_seeds(norms.columns)
        often = f"{marked[counted].sum().mean():.3g} of {len(norms)} steps are spikes"
        text = f"{label}: mean {norms[counted].to_numpy().mean():.2f}, {often}"
        every = norms[counted].mean(axis=1)
        lines.append(Line("", color, every.index.to_numpy(), every.to_numpy(), width=0.6, alpha=0.5))
        lines.append(mean_line(medians, text, color))
        step, seed = np.nonzero(marked.to_numpy())
        places = norms.index.to_numpy()[step], norms.to_numpy()[step, seed]
        lines.append(Line("", color, *places, dash="", marker="v", size=3, alpha=0.7))
        highest = max(highest, norms.to_numpy().max())
    title = "gradient norm, supervised fine-tuning"
    return Panel(
        title, "steps", "L2 norm before clipping", tuple(lines), ylim=(0.0, 1.3 * highest), legend="upper right"
    )


def _collapse(study: Study) -> Panel:
    lines: list[Line] = []
    for run, (label, color) in COLLAPSED.items():
        curves = curves_by_step(study, run, "loss")
        first, *others = [curves[[seed]] for seed in curves]
        look = {"width": 1.0, "alpha": 0.9}
        lines.append(Line(label, color, first.index.to_numpy(), first.iloc[:, 0].to_numpy(), **look))
        lines += single_lines(curves, color) if others else []
    return Panel("training loss around a collapse", "steps", "nats a token", tuple(lines), legend="best")


def describe(study: Study) -> Figure:
    """Fine-tuning, and the collapse if its runs are there; from the runs' curves alone."""
    panels = [_gradient_norms(study)]
    tuned = study.config("sft_pma")["init"]["parent"]
    collapse = ""
    if study.seeds("spike"):
        panels.append(_collapse(study))
        rescue = study.config("spike_pma")["init"]["parent"]
        collapse = (
            f" Right: a learning rate far too high; PMA with N = {rescue['n']}, V = {quantity(rescue['interval'])} "
            f"tokens up to {quantity(rescue['tokens'])} tokens, before the collapse; strong: the first seed, thin: "
            "every seed. Resuming from the last good snapshot is a control that the paper lacks; the axis does not "
            "start at 0."
        )
    seeds = sorted({seed for run in FINE_TUNED for seed in seeds_of(study, run)})
    return figure(
        "Figure 7: gradient norm after PMA" + (", and recovery from a collapse" if collapse else ""),
        [panels],
        (9, 3.7),
        model_text(study, "sft_baseline"),
        pma_text([]),
        f"Gradient norm: fine-tuning starts from the last snapshot or from PMA with N = {tuned['n']}, V = "
        f"{quantity(tuned['interval'])} tokens. Light: the mean over runs; strong: each run's median of the 21 steps "
        f"about, then the mean. Triangles: single runs' spikes, norms above 1.5 times that median.{collapse}",
        f"Scale {study.scale}. {runs_text(seeds, 'bands', dots=False)}",
        "The paper: 800 steps of fine-tuning; 330M/3.3B at learning rate 6e-3, 3 checkpoints, 2500 steps.",
        legend=False,
        see="Gradient norm: a lower line with fewer triangles is calmer fine-tuning."
        + (
            " Collapse: see whether the runs that resume before it pass it, from the merge and from a single snapshot "
            "alike."
            if collapse
            else ""
        ),
    )
