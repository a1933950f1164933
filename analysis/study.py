"""What was recorded at one scale, as the claims read it: resampled scores, curves, manifests. Trains nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from resampling import Statistic, weights

from pma.files import MANIFEST, read_manifest
from pma.records import SIGNAL_TO_NOISE_MINIMUM, read_records, signal_to_noise_table

BITS, ACCURACY = "bits_per_byte", "acc"
Column = tuple[str, str]  # suite, task


class Missing(Exception):
    """A record that a claim needs is not there."""


class NotTestable(Exception):
    """The records are there but lack what the claim speaks of."""


@dataclass(frozen=True, order=True)
class Model:
    """A merge, or a single snapshot (method last, n = 1, interval 0); tokens are trajectory positions."""

    run: str
    tokens: int
    method: str = "last"
    n: int = 1
    interval: int = 0  # tokens


class Study:
    """Records below `root` (runs/SCALE or runs/SCALE/published).

    Args:
        root: folder with one folder an experiment and one a run.
        common: alpha, draws and seed, from claims.yaml.
    """

    def __init__(self, root: Path, common: dict[str, Any]) -> None:
        self.root, self.common = root, common
        self._weights: dict[tuple[int, str], Statistic] = {}
        self._means: dict[tuple[tuple[Column, ...], str], tuple[dict[Model, dict[int, int]], Statistic]] = {}

    # ---- scores

    @cached_property
    def _items(self) -> pd.DataFrame:
        """items.parquet of every experiment, axes only; single snapshots have n = 1 and interval 0."""
        paths = sorted(self.root.glob("*/items.parquet"))
        if not paths:
            raise Missing(f"no items.parquet below {self.root.name}")
        table = pd.concat([pd.read_parquet(path).assign(experiment=path.parent.name) for path in paths])
        table = table[~table["task"].str.startswith("heldout")]
        table.loc[table["method"] == "last", ["n", "interval"]] = [1, 0]
        return table

    @cached_property
    def _values(self) -> pd.DataFrame:
        # (model, seed) by (suite, task, metric); a merge that two experiments scored counts once.
        keys = ["run", "tokens", "method", "n", "interval", "seed"]
        table = self._items.drop_duplicates([*keys, "suite", "task", "metric"])
        return table.pivot(index=keys, columns=["suite", "task", "metric"], values="values").sort_index()

    def axes(self, suite: str) -> list[Column]:
        """The axes of a suite: its tasks that have an accuracy."""
        columns = self._values.columns
        return sorted({(s, task) for s, task, metric in columns if s == suite and metric == ACCURACY})

    def _resampled(self, columns: tuple[Column, ...], metric: str) -> tuple[dict[Model, dict[int, int]], Statistic]:
        """Means over `columns` of every model that has them all: its column by seed, and (1 + draws, columns)."""
        if (columns, metric) not in self._means:
            wanted = [(*column, metric) for column in columns]
            if any(column not in self._values.columns for column in wanted):
                raise Missing(f"no {metric} of {', '.join('/'.join(c) for c in columns)}")
            values = self._values[wanted].dropna()
            total: Any = 0.0
            for suite, task, _ in wanted:
                lists = values[suite, task, metric].to_list()
                if len({len(of_model) for of_model in lists}) > 1:
                    raise ValueError(f"{self.root}: {suite}/{task} has other items in other records; make them again")
                total = total + self._draw(len(lists[0]), f"items {suite} {task}") @ np.stack(lists).T.astype(float)
            at: dict[Model, dict[int, int]] = {}
            for column, (*model, seed) in enumerate(values.index):
                at.setdefault(Model(*model), {})[seed] = column
            self._means[columns, metric] = at, np.round(total / len(wanted), 9)
        return self._means[columns, metric]

    def _draw(self, count: int, key: str) -> Statistic:
        if (count, key) not in self._weights:
            self._weights[count, key] = weights(count, self.common["draws"], self.common["seed"], key)
        return self._weights[count, key]

    def seeds(self, models: Sequence[Model], columns: Sequence[Column] | None = None) -> list[int]:
        """Seeds that all `models` were scored with.

        Raises:
            Missing: naming the model, when there is none.
        """
        at, _ = self._resampled(tuple(columns or self.axes("proxy")), BITS)
        common = set(at.get(models[0], ()))
        for m in models:
            common &= set(at.get(m, ()))
            if not common:
                raise Missing(f"no scores of {m.run} at {m.tokens:,} tokens, {m.method} N = {m.n}")
        return sorted(common)

    def scores(
        self, models: Sequence[Model], metric: str = BITS, columns: Sequence[Column] | None = None
    ) -> list[Statistic]:
        """Mean score over axes of models of one trunk (a run and its forks), over the seeds they have in common.

        The same items and the same seeds are resampled for all of them, so that differences are paired.
        """
        columns = tuple(columns or self.axes("proxy"))
        seeds = self.seeds(models, columns)
        at, means = self._resampled(columns, metric)
        weight = self._draw(len(seeds), f"seeds {models[0].run}")
        if (count := len(seeds)) > 1:  # resampling few understates their variance by (count - 1) / count
            weight = 1 / count + np.sqrt(count / (count - 1)) * (weight - 1 / count)
        return [np.round((weight * means[:, [at[m][seed] for seed in seeds]]).sum(axis=1), 9) for m in models]

    def items(self, columns: Sequence[Column] | None = None) -> int:
        """Items behind one score."""
        columns = columns or self.axes("proxy")
        return sum(len(self._values[(*column, BITS)].dropna().iloc[0]) for column in columns)

    def models(self, experiment: str, run: str) -> list[Model]:
        """Models of one run that an experiment scored, in order of tokens.

        Raises:
            Missing: when there is none.
        """
        table = self._items
        table = table[(table["experiment"] == experiment) & (table["run"] == run)]
        if table.empty:
            raise Missing(f"{experiment}: no records of {run}")
        rows = table[["run", "tokens", "method", "n", "interval"]].drop_duplicates()
        return sorted(Model(r.run, int(r.tokens), r.method, int(r.n), int(r.interval)) for r in rows.itertuples())

    @cached_property
    def accuracy_ratio(self) -> float:
        """Signal to noise of the average accuracy, from Figure 4's records; NaN without them."""
        path = self.root / "figure_4" / "records.csv"
        if not path.exists():
            return float("nan")
        table = signal_to_noise_table(read_records(path))
        table = table[(table["task"] == "average") & (table["metric"] == ACCURACY)]
        return float(table["signal_to_noise"].mean())

    @property
    def accuracy_moves(self) -> bool:
        """Whether accuracy says something at this scale."""
        return self.accuracy_ratio >= SIGNAL_TO_NOISE_MINIMUM

    # ---- runs and experiments

    def manifest(self, name: str) -> dict[str, Any]:
        """Manifest of an experiment or of a run's folder."""
        try:
            return read_manifest(self.root / name)
        except ValueError:
            raise Missing(f"{name}: no {MANIFEST}") from None

    def config(self, run: str, seed: int = 0) -> dict[str, Any]:
        """Resolved config of a run."""
        path = self.root / f"{run}-seed{seed}" / "config.yaml"
        if not path.exists():
            raise Missing(f"{run}: no config.yaml")
        return yaml.safe_load(path.read_text(encoding="utf-8"))

    def parameters(self, run: str) -> int:
        """Total parameters of a run's model."""
        return self.manifest(f"{run}-seed0")["parameters"]["total"]

    def curve(self, run: str, seed: int = 0) -> pd.DataFrame:
        """Logged steps of a run: tokens, loss, lr, gradient_norm."""
        path = self.root / f"{run}-seed{seed}" / "metrics.jsonl"
        if not path.exists():
            raise Missing(f"{run}: no metrics.jsonl")
        return pd.read_json(path, lines=True)

    def table(self, experiment: str, name: str) -> pd.DataFrame:
        """A measurement's table beside an experiment's records."""
        path = self.root / experiment / f"{name}.csv"
        if not path.exists():
            raise Missing(f"{experiment}: no {name}.csv")
        return pd.read_csv(path)

    def cost(self, experiments: Sequence[str]) -> float:
        """Seconds that training (processes one after the other) and scoring took, runs shared between experiments once.

        NaN where a manifest is missing.
        """
        try:
            manifests = [self.manifest(experiment) for experiment in experiments]
            runs = sorted({run for manifest in manifests for run in manifest["runs"]})
            return float(sum(m["seconds"] for m in [*manifests, *(self.manifest(run) for run in runs)]))
        except (Missing, KeyError):
            return float("nan")
