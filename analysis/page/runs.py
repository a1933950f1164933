"""What the page says of the runs: seeds merged into one row, and into one line a curve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd
import style
from drawing.curves import CURVES
from drawing.description import Line, Panel
from drawing.scores import counted_seeds
from formats import hours, listed, quantity
from records import Study

from pma.words import duration

_DASHES = ("-", "--", ":")
_FROM_ZERO = ("lr", "gradient_norm")


def seeds_by_run(folders: Iterable[str]) -> dict[str, list[int]]:
    """The seeds of each run, from the names of folders (RUN-seedN), in the order of the runs' names."""
    seeds: dict[str, list[int]] = {}
    for run, _, seed in (folder.rpartition("-seed") for folder in sorted(folders)):
        seeds.setdefault(run, []).append(int(seed))
    return {run: sorted(of_run) for run, of_run in seeds.items()}


def cost_text(study: Study) -> str:
    """What all records of a scale took, and what one seed of them takes."""
    folders = study.run_folders()
    runs = seeds_by_run(folders)
    seeds = {seed for of_run in runs.values() for seed in of_run}
    one = study.cost(study.experiments())
    return (
        f"{len(folders)} training runs, {len(runs)} kinds with seeds {listed(seeds)}: "
        f"{hours(study.training_seconds())} of training, one core each, and {hours(study.scoring_seconds())} of "
        f"merging and scoring on two. One seed of all of it takes {duration(one)} on 2 cores."
    )


def run_rows(study: Study) -> list[dict[str, Any]]:
    """One row a run, its seeds together, for the table of costs."""
    rows = []
    for run, seeds in seeds_by_run(study.run_folders()).items():
        manifests = [study.manifest(f"{run}-seed{seed}") for seed in seeds]
        counts = manifests[0]["parameters"]
        rows.append(
            {
                "scale": study.scale,
                "name": run,
                "seeds": listed(seeds),
                "parameters": f"{quantity(counts['total'])} ({quantity(counts['active'])})",
                "tokens": f"{manifests[0]['tokens']:,}",
                "minutes": f"{mean(manifest['seconds'] for manifest in manifests) / 60:.1f}",
                "device": ", ".join(sorted({manifest["device"] for manifest in manifests})),
            }
        )
    return rows


def mean_curve(study: Study, run: str, seeds: Sequence[int]) -> pd.DataFrame:
    """A run's curve over tokens, mean over seeds, as far as all of them go; empty where none of them has one."""
    there = [seed for seed in seeds if study.has(f"{run}-seed{seed}", "metrics.jsonl")]
    if not there:
        return pd.DataFrame(columns=["tokens"])
    every = pd.concat([study.curve(run, seed) for seed in there]).groupby("tokens")
    means = every.mean(numeric_only=True)[every.size() == len(there)]
    return means.reset_index()


def mean_curves(study: Study, folders: Iterable[str]) -> list[Panel]:
    """Loss, learning rate, gradient norm and speed over tokens, a line a run: the mean over the counted seeds.

    After seven runs the colours repeat, in dashes.
    """
    curves, names = {}, {}
    for run, seeds in seeds_by_run(folders).items():
        counted = counted_seeds(seeds)
        size = quantity(study.manifest(f"{run}-seed{seeds[0]}")["parameters"]["total"])
        names[run] = f"{run} ({size}, {'seed' if len(counted) == 1 else 'seeds'} {listed(counted)})"
        curves[run] = mean_curve(study, run, counted)
    panels = []
    for column, label in CURVES.items():
        drawn = [run for run, curve in curves.items() if column in curve and curve[column].notna().any()]
        # Half the bytes on the page; no eye sees the difference.
        lines = tuple(
            Line(
                names[run],
                style.color(i),
                *(curves[run][axis].to_numpy(np.float32) for axis in ("tokens", column)),
                dash=_DASHES[i // len(style.COLORS) % len(_DASHES)],
            )
            for i, run in enumerate(drawn)
        )
        if lines:
            bottom = 0.0 if column in _FROM_ZERO else None
            panels.append(Panel(label, "training tokens", label, lines, tokens=True, ylim=(bottom, None)))
    return panels
