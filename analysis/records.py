"""The one reader of records: what the runs and experiments of one scale left on disk."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Sequence
from math import fsum
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import yaml
from whole import (
    read_config,
    read_items,
    read_measurement,
    whole_curve,
    whole_mapping,
    whole_measurement,
    whole_records,
)

from pma.json_files import MANIFEST, read_manifest, read_rows
from pma.records import read_records, signal_to_noise_table

ROOT = Path(__file__).resolve().parents[1]  # of the repository
_EXPERIMENTS = ROOT / "conf" / "experiment"
_OPEN = yaml.safe_load((_EXPERIMENTS / "beyond.yaml").read_text(encoding="utf-8"))["includes"]
# Experiments on what the paper left open, in their order; `make reproduce` leaves them to `make reproduce-beyond`.
OPEN_EXPERIMENTS = tuple(name.rpartition("/")[2] for name in _OPEN)
_JOBS = 2  # runs that train at a time, as in the Makefile


class Missing(ValueError):
    """A record that a figure or a claim needs is not there."""


def experiment_order(name: str) -> tuple[int, str, int]:
    """Sort key of experiments: figures, tables, others, by name and number (9 before 10); then what is left open."""
    kinds = ("figure_", "table_")
    if name in OPEN_EXPERIMENTS:
        return len(kinds) + 1, "", OPEN_EXPERIMENTS.index(name)
    rank = next((i for i, kind in enumerate(kinds) if name.startswith(kind)), len(kinds))
    stem, number = re.fullmatch(r"(.*?)(\d*)", name).groups()
    return rank, stem, int(number or 0)


def seed_of(folder: str) -> int:
    """The seed of a run's folder, RUN-seedN."""
    return int(folder.rpartition("-seed")[2])


def configured_experiments() -> list[str]:
    """Experiments that conf/experiment defines; a file that only includes others is none."""
    names = []
    for path in _EXPERIMENTS.rglob("*.yaml"):
        if "includes" not in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}):
            names.append(path.stem)
    return sorted(names, key=experiment_order)


