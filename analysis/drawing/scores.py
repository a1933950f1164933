"""Scores for figures: means over seeds, gains over the last snapshot, and 95 % intervals of both.

Everywhere: a seed is a training run, value and gain are means over the counted seeds, a gain is positive where merging
helps, accuracy is in per cent.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from records import Missing, Study
from style import AXES, METRICS
from verdicts.rules import Rules, load_rules
from verdicts.student import Student

from pma.records import SIGNAL_TO_NOISE_MINIMUM

AVERAGE_BITS = {"task": "average", "metric": "bits_per_byte"}  # right answers of a suite
HELDOUT_BITS = {"task": "heldout", "metric": "bits_per_byte"}  # the main score
_Z95 = 1.96  # standard errors over items to each side of a 95 % interval
# What a score belongs to; seeds are averaged over, and gains are within a seed.
_AT = ["run", "seed", "tokens", "suite", "task", "metric"]
_SETTING = ["method", "n", "interval"]
_KEYS = [key for key in _AT if key != "seed"] + _SETTING
_ERRORS = {"value": "error", "gain": "gain_error"}
_OF_SEEDS = {"value": "values", "gain": "gains"}


@cache
def rules() -> Rules:
    """claims.yaml, read once."""
    return load_rules()


def counted_seeds(seeds: Iterable[int]) -> list[int]:
    """Which of some seeds make the means: the confirmatory ones of claims.yaml, or all where none of those is there."""
    there = sorted(set(seeds))
    return [seed for seed in there if seed in rules().common.confirmatory] or there


def mean_and_half(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over rows (a row a seed) and half length of its 95 % interval, Student's t; NaN for a single row.

    Returns:
        A row for each column of `values`, with columns mean, half.
    """
    half = values.std(ddof=1) * _half_of_unit(len(values))
    return pd.DataFrame({"mean": values.mean(), "half": half})


@cache
def _half_of_unit(n: int) -> float:
    """Half length of the 95 % interval of a mean over n seeds whose standard deviation is 1."""
    return Student(n, 0.0, 1.0).interval()[1]


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


def seed_scores(study: Study, experiment: str) -> pd.DataFrame:
    """Records of an experiment, one row a seed and setting, with columns value, gain and counted.

    Gain is over the last snapshot of the same seed and point. `counted` says whether the seed is one that the means
    of `scores` are over.

    Raises:
        Missing: when the experiment has no records.
    """
    table = study.records(experiment)
    factor = table["metric"].map({name: metric.factor for name, metric in METRICS.items()})
    sign = table["metric"].map({name: metric.sign for name, metric in METRICS.items()})
    last = table.loc[table["method"] == "last", [*_AT, "value"]].drop_duplicates(_AT)
    table = table.merge(last.rename(columns={"value": "last"}), on=_AT, how="left")
    table["gain"] = sign * (table["value"] - table.pop("last"))
    table[["value", "stderr", "gain"]] = table[["value", "stderr", "gain"]].mul(factor, axis=0)
    table["counted"] = table["seed"].isin(counted_seeds(table["seed"]))
    return table[[*_AT, *_SETTING, "value", "stderr", "gain", "counted", "experiment"]]


def scores(study: Study, experiment: str) -> pd.DataFrame:
    """Means over the counted seeds of an experiment: columns value, error, gain, gain_error, seeds, values, gains.

    Errors are half lengths of 95 % intervals: Student's t over the seeds where there are at least 2. With one seed they
    are 1.96 standard errors over items, a gain's from the paired differences. `values` and `gains` hold the numbers of
    every seed, by seed, exploratory ones too.

    Raises:
        Missing: when the experiment has no records.
    """
    every = seed_scores(study, experiment)
    table = every[every["counted"]]
    grouped = table.groupby(_KEYS)
    means = grouped.agg(
        value=("value", "mean"), error=("value", "std"), items=("stderr", "mean"),
        gain=("gain", "mean"), gain_error=("gain", "std"), seeds=("seed", "nunique"),
    ).reset_index()  # fmt: skip
    half, several = means["seeds"].map(_half_of_unit), means["seeds"] > 1
    means["error"] = (half * means["error"]).where(several, _Z95 * means.pop("items"))
    means["gain_error"] = half * means["gain_error"]
    if not several.all():
        means["gain_error"] = means["gain_error"].where(several, _Z95 * _paired(study, experiment, table, means))
    for column, of_seeds in _OF_SEEDS.items():
        means[of_seeds] = _by_seed(every, means, column)
    return means.assign(experiment=experiment)


def _by_seed(every: pd.DataFrame, means: pd.DataFrame, column: str) -> list[dict[int, float]]:
    """The numbers of each row's seeds."""
    found: dict[tuple, dict[int, float]] = {}
    for *key, seed, number in every[[*_KEYS, "seed", column]].itertuples(index=False):
        found.setdefault(tuple(key), {})[seed] = number
    return [found[key] for key in means[_KEYS].itertuples(index=False, name=None)]


def _paired(study: Study, experiment: str, table: pd.DataFrame, means: pd.DataFrame) -> pd.Series:
    """Standard errors over items of the gains in `means`, in their unit; NaN where items are not kept."""
    if not study.has(experiment, "items.parquet"):  # published records leave them out
        return pd.Series(np.nan, index=means.index)
    items = study.items(experiment)
    errors = paired_errors(items[items["seed"].isin(table["seed"])])
    paired = means[_KEYS].merge(errors.drop_duplicates(_KEYS), on=_KEYS, how="left")["paired"]
    return paired * means["metric"].map({name: metric.factor for name, metric in METRICS.items()})


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
    return chosen.sort_values("tokens", kind="stable") if "tokens" in chosen else chosen


def saved_over(rows: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    """Rows of `scores` with their gains replaced by what they save over others, seed by seed.

    Args:
        base: a row for each point (tokens) of `rows`, or a single one for all.
    """
    bases = base.set_index("tokens")["values"]
    gains, means, halves = [], [], []
    for row in rows.itertuples():
        other = bases.iloc[0] if len(bases) == 1 else bases.loc[row.tokens]
        sign = METRICS[row.metric].sign
        gain = {seed: sign * (value - other[seed]) for seed, value in row.values.items() if seed in other}
        counted = Student.of([gain[seed] for seed in counted_seeds(gain)])
        gains.append(gain)
        means.append(counted.mean)
        halves.append(counted.interval()[1] - counted.mean)
    return rows.assign(gain=means, gain_error=halves, gains=gains)


def of_seeds(column: str) -> str:
    """The column that holds the numbers of every seed of `value` or `gain`."""
    return _OF_SEEDS[column]


def error_of(column: str) -> str:
    """The column that holds the error of `value` or `gain`."""
    return _ERRORS[column]


def measure(study: Study, tasks: Iterable[str] = AXES) -> str:
    """The metric to draw of tasks: acc where every one's accuracy moves at this scale, else bits_per_byte."""
    ratios = study.signal_to_noise()
    moves = all(ratios.get((task, "acc"), 0) >= SIGNAL_TO_NOISE_MINIMUM for task in tasks)
    return "acc" if moves else "bits_per_byte"
