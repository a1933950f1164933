"""What the page says of the runs: seeds merged into one row, and into one line a curve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

import style
from drawing.curves import curve_panels
from drawing.description import Line, Panel
from formats import hours, listed, quantity
from records import Study

from pma.words import duration

_DASHES = ("-", "--", ":")


def seeds_by_run(folders: Iterable[str]) -> dict[str, list[int]]:
    """The seeds of each run, from the names of folders (RUN-seedN), in the order of the runs' names."""
    seeds: dict[str, list[int]] = {}
    for run, _, seed in (folder.rpartition("-seed") for folder in sorted(folders)):
        seeds.setdefault(run, []).append(int(seed))
    return {run: sorted(of_run) for run, of_run in seeds.items()}


def cost_text(study: Study) -> str:
    """What all records of a scale took, and what one seed of them takes."""
    runs, one = study.run_folders(), study.cost(study.experiments())
    return (
        f"{len(runs)} training runs, {len(seeds_by_run(runs))} kinds with seeds {listed(study.recorded_seeds())}: "
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


def run_curves(study: Study, folders: Sequence[str]) -> list[Panel]:
    """Curves of some runs (RUN-seedN), a line a run: the mean over its counted seeds.

    After seven runs the colours repeat, in dashes.
    """
    names = {}
    for run, seeds in seeds_by_run(folders).items():
        size = quantity(study.manifest(f"{run}-seed{seeds[0]}")["parameters"]["total"])
        names[run] = f"{run} ({size})"
    panels = []
    for panel in curve_panels(study, folders):
        lines = [
            replace(line, label=names[line.label], dash=_DASHES[i // len(style.COLORS) % len(_DASHES)])
            for i, line in enumerate(panel.series)
            if isinstance(line, Line)
        ]
        panels.append(replace(panel, series=tuple(lines)))
    return panels
