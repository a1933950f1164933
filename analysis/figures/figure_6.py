"""Figure 6: continued training on a shifted domain mix, from the last snapshot and from merged ones."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import measure_text, model_text, pma_text, scores_text
from drawing.curves import curves_by_step, mean_line
from drawing.description import INK, Figure, Level, Panel, figure
from drawing.parts import line
from drawing.scores import HELDOUT_BITS, measure, pick, scores
from formats import quantity, rate
from records import Study

# Run: its start, the paper's learning rates, its colour, its dash. Ours stand in the same ratios to our peak rate.
RUNS = {
    "continued_baseline": ("from the last snapshot", "4.08e-4 → 1e-5", style.GREY, "-"),
    "continued_baseline_half": ("from the last snapshot", "", style.GREY, "--"),
    "continued_pma": ("from PMA", "4.08e-4 → 1e-5", style.BLUE, "-"),
    "continued_pma_half": ("from PMA", "2.04e-4 → 1e-5", style.ORANGE, "--"),
    "continued_pma_half_end": ("from PMA", "2.04e-4 → 1.5e-5", style.GREEN, "--"),
}
# Each merge's baseline at the same peak rate.
BASELINES = {
    "continued_pma": "continued_baseline",
    "continued_pma_half": "continued_baseline_half",
    "continued_pma_half_end": "continued_baseline_half",
}
SMOOTHING = 9  # steps of the centred rolling mean


def _smooth(curves: pd.DataFrame) -> pd.DataFrame:
    return curves.rolling(SMOOTHING, center=True).mean()


def _losses(losses: dict[str, pd.DataFrame], labels: dict[str, str]) -> Panel:
    lines = [
        mean_line(_smooth(losses[run]), labels[run], color, band=False, dash=dash, width=1.2)
        for run, (_, _, color, dash) in RUNS.items()
    ]
    return Panel("training loss", "steps of continued training", "nats a token", tuple(lines))


def _saved(losses: dict[str, pd.DataFrame], labels: dict[str, str], warmup: int) -> Panel:
    lines = [
        mean_line(_smooth(losses[baseline] - losses[run]), labels[run], RUNS[run][2], dash=RUNS[run][3], width=1.2)
        for run, baseline in BASELINES.items()
    ]
    title = "loss saved over the baseline of the same peak rate"
    levels = (Level(0.0), Level(warmup, "", INK, ":", upright=True))
    return Panel(title, "steps of continued training", "nats a token", tuple(lines), levels)


def _scores(table: pd.DataFrame, labels: dict[str, str], title: str, task: str, metric: str) -> Panel:
    lines = []
    for run, (_, _, color, dash) in RUNS.items():
        rows = pick(table, run=run, task=task, metric=metric)
        lines.append(line(rows, "tokens", "value", labels[run], color, dash=dash, width=1.2))
    return Panel(title, "tokens of continued training", style.METRICS[metric].label, tuple(lines), tokens=True)


def describe(study: Study) -> Figure:
    """Training loss, what a merge saves of it, held-out text and the knowledge axis."""
    table = scores(study, "figure_6")
    losses = {run: curves_by_step(study, run, "loss") for run in RUNS}
    labels = {}
    for run, (start, _, _, _) in RUNS.items():
        schedule = study.config(run)["schedule"]
        labels[run] = f"{start}, {rate(schedule['peak_lr'])} → {rate(schedule['end_lr'])}"
    config = study.config("continued_pma")
    warmup, parent = config["schedule"]["warmup_tokens"], config["init"]["parent"]
    upper = [_losses(losses, labels), _saved(losses, labels, warmup // config["scale"]["batch_tokens"])]
    lower = [
        _scores(table, labels, "held-out text", **HELDOUT_BITS),
        _scores(table, labels, "knowledge (for MMLU)", "knowledge", measure(study, ["knowledge"])),
    ]
    pairs = ", ".join(dict.fromkeys(rates for _, rates, _, _ in RUNS.values() if rates))
    return figure(
        "Figure 6: continued training from the last snapshot and from merged ones",
        [upper, lower],
        (9, 6.4),
        model_text(study, "continued_pma"),
        f"All runs start from the main run at {quantity(parent['tokens'])} tokens and see the same batches of other "
        "text.",
        pma_text([(parent["n"], parent["interval"])]),
        f"Labels give the learning rate, which rises over {quantity(warmup)} tokens (to the dotted line) and falls "
        f"along a cosine; the paper's, in the same ratios: {pairs}. The baseline at half the rate is ours. Losses: "
        f"centred rolling mean over {SMOOTHING} steps.",
        measure_text(study, ["knowledge"]),
        scores_text(study, table, "error bars and bands"),
        "Axes of scores and of the loss do not start at 0.",
        see="A line above zero trains at a lower loss than its baseline at the same step; watch how long that lead "
        "lasts.",
        lead=[upper[1], lower[0]],
    )
