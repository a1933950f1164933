"""Sentences of captions: windows, items and seeds, which metric is drawn and why, the paper's own numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from formats import quantity
from records import ROOT, Study
from style import AXES

from drawing.scores import measure
from pma.records import SIGNAL_TO_NOISE_MINIMUM

PAPER = ROOT / "analysis" / "paper"  # the paper's own numbers


def sizes(study: Study, runs: Iterable[str]) -> dict[str, str]:
    """Labels of runs by their size, smallest first: total parameters and the paper's size that they stand for."""
    totals = {run: study.parameters(run) for run in runs}
    order = sorted(totals, key=totals.__getitem__)
    return {run: f"{quantity(totals[run])}\n({study.config(run)['model']['stands_for']})" for run in order}


def measure_text(study: Study, tasks: Iterable[str] = AXES) -> str:
    """Which metric of the tasks is drawn, and why."""
    ratios = study.signal_to_noise()
    if not ratios:
        return "Accuracy is not drawn: Figure 4's records, which tell whether it moves at this scale, are not here."
    tasks = list(tasks)
    by_task = {task: ratios.get((task, "acc"), np.nan) for task in tasks}
    texts = [f"{task} {ratio:.1f}" if np.isfinite(ratio) else f"{task} none" for task, ratio in by_task.items()]
    drawn = "so it is drawn" if measure(study, tasks) == "acc" else "so bits per byte of the right answer are drawn"
    rule = f"rise over training against scatter over the last snapshots of Figure 4; {SIGNAL_TO_NOISE_MINIMUM:g} needed"
    return f"Signal to noise of accuracy ({rule}): {', '.join(texts)}; {drawn}."


def window_text(table: pd.DataFrame) -> str:
    """N and V of the merges of a table."""
    merged = table[table["method"] != "last"][["n", "interval"]].drop_duplicates().sort_values(["n", "interval"])
    windows = (f"N = {n}, V = {quantity(v)} tokens" for n, v in merged.itertuples(index=False))
    return f"PMA: unweighted mean of N snapshots V apart ({'; '.join(windows)})."


def items_text(study: Study, table: pd.DataFrame) -> str:
    """Scale, items and seeds of a table of `scores`."""
    first = study.items(table["experiment"].iloc[0]).drop_duplicates(["suite", "task"])
    first = first[first["task"].isin(table["task"])]
    count = first.assign(items=first["values"].map(len))
    axes, documents = count[~count["task"].str.startswith("heldout_")], count[count["task"].str.startswith("heldout_")]
    low, high = axes["items"].min(), axes["items"].max()
    parts = [f"Scale {study.scale}; {low if low == high else f'{low} to {high}'} items an axis"]
    if len(documents):
        parts.append(f"{documents['items'].sum()} held-out documents of {len(documents)} domains")
    seeds = table.groupby("run")["seeds"].max()
    many = ", ".join(f"{run} {count}" for run, count in seeds[seeds > 1].items())
    parts.append("1 seed" if not many else f"seeds: {many}" + ("" if (seeds > 1).all() else ", others 1"))
    return f"{', '.join(parts)}."


def scores_text(study: Study, table: pd.DataFrame) -> str:
    """Scale, items, seeds and error bars of a table of `scores`."""
    over = "over seeds where there are several, else " if table["seeds"].max() > 1 else ""
    errors = f"Error bars: standard errors, {over}over items (of a gain: of the paired difference)."
    return f"{items_text(study, table)} {errors}"


def paper_text(name: str) -> str:
    """The paper's own pairs of scores."""
    paper = pd.read_csv(PAPER / f"{name}.csv")
    pairs = (f"{p.benchmark} {p.last:g} → {p.pma:g} ({p.stands_for})" for p in paper.itertuples())
    return f"The paper, last → PMA: {', '.join(pairs)}."
