"""Sentences of captions: the model, what PMA is, items and seeds, the metric and why, the paper's own numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from formats import quantity, seeds_words
from records import ROOT, Study
from sizes import label
from style import AXES

from drawing.scores import counted_seeds, measure
from pma.records import SIGNAL_TO_NOISE_MINIMUM

PAPER = ROOT / "analysis" / "paper"  # the paper's own numbers


BITS = "bits per byte of the right answer (what the model needs for each byte of it; lower is better)"
HELDOUT = "Held-out text, which decides: bits per byte, averaged over its domains."


def model_text(study: Study, run: str = "moe_main") -> str:
    """The one model of a figure, by its real size first."""
    return f"Model: {label(study, run)}."


def measure_text(study: Study, tasks: Iterable[str] = AXES) -> str:
    """Which metric of text and tasks is drawn, and why."""
    ratios, tasks = study.signal_to_noise(), list(tasks)
    if not ratios:
        return (
            f"{HELDOUT} Axes: {BITS}. Accuracy is not drawn: Figure 4's records, which tell whether it moves at this "
            "scale, are not here."
        )
    by_task = {task: ratios.get((task, "acc"), np.nan) for task in tasks}
    texts = [f"{task} {ratio:.1f}" if np.isfinite(ratio) else f"{task} none" for task, ratio in by_task.items()]
    rule = (
        f"its signal to noise (rise over training, divided by scatter between the last snapshots) is {', '.join(texts)}"
        f"; {SIGNAL_TO_NOISE_MINIMUM:g} is needed"
    )
    if measure(study, tasks) == "acc":
        return f"{HELDOUT} Axes: accuracy, as it moves at this scale: {rule}."
    return f"{HELDOUT} Axes: {BITS}. Accuracy moves too little at this scale: {rule}."


def window_text(table: pd.DataFrame, weights: str = "the unweighted mean") -> str:
    """What PMA, N and V are, and N and V of the merges of a table."""
    merged = table[table["method"] != "last"][["n", "interval"]].drop_duplicates().sort_values(["n", "interval"])
    return pma_text([(n, v) for n, v in merged.itertuples(index=False)], weights)


def pma_text(windows: Sequence[tuple[int, int]], weights: str = "the unweighted mean") -> str:
    """What PMA, N and V are.

    Args:
        windows: N and V (tokens) of the merges; without any, V is named where it is given.
        weights: which mean.
    """
    numbers, intervals = dict.fromkeys(n for n, _ in windows), dict.fromkeys(v for _, v in windows)
    n, v = _alternatives(map(str, numbers)), _alternatives(map(quantity, intervals))
    here = f"; here N = {n}, V = {v} tokens" if windows else ""
    return f"PMA (pre-trained model averaging): {weights} of the last N snapshots, V training tokens apart{here}."


def _alternatives(texts: Iterable[str]) -> str:
    return " or ".join(texts)


def items_text(study: Study, table: pd.DataFrame) -> str:
    """Scale and items of a table of `scores`."""
    count = study.item_counts(table["experiment"].iloc[0])
    count = count[count["task"].isin(table["task"])]
    axes, documents = count[~count["task"].str.startswith("heldout_")], count[count["task"].str.startswith("heldout_")]
    low, high = axes["items"].min(), axes["items"].max()
    parts = [f"{low if low == high else f'{low} to {high}'} test items an axis"]
    if len(documents):
        parts.append(f"{documents['items'].sum()} held-out documents of {len(documents)} domains")
    return f"Scale {study.scale}: {', '.join(parts)}."


def runs_text(seeds: Iterable[int], marks: str = "error bars", dots: bool = True, alone: str = "") -> str:
    """How many training runs the means are over, what their intervals are, and what each dot is.

    Args:
        seeds: all that are drawn.
        marks: what the intervals are drawn as.
        dots: whether single runs are drawn as dots.
        alone: of the error of a single run; empty where none is drawn.
    """
    counted = counted_seeds(seeds)
    if len(counted) == 1:
        return f"One training run ({seeds_words(counted)}){alone}."
    text = (
        f"Means over {len(counted)} training runs ({seeds_words(counted)}); {marks}: 95 % intervals, Student's t "
        "over these runs."
    )
    if not dots:
        return text
    text += " Small dots: single runs"
    if hollow := sorted(set(seeds) - set(counted)):
        text += f"; hollow: exploratory {seeds_words(hollow)}, never counted"
    return f"{text}."


def scores_text(study: Study, table: pd.DataFrame, marks: str = "error bars") -> str:
    """Scale, items, seeds, intervals (drawn as `marks`) and dots of a table of `scores`."""
    seeds = {seed for values in table["values"] for seed in values}
    alone = (
        "; error bars: 95 % intervals over test items (1.96 standard errors; of a gain, of its paired differences), "
        "which say nothing of other runs"
    )
    return f"{items_text(study, table)} {runs_text(seeds, marks, alone=alone)}"


def paper_text(name: str) -> str:
    """The paper's own pairs of scores."""
    paper = pd.read_csv(PAPER / f"{name}.csv")
    pairs = (f"{p.benchmark} {p.last:g} → {p.pma:g} ({p.stands_for})" for p in paper.itertuples())
    return f"The paper, last → PMA: {', '.join(pairs)}."