class Study:
    """Records of one scale, read from disk. It trains, merges and scores nothing.

    Args:
        root: runs/SCALE or runs/SCALE/published: one folder an experiment (records.csv, items.parquet), one folder a
            run and seed (config.yaml, metrics.jsonl), each with manifest.json.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tables: dict[Path, pd.DataFrame] = {}
        self._configs: dict[Path, dict[str, Any]] = {}
        self._parents: dict[str, str | None] = {}

    @property
    def scale(self) -> str:
        """Name of the scale."""
        return self.root.parent.name if self.root.name == "published" else self.root.name

    def has(self, folder: str, name: str) -> bool:
        """Whether a file of an experiment or a run is there."""
        return (self.root / folder / name).is_file()

    def file(self, folder: str, name: str) -> Path:
        """Path of a file of an experiment or a run.

        Raises:
            Missing: when it is not there.
        """
        path = self.root / folder / name
        if not path.is_file():
            raise Missing(
                f"{path}: not there; python -m pma.reproduce scale={self.scale} experiment=NAME writes the records of "
                "an experiment and of its runs"
            )
        return path

    def _table(self, path: Path, read: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
        if path not in self._tables:
            self._tables[path] = read(path)
        return self._tables[path].copy()

    def _manifest(self, folder: str) -> dict[str, Any]:
        """Manifest of a folder, empty where there is none."""
        return self.manifest(folder) if self.has(folder, MANIFEST) else {}

    # ---- experiments

    def experiments(self) -> list[str]:
        """Experiments with finished records here, the paper's figures first."""
        folders = (path.parent.name for path in self.root.glob(f"*/{MANIFEST}"))
        return sorted((name for name in folders if "experiment" in self.manifest(name)), key=experiment_order)

    def recorded_seeds(self, experiments: Iterable[str] | None = None) -> list[int]:
        """Seeds that the records of some experiment are about.

        Args:
            experiments: of these; None for all that have records.
        """
        names = self.experiments() if experiments is None else experiments
        return sorted({seed_of(folder) for name in names for folder in self.manifest(name)["runs"]})

    def manifest(self, folder: str) -> dict[str, Any]:
        """Manifest of an experiment, or of a run's folder (RUN-seedN).

        Raises:
            Missing: when there is none.
            ValueError: for a damaged one; also when it lacks what is then looked up in it.
        """
        if not (self.root / folder / MANIFEST).is_file():
            raise Missing(f"{self.root / folder}: no {MANIFEST} there; make the records again")
        manifest = read_manifest(self.root / folder)
        return whole_mapping(manifest, self.root / folder / MANIFEST)

    def records(self, experiment: str) -> pd.DataFrame:
        """Records of an experiment, one row a score.

        Raises:
            Missing: when there are none.
            ValueError: when the file is damaged, or not whole.
        """
        path = self.file(experiment, "records.csv")
        return self._table(path, lambda path: whole_records(read_records(path), self._manifest(experiment), path))

    def items(self, experiment: str) -> pd.DataFrame:
        """Values of an experiment's single items: one row a model, task and metric, a list in column `values`.

        Raises:
            Missing: when there are none.
        """
        return self._table(self.file(experiment, "items.parquet"), read_items)

    def item_counts(self, experiment: str) -> pd.DataFrame:
        """How many items each task of an experiment has: columns suite, task, items.

        Published records keep these numbers in the manifest instead of the items' values.

        Raises:
            Missing: when there are neither.
        """
        columns = ["suite", "task", "items"]
        if (kept := self.manifest(experiment).get("items")) is not None:
            return pd.DataFrame(kept, columns=columns)
        first = self.items(experiment).drop_duplicates(["suite", "task"])
        return first.assign(items=first["values"].map(len))[columns]

    def measurement(self, experiment: str, name: str) -> pd.DataFrame:
        """A measurement's table (landscape, curvature_terms, curvature_losses) beside an experiment's records.

        Raises:
            Missing: when it is not there.
        """
        path = self.file(experiment, f"{name}.csv")
        return self._table(
            path, lambda path: whole_measurement(read_measurement(path), self._manifest(experiment), path)
        )

    def signal_to_noise(self) -> dict[tuple[str, str], float]:
        """Signal to noise by (task, metric), from the main run's snapshots of Figure 4, or of Figure 5, the same ones.

        One rule for all figures and claims. Empty where neither experiment has records.
        """
        for experiment in ("figure_4", "figure_5"):
            if self.has(experiment, "records.csv"):
                ratios = signal_to_noise_table(self.records(experiment))
                return ratios.set_index(["task", "metric"])["signal_to_noise"].to_dict()
        return {}

    def cost(self, experiments: Sequence[str]) -> float:
        """Wall-clock seconds that one seed of experiments takes on 2 cores: the kind of cost that every document names.

        Training, two runs at a time, then scoring. Training takes half of what its runs took one by one, but at least
        the longest chain of runs that start from each other. Runs that the experiments' own runs start from are part of
        it, and a run that several share counts once. Training: the median over the seeds, for some trained beside
        other work, or were held up; scoring: the mean. NaN where a manifest is missing.
        """
        try:
            manifests = [self.manifest(experiment) for experiment in experiments]
            folders = {folder for manifest in manifests for folder in manifest["runs"]}
            seeds = {seed_of(folder) for folder in folders}
            training = median(self._training({f for f in folders if seed_of(f) == seed}) for seed in seeds)
            scoring = fsum(m["seconds"] / len({seed_of(run) for run in m["runs"]}) for m in manifests)
            return float(training + scoring)
        except ValueError:
            return float("nan")

    def _training(self, folders: Iterable[str]) -> float:
        """Wall-clock seconds of training runs and those that they start from."""
        seconds: dict[str, float] = {}  # of a run alone
        done: dict[str, float] = {}  # when it would be done if no run waited for a core

        def train(folder: str) -> float:
            if folder not in done:
                parent = self._parent(folder)
                seconds[folder] = self.manifest(folder)["seconds"]
                done[folder] = seconds[folder] + (train(parent) if parent else 0.0)
            return done[folder]

        longest = max(map(train, folders))
        return max(longest, fsum(seconds.values()) / _JOBS)  # fsum: the same bits in any order

    def _parent(self, folder: str) -> str | None:
        """The folder of the run that a run starts from, of the same seed; None where it starts from scratch."""
        run, _, seed = folder.rpartition("-seed")
        if run not in self._parents:  # parsing a config is slow, and a run's seeds differ in nothing but the seed
            kept = self.has(folder, "config.yaml")
            init = self.config(run, int(seed)).get("init", {}) if kept else {}
            self._parents[run] = init.get("parent", {}).get("run")
        parent = self._parents[run]
        return f"{parent}-seed{seed}" if parent else None

    def training_seconds(self) -> float:
        """Seconds that all finished runs took, as if one after the other."""
        return float(sum(self.manifest(folder)["seconds"] for folder in self.run_folders()))

    def scoring_seconds(self) -> float:
        """Seconds of merging and scoring of all experiments."""
        return float(sum(self.manifest(name)["seconds"] for name in self.experiments()))

    # ---- runs

    def run_folders(self) -> list[str]:
        """Folders of the finished runs, RUN-seedN."""
        return sorted(path.parent.name for path in self.root.glob(f"*-seed*/{MANIFEST}"))

    def seeds(self, run: str) -> list[int]:
        """Seeds that a run was trained with."""
        prefix = f"{run}-seed"
        return sorted(int(path.name.removeprefix(prefix)) for path in self.root.glob(f"{prefix}*"))

    def run_folder(self, run: str, seed: int | None = None) -> str:
        """Folder of a run, RUN-seedN; of its first seed if none is given."""
        return f"{run}-seed{next(iter(self.seeds(run)), 0) if seed is None else seed}"

    def config(self, run: str, seed: int | None = None) -> dict[str, Any]:
        """Resolved config of a run; of its first seed if none is given.

        Raises:
            Missing: when it is not there.
            ValueError: for a damaged one; also when it lacks what is then looked up in it.
        """
        path = self.file(self.run_folder(run, seed), "config.yaml")
        if path not in self._configs:  # parsing is slow, and every figure asks for sizes
            self._configs[path] = read_config(path)
        return copy.deepcopy(self._configs[path])

    def parameters(self, run: str) -> int:
        """Total parameters of a run's model.

        Raises:
            Missing: when the run's manifest is not there.
        """
        return self.manifest(self.run_folder(run))["parameters"]["total"]

    def curve(self, run: str, seed: int | None = None) -> pd.DataFrame:
        """Logged steps of a run: tokens, loss, lr, gradient_norm and others; of its first seed if none is given.

        Raises:
            Missing: when they are not there.
            ValueError: for a damaged file, or one that ends before the run did.
        """
        folder = self.run_folder(run, seed)
        path = self.file(folder, "metrics.jsonl")
        return whole_curve(pd.DataFrame(read_rows(path, tokens=int)), self._manifest(folder).get("tokens", 0), path)
