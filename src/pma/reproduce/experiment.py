"""Plan experiments: which there are, in which order, and which merges each scores. Nothing is read but conf/."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from pma.config import CONF_DIR
from pma.reproduce.job import MeasurementConfig, PartConfig

RunSeed = tuple[str, int]  # a run's name in conf/run, and its seed
EVERYTHING = "*"  # in `includes`: every file of conf/experiment


@dataclass(frozen=True)
class Recipe:
    """A merge of snapshots of one run, or of several runs' at the same point; `interval` and `end` are in tokens."""

    method: str  # one of pma.reproduce.job.METHODS
    n: int
    interval: int
    end: int
    alpha: float | None = None
    others: tuple[str, ...] = ()  # runs of the same seed; then n counts them and the run itself, and interval is 0

    @property
    def name(self) -> str:
        """The method as records spell it, such as `sma` or `ema_0.1`."""
        return self.method if self.alpha is None else f"{self.method}_{self.alpha:g}"

    @property
    def window(self) -> list[int]:
        """Positions of the merged snapshots in tokens, newest first."""
        return [self.end - i * self.interval for i in range(self.n)]


@dataclass(frozen=True)
class RunMerges:
    """The merges of one run that one suite scores."""

    run: str
    seed: int
    suite: str
    recipes: tuple[Recipe, ...]


# ---- which experiments -----------------------------------------------------------------------------------------------


def expand(job: DictConfig) -> list[DictConfig]:
    """Return the experiment of the job, or those that it includes; `*` includes every file of conf/experiment."""
    names = list(job.experiment.includes)
    if not names:
        return [job.experiment]
    return all_experiments() if names == [EVERYTHING] else [copy.deepcopy(_experiment(name)) for name in names]


def all_experiments() -> list[DictConfig]:
    """Return every experiment of conf/experiment, in the order of `in_order`. Subfolders do not count.

    Raises:
        ValueError: for an experiment that is not named like its file: its records would lie among another's.
    """
    experiments = []
    for path in sorted((CONF_DIR / "experiment").glob("*.yaml")):
        experiment = copy.deepcopy(_experiment(path.stem))
        if experiment.name != path.stem:
            raise ValueError(f"{path}: name={experiment.name}: give the name of the file, name: {path.stem}")
        if not experiment.includes:
            experiments.append(experiment)
    return in_order(experiments)


def in_order(experiments: Iterable[DictConfig]) -> list[DictConfig]:
    """Sort experiments: figures by number, tables by number, then the others by name; then move those with `after`.

    The order decides which experiment a shared run counts for.

    Raises:
        ValueError: when `after` names no experiment.
    """

    def place(experiment: DictConfig) -> tuple[int, int, str]:
        kind, _, number = experiment.name.partition("_")
        numbered = kind in ("figure", "table") and number.isdigit()
        return (("figure", "table").index(kind), int(number), "") if numbered else (2, 0, experiment.name)

    ordered = sorted(experiments, key=place)
    for experiment in [experiment for experiment in ordered if experiment.after is not None]:
        ordered.remove(experiment)
        names = [other.name for other in ordered]
        if experiment.after not in names:
            raise ValueError(f"experiment {experiment.name}: after={experiment.after}: choose of {', '.join(names)}")
        ordered.insert(names.index(experiment.after) + 1, experiment)
    return ordered


@cache
def _experiment(name: str) -> DictConfig:
    return compose("reproduce", [f"experiment={name}"]).experiment  # takes Hydra a tenth of a second


def definition(experiment: DictConfig) -> dict[str, Any]:
    """Return all of an experiment's file but its place among the others."""
    values: Any = OmegaConf.to_container(experiment, resolve=True)
    for recipe in (recipe for part in values["parts"] for recipe in part["recipes"]):
        if not recipe["others"]:  # an option that came later: experiments without it are those of before
            del recipe["others"]
    return {key: value for key, value in values.items() if key != "after"}


def deciding(experiment: DictConfig) -> dict[str, Any]:
    """Return what decides an experiment's records: not its title, its place or its claims."""
    return {key: value for key, value in definition(experiment).items() if key not in ("title", "claims")}


# ---- which merges ----------------------------------------------------------------------------------------------------


def recipes(part: PartConfig | DictConfig, merge_interval: int) -> list[Recipe]:
    """Return the merges that a part scores of each of its runs, each once, ordered by end.

    Example: points [25.5], n 10, interval 0.5 and a merge interval V of 512 tokens give end 13056, interval 256.
    """
    listed = [
        Recipe(
            r.method,
            r.n + len(r.others),
            0 if r.others else round(r.interval * merge_interval),
            round(point * merge_interval),
            r.alpha,
            tuple(r.others),
        )
        for point in part.points
        for r in part.recipes
        if r.points is None or point in r.points
    ]
    last = max((recipe.end for recipe in listed), default=0)
    listed += [Recipe("last", 1, merge_interval, last - i * merge_interval) for i in range(part.noise_points)]
    return sorted(dict.fromkeys(listed), key=lambda recipe: recipe.end)


def measured_windows(measurement: MeasurementConfig | DictConfig, merge_interval: int) -> list[Recipe]:
    """Return the windows of a measurement. A landscape looks at its own, and at as many snapshots just before it."""
    end = round(measurement.end * merge_interval)
    windows = [Recipe("sma", w.n, round(w.interval * merge_interval), end) for w in measurement.windows]
    if measurement.kind == "landscape":
        window = windows[0]
        windows.append(Recipe("sma", window.n, window.interval, end - window.n * window.interval))
    return windows


Merged = tuple[str, int, str, Recipe]  # run, seed and suite of a merge


def merges_of(
    job: DictConfig, experiments: Iterable[DictConfig], seen: set[Merged] | None = None
) -> Iterator[RunMerges]:
    """Yield the merges that experiments score, each merge once, in the order of the records.

    Those in `seen` are left out, and the others are added to it.
    """
    seen = set() if seen is None else seen
    for part in (part for experiment in experiments for part in experiment.parts):
        suite = job.scale.suite or part.suite
        for run in part.runs if part.points else []:
            for seed in job.seeds:
                merges = recipes(part, job.scale.merge_interval)
                new = tuple(recipe for recipe in merges if (run, seed, suite, recipe) not in seen)
                yield RunMerges(run, seed, suite, new)
                seen.update((run, seed, suite, recipe) for recipe in merges)
