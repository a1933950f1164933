"""Whether your records of a seed are the published ones, to the last bit."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd
from formats import seeds_words
from records import Study, experiment_order, seed_of

from pma.words import experiment_title, wrapped

SAME, OTHER_BITS, OTHER_ROWS = "same bits", "other bits", "other rows"
_CURVE = ["tokens", "loss", "lr", "gradient_norm"]  # of a run's curve; its other columns are times


def bits_lines(own: Study, published: Study) -> list[str]:
    """For every experiment of yours, whether its records of the seeds that are published too have the same bits."""
    seeds = own.recorded_seeds()
    both = {
        name: sorted(set(own.recorded_seeds([name])) & set(published.recorded_seeds([name])))
        for name in sorted(set(own.experiments()) & set(published.experiments()), key=experiment_order)
    }
    if not any(both.values()):
        return [f"Nothing is published of {seeds_words(seeds)}, so there are no bits to compare."]
    names: dict[str, list[str]] = {}
    for name in filter(both.get, both):
        names.setdefault(compared(own, published, name, both[name]), []).append(experiment_title(name))
    of = f"the published records of {seeds_words(sorted(set().union(*both.values())))}"
    words = {
        SAME: f"Same bits as {of}:",
        OTHER_BITS: f"Other bits than {of} (another processor: see dev/LOG.md):",
        OTHER_ROWS: f"Other runs or points than {of} (another config or version of the code):",
    }
    return [wrapped(text, names[found]) for found, text in words.items() if found in names]


def compared(own: Study, published: Study, experiment: str, seeds: Collection[int]) -> str:
    """What an experiment recorded of some seeds beside what was published: same bits, other bits, or other rows.

    Its scores and measurements; of an experiment that has neither, the curves of its runs.
    """
    theirs, ours = (_tables(study, experiment, seeds) for study in (published, own))
    if theirs.keys() != ours.keys():
        return OTHER_ROWS
    found = [_compared(theirs[name], ours[name]) for name in theirs]
    return next((kind for kind in (OTHER_ROWS, OTHER_BITS) if kind in found), SAME)


def _tables(study: Study, experiment: str, seeds: Collection[int]) -> dict[str, pd.DataFrame]:
    names = sorted(path.stem for path in (study.root / experiment).glob("*.csv"))
    tables = {n: study.records(experiment) if n == "records" else study.measurement(experiment, n) for n in names}
    if tables:
        return {name: table[table["seed"].isin(seeds)].reset_index(drop=True) for name, table in tables.items()}
    folders: Sequence[str] = [run for run in study.manifest(experiment)["runs"] if seed_of(run) in seeds]
    return {folder: study.curve(*_run(folder))[_CURVE] for folder in folders}


def _run(folder: str) -> tuple[str, int]:
    return folder.rpartition("-seed")[0], seed_of(folder)


def _compared(published: pd.DataFrame, own: pd.DataFrame) -> str:
    numbers = list(published.select_dtypes("float").columns)
    if list(own) != list(published) or not own.drop(columns=numbers).equals(published.drop(columns=numbers)):
        return OTHER_ROWS
    return SAME if own[numbers].astype(float).equals(published[numbers]) else OTHER_BITS
