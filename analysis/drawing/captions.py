"""Sentences of captions: the model, what PMA is, items and seeds, the metric and why, the paper's own numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from formats import quantity
from records import ROOT, Study
from sizes import label
from style import AXES

from drawing.scores import measure
from pma.records import SIGNAL_TO_NOISE_MINIMUM

PAPER = ROOT / "analysis" / "paper"  # the paper's own numbers


BITS = "bits per byte of the right answer (what the model needs for each byte of it; lower is better)"


def model_text(study: Study, run: str = "moe_main") -> str:
    """The one model of a figure, by its real size first."""
    return f"Model: {label(study, run)}."


def measure_text(study: Study, tasks: Iterable[str] = AXES) -> str:
    """Which metric of the tasks is drawn, and why."""
    ratios, tasks = study.signal_to_noise(), list(tasks)
    if not ratios:
        return (
            f"Scores: {BITS}. Accuracy is not: Figure 4's records, which tell whether it moves at this scale, are not "
            "here."
        )
    by_task = {task: ratios.get((task, "acc"), np.nan) for task in tasks}
    texts = [f"{task} {ratio:.1f}" if np.isfinite(ratio) else f"{task} none" for task, ratio in by_task.items()]
    rule = (
        f"its signal to noise (rise over training, divided by scatter between the last snapshots) is {', '.join(texts)}"
        f"; {SIGNAL_TO_NOISE_MINIMUM:g} is needed"
    )
    if measure(study, tasks) == "acc":
        return f"Scores: accuracy, as it moves at this scale: {rule}."
    return f"Scores: {BITS}. Accuracy moves too little at this scale: {rule}."


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


def items_text(study: Study, table: pd.DataFrame, names: Mapping[str, str] | None = None) -> str:
    """Scale, items and seeds of a table of `scores`; `names` of runs in words."""
    first = study.items(table["experiment"].iloc[0]).drop_duplicates(["suite", "task"])
    first = first[first["task"].isin(table["task"])]
    count = first.assign(items=first["values"].map(len))
    axes, documents = count[~count["task"].str.startswith("heldout_")], count[count["task"].str.startswith("heldout_")]
    low, high = axes["items"].min(), axes["items"].max()
    parts = [f"{low if low == high else f'{low} to {high}'} test items an axis"]
    if len(documents):
        parts.append(f"{documents['items'].sum()} held-out documents of {len(documents)} domains")
    seeds = table.groupby("run")["seeds"].max().rename(dict(names or {}))
    return f"Scale {study.scale}: {', '.join([*parts, seeds_text(seeds.to_dict())])}."


def seeds_text(seeds: Mapping[str, int]) -> str:
    """How many seeds the runs have: `one seed (training run)`."""
    if len(set(seeds.values())) <= 1:
        count = next(iter(seeds.values()), 1)
        return "one seed (training run)" if count == 1 else f"{count} seeds (training runs) each"
    most = max(seeds.values())
    runs = [run for run, count in seeds.items() if count == most]
    rest = [f"{run} {count}" for run, count in seeds.items() if 1 < count < most]
    others = "".join(f"{text}, " for text in rest)
    return f"{most} seeds (training runs) of {' and '.join(runs)}, {others}one of the others"


def scores_text(study: Study, table: pd.DataFrame, errors: str = "", names: Mapping[str, str] | None = None) -> str:
    """Scale, items, seeds and error bars of a table of `scores`.

    Args:
        errors: of what they are; `of a gain, that of the paired difference` if not given.
        names: of runs in words.
    """
    over = "over seeds where there are several, else " if table["seeds"].max() > 1 else ""
    of = errors or "of a gain, that of the paired difference"
    return f"{items_text(study, table, names)} Error bars: one standard error, {over}over items; {of}."


def paper_text(name: str) -> str:
    """The paper's own pairs of scores."""
    paper = pd.read_csv(PAPER / f"{name}.csv")
    pairs = (f"{p.benchmark} {p.last:g} → {p.pma:g} ({p.stands_for})" for p in paper.itertuples())
    return f"The paper, last → PMA: {', '.join(pairs)}."
