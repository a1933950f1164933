"""Scores for figures: means over seeds, gains over the last snapshot, and their errors.

Everywhere: value and gain are means over seeds, a gain is positive where merging helps, accuracy is in per cent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from records import Missing, Study
from style import AXES, METRICS

from pma.records import SIGNAL_TO_NOISE_MINIMUM

# What a score belongs to; seeds are averaged over, and gains are within a seed.
Z95 = 1.96  # standard errors to each side of a 95 % interval
AVERAGE_BITS = {"task": "average", "metric": "bits_per_byte"}  # the main score of a suite
_AT = ["run", "seed", "tokens", "suite", "task", "metric"]
_SETTING = ["method", "n", "interval"]
_ERRORS = {"value": "error", "gain": "gain_error"}


def paired_errors(items: pd.DataFrame) -> pd.DataFrame:
    """Standard error of each merge's gain over the last snapshot, from paired differences over the items.

    The error of an average of tasks follows from those of the tasks, which share no items.

    Returns:
        One row a run, seed, point, task, metric and recipe, the error in column `paired`.
    """
    last = items[items["method"] == "last"].drop(columns=_SETTING)
    both = items[items["method"] != "last"].merge(last, on=_AT, suffixes=("", "_last"))
    pairs = zip(both["values"], both["values_last"], strict=True)
    variance = [float(np.var(np.subtract(a, b), ddof=1) / len(a)) for a, b in pairs]
    single = both[_AT + _SETTING].assign(variance=variance)
    average_of = {task: "average" for task in AXES}
    average_of |= {task: "heldout" for task in single["task"] if task.startswith("heldout_")}
    mean = single.assign(task=single["task"].map(average_of)).dropna().groupby(_AT + _SETTING)["variance"]
    averages = (mean.sum() / mean.size() ** 2).reset_index()
    every = pd.concat([single, averages])
    return every.assign(paired=np.sqrt(every.pop("variance")))


def scores(study: Study, experiment: str) -> pd.DataFrame:
    """Records of an experiment, averaged over seeds: columns value, error, gain, gain_error, seeds.

    Errors are standard errors over seeds where there are at least 2. Else a value's error is over items, and a gain's
    is the paired one over items.

    Raises:
        Missing: when the experiment has no records.
    """
    table = study.records(experiment)
    factor = table["metric"].map({name: metric.factor for name, metric in METRICS.items()})
    sign = table["metric"].map({name: metric.sign for name, metric in METRICS.items()})
    last = table.loc[table["method"] == "last", [*_AT, "value"]].drop_duplicates(_AT)
    table = table.merge(last.rename(columns={"value": "last"}), on=_AT, how="left")
    table["gain"] = sign * (table["value"] - table["last"])
    table = table.merge(paired_errors(study.items(experiment)), on=_AT + _SETTING, how="left")
    table[["value", "stderr", "gain", "paired"]] = table[["value", "stderr", "gain", "paired"]].mul(factor, axis=0)
    grouped = table.groupby([key for key in _AT if key != "seed"] + _SETTING)
    means = grouped.agg(
        value=("value", "mean"), error=("value", "sem"), items=("stderr", "mean"),
        gain=("gain", "mean"), gain_error=("gain", "sem"), paired=("paired", "mean"), seeds=("seed", "nunique"),
    ).reset_index()  # fmt: skip
    several = means["seeds"] > 1
    means["error"] = means["error"].where(several, means.pop("items"))
    means["gain_error"] = means["gain_error"].where(several, means.pop("paired"))
    return means.assign(experiment=experiment)


def pick(table: pd.DataFrame, **conditions: Any) -> pd.DataFrame:
    """Rows where every `column=value` holds, in the order of tokens if the table has them.

    Raises:
        Missing: when there are none, for then a part of the experiment is missing.
    """
    chosen = table
    for column, value in conditions.items():
        chosen = chosen[chosen[column] == value]
    if chosen.empty:
        asked = ", ".join(f"{column}={value}" for column, value in conditions.items())
        raise Missing(f"no records with {asked}: a part of it is missing, reproduce the experiment again")
    return chosen.sort_values("tokens") if "tokens" in chosen else chosen


def error_of(column: str) -> str:
    """The column that holds the error of `value` or `gain`."""
    return _ERRORS[column]


def measure(study: Study, tasks: Iterable[str] = AXES) -> str:
    """The metric to draw of tasks: acc where every one's accuracy moves at this scale, else bits_per_byte."""
    ratios = study.signal_to_noise()
    moves = all(ratios.get((task, "acc"), 0) >= SIGNAL_TO_NOISE_MINIMUM for task in tasks)
    return "acc" if moves else "bits_per_byte"
