"""Figure 6: continued training on a shifted domain mix, from the last snapshot and from merged ones."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import measure_text, model_text, pma_text, scores_text
from drawing.curves import curve_by_step
from drawing.description import Figure, Line, Panel, figure
from drawing.parts import line
from drawing.scores import measure, pick, scores
from formats import quantity, rate
from records import Study

BASELINE = "continued_baseline"
# Run: its start, the paper's learning rates, its colour. Ours stand in the same ratios to our peak rate.
RUNS = {
    BASELINE: ("from the last snapshot", "4.08e-4 → 1e-5", style.GREY),
    "continued_pma": ("from PMA", "4.08e-4 → 1e-5", style.BLUE),
    "continued_pma_half": ("from PMA", "2.04e-4 → 1e-5", style.ORANGE),
    "continued_pma_half_end": ("from PMA", "2.04e-4 → 1.5e-5", style.GREEN),
}
SMOOTHING = 9  # steps of the centred rolling mean


def _curves(curves: dict[str, pd.Series], labels: dict[str, str], title: str) -> Panel:
    """A panel of curves over steps: each step lightly, the rolling mean over it."""
    lines = []
    for run, (_, _, color) in RUNS.items():
        steps, smooth = curves[run].index.to_numpy(), curves[run].rolling(SMOOTHING, center=True).mean()
        lines.append(Line("", color, steps, curves[run].to_numpy(), width=0.6, alpha=0.3))
        lines.append(Line(labels[run], color, steps, smooth.to_numpy()))
    return Panel(title, "steps of continued training", "", tuple(lines))


def _knowledge(table: pd.DataFrame, labels: dict[str, str], metric: str) -> Panel:
    lines = []
    for run, (_, _, color) in RUNS.items():
        rows = pick(table, run=run, task="knowledge", metric=metric)
        lines.append(line(rows, "tokens", "value", labels[run], color, errors=run == BASELINE, width=1.2))
    label = style.METRICS[metric].label
    return Panel("knowledge (for MMLU)", "tokens of continued training", label, tuple(lines), tokens=True)


def describe(study: Study) -> Figure:
    """Training loss, its difference to the baseline's, and the knowledge axis."""
    table = scores(study, "figure_6")
    losses = {run: curve_by_step(study, run)["loss"] for run in RUNS}
    labels = {}
    for run, (start, _, _) in RUNS.items():
        schedule = study.config(run)["schedule"]
        labels[run] = f"{start}, {rate(schedule['peak_lr'])} → {rate(schedule['end_lr'])}"
    differences = {run: loss - losses[BASELINE] for run, loss in losses.items()}
    panels = [
        _curves(losses, labels, "training loss (nats a token)"),
        _curves(differences, labels, "loss minus the baseline's"),
        _knowledge(table, labels, measure(study, ["knowledge"])),
    ]
    parent = study.config("continued_pma")["init"]["parent"]
    pairs = ", ".join(dict.fromkeys(rates for _, rates, _ in RUNS.values()))
    return figure(
        "Figure 6: continued training from the last snapshot and from merged ones",
        [panels],
        (9, 3.5),
        model_text(study, BASELINE),
        f"All four runs start from the main run at {quantity(parent['tokens'])} tokens and see the same batches of "
        "other text.",
        pma_text([(parent["n"], parent["interval"])]),
        f"Labels give the learning rate, which falls along a cosine; the paper's, in the same ratios: {pairs}. "
        f"Left and middle: light, every step; strong, the centred rolling mean over {SMOOTHING} steps.",
        measure_text(study, ["knowledge"]),
        scores_text(study, table, "drawn for the baseline alone"),
        "Axes do not start at 0.",
        see="A difference below zero trains at a lower loss than the baseline at the same step; watch how "
        "long that lead lasts.",
        lead=panels[:2],
    )
