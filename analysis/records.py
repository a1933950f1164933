"""The one reader of records: what the runs and experiments of one scale left on disk."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pma.files import MANIFEST, complete_lines, read_manifest
from pma.records import read_records, signal_to_noise_table

ROOT = Path(__file__).resolve().parents[1]  # of the repository


class Missing(ValueError):
    """A record that a figure or a claim needs is not there."""


def experiment_order(name: str) -> tuple[int, str, int]:
    """Sort key of experiments: figures, then tables, then the others, each by name and number (9 before 10)."""
    kinds = ("figure_", "table_")
    rank = next((i for i, kind in enumerate(kinds) if name.startswith(kind)), len(kinds))
    stem, number = re.fullmatch(r"(.*?)(\d*)", name).groups()
    return rank, stem, int(number or 0)


def configured_experiments() -> list[str]:
    """Experiments that conf/experiment defines; a file that only includes others is none."""
    names = []
    for path in (ROOT / "conf" / "experiment").glob("*.yaml"):
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

    # ---- experiments

    def experiments(self) -> list[str]:
        """Experiments with finished records here, the paper's figures first."""
        folders = (path.parent.name for path in self.root.glob(f"*/{MANIFEST}"))
        return sorted((name for name in folders if "experiment" in self.manifest(name)), key=experiment_order)

    def manifest(self, folder: str) -> dict[str, Any]:
        """Manifest of an experiment, or of a run's folder (RUN-seedN).

        Raises:
            Missing: when there is none.
        """
        try:
            return read_manifest(self.root / folder)
        except ValueError as error:
            raise Missing(str(error)) from None

    def records(self, experiment: str) -> pd.DataFrame:
        """Records of an experiment, one row a score.

        Raises:
            Missing: when there are none.
        """
        return self._table(self.file(experiment, "records.csv"), read_records)

    def items(self, experiment: str) -> pd.DataFrame:
        """Values of an experiment's single items: one row a model, task and metric, a list in column `values`.

        Raises:
            Missing: when there are none.
        """
        return self._table(self.file(experiment, "items.parquet"), pd.read_parquet)

    def measurement(self, experiment: str, name: str) -> pd.DataFrame:
        """A measurement's table (landscape, curvature_terms, curvature_losses) beside an experiment's records.

        Raises:
            Missing: when it is not there.
        """
        return self._table(self.file(experiment, f"{name}.csv"), pd.read_csv)

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
        """Seconds that experiments took: training, as if one run after the other, and scoring.

        A run that several of them share counts once. NaN where a manifest is missing.
        """
        try:
            manifests = [self.manifest(experiment) for experiment in experiments]
            runs = sorted({run for manifest in manifests for run in manifest["runs"]})
            return float(sum(m["seconds"] for m in [*manifests, *(self.manifest(run) for run in runs)]))
        except (Missing, KeyError):
            return float("nan")

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
        """
        path = self.file(self.run_folder(run, seed), "config.yaml")
        if path not in self._configs:  # parsing is slow, and every figure asks for sizes
            self._configs[path] = yaml.safe_load(path.read_text(encoding="utf-8"))
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
        """
        lines = complete_lines(self.file(self.run_folder(run, seed), "metrics.jsonl"))
        return pd.DataFrame(map(json.loads, lines))
