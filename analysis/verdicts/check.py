"""What is wrong with records before anything is judged from them: one line each, which and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from formats import seeds_words
from records import Study, seed_of

from verdicts.evidence.scores import SUITE
from verdicts.rules import Rules

_KEYS = ["run", "seed", "tokens", "method", "n", "interval", "suite", "task", "metric"]
_NEEDED = {("heldout", "bits_per_byte"): "held-out text", ("average", "choice"): "choice"}  # of suite proxy


def check(study: Study, rules: Rules) -> list[str]:
    """Look through the records of every experiment that a claim names.

    Returns:
        Lines about seeds that are missing: what is there can be judged without them.

    Raises:
        ValueError: when records are of the first protocol, or hold a seed twice.
    """
    experiments = [name for name in study.experiments() if name in rules.experiments]
    lacking = {name: why for name in experiments if (why := _first_protocol(study, name))}
    if lacking:
        name, why = next(iter(lacking.items()))
        others = f" and {len(lacking) - 1} others" if len(lacking) > 1 else ""
        raise ValueError(
            f"{study.root}: records of the first protocol, {name} ({why}){others}; "
            f"make reproduce SCALE={study.scale} makes them anew"
        )
    for name in experiments:
        _refuse_twice(study, name)
    return _gaps({name: list(study.manifest(name)["runs"]) for name in experiments}, rules, study.scale)


def _first_protocol(study: Study, experiment: str) -> str:
    """What records of the second protocol hold and these lack; empty where nothing lacks."""
    if study.has(experiment, "records.csv"):
        table = study.records(experiment)
        scored = set(table.loc[table["suite"] == SUITE, ["task", "metric"]].itertuples(index=False, name=None))
        for score, name in _NEEDED.items():
            if score not in scored:
                return f"no {name}"
    for path in sorted((study.root / experiment).glob("*.csv")):
        if path.stem != "records" and "seed" not in study.measurement(experiment, path.stem):
            return f"no seeds in {path.name}"
    return ""


def _refuse_twice(study: Study, experiment: str) -> None:
    if not study.has(experiment, "records.csv"):
        return
    table = study.records(experiment)
    twice = table[table.duplicated(_KEYS)]
    if not twice.empty:
        row: pd.Series = twice.iloc[0]
        raise ValueError(
            f"{study.file(experiment, 'records.csv')}: {row['run']} seed {row['seed']} stands there twice, at "
            f"{row['tokens']} tokens; remove the folder and make reproduce-{experiment.replace('_', '-')} again"
        )


def _gaps(folders: Mapping[str, Sequence[str]], rules: Rules, scale: str) -> list[str]:
    """Seeds that an experiment, or a run of it, lacks and others have."""
    every = {seed_of(folder) for of_one in folders.values() for folder in of_one}
    lines = []
    for experiment, of_one in folders.items():
        by_run: dict[str, set[int]] = {}
        for folder in of_one:
            by_run.setdefault(folder.rpartition("-seed")[0], set()).add(seed_of(folder))
        wanted = every & rules.seeds_of(experiment)
        lacking = {run: sorted(wanted - seeds) for run, seeds in by_run.items() if wanted - seeds}
        if lacking:
            run, seeds = next(iter(lacking.items()))
            which = experiment if len(lacking) == len(by_run) else f"{experiment}, run {run},"
            target = f"make reproduce-{experiment.replace('_', '-')} SCALE={scale}"
            lines.append(
                f"{which} lacks {seeds_words(seeds)}, which other records have: its claims are judged without; "
                f"{target} SEEDS={','.join(map(str, sorted(every)))} adds it"
            )
    return lines
