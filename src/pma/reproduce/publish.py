"""Publish an experiment's records, values of single items and manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pma.files import write_json
from pma.json_files import MANIFEST
from pma.records import (
    SIGNAL_TO_NOISE_MINIMUM,
    Items,
    Record,
    read_records,
    signal_to_noise_table,
    write_items,
    write_records,
)
from pma.reproduce.experiment import RunSeed, definition
from pma.reproduce.progress import stamp
from pma.reproduce.runs import runs_of
from pma.reproduce.score import ScoredRun
from pma.run import identity, run_folder
from pma.words import wrapped


def records_of(
    job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig], scored: list[ScoredRun]
) -> tuple[list[Record], list[Items]]:
    """Return the records of an experiment and the values of single items, in the order of the scores."""
    records: list[Record] = []
    items: list[Items] = []
    for of_run in scored:
        run, seed, suite = of_run.merges.run, of_run.merges.seed, of_run.merges.suite
        experiment_keys: dict[str, Any] = {
            "scale": job.scale.name,
            "experiment": experiment.name,
            "config_hash": identity(configs[run, seed]),
        }
        for recipe, scores, values in of_run.scores:
            merge: dict[str, Any] = {
                "run": run,
                "seed": seed,
                "tokens": recipe.end,
                "method": recipe.name,
                "n": recipe.n,
            }
            merge |= {"interval": recipe.interval, "suite": suite}
            records += [
                Record(**experiment_keys, **merge, task=s.task, metric=s.metric, value=s.value, stderr=s.stderr)
                for s in scores
            ]
            items += [Items(**merge, task=task, metric=metric, values=v) for (task, metric), v in values.items()]
    return records, items


def write_scores(folder: Path, records: list[Record], items: list[Items]) -> None:
    """Write records.csv and items.parquet; nothing for an experiment that scores no merges."""
    if records:
        write_records(folder / "records.csv", records)
        write_items(folder / "items.parquet", items)


def write_manifest(
    job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig], folder: Path, seconds: float
) -> None:
    """Write the manifest, which makes the records count as done: after all other files. `seconds` were of scoring."""
    now = stamp(job, experiment, configs)
    assert now is not None, "records of runs that are not trained"
    manifest = {
        "stamp": now,
        "experiment": definition(experiment),
        "runs": {run_folder(configs[key]).name: identity(configs[key]) for key in runs_of(job, experiment)},
        "merge_interval": job.scale.merge_interval,
        "seconds": round(seconds, 1),
    }
    write_json(folder / MANIFEST, manifest)


def print_signal_to_noise(records: Path) -> None:
    """Print by task and metric whether the scores of a run rise over training by more than they scatter."""
    table = signal_to_noise_table(read_records(records))
    moves = table["signal_to_noise"] >= SIGNAL_TO_NOISE_MINIMUM
    still = [f"{row.task} {row.metric}" for row in table[~moves].itertuples()]
    print(
        f"signal to noise (rise of a score over training, divided by its scatter between the last snapshots): "
        f"{moves.sum()} of {len(moves)} scores reach {SIGNAL_TO_NOISE_MINIMUM:g}"
    )
    if still:
        print(wrapped("  too noisy to compare models at this scale:", still))
