"""The items of a study, resampled: scores of models as statistics, paired wherever they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from records import Missing, Study

from pma.records import SIGNAL_TO_NOISE_MINIMUM
from verdicts.resampling import Statistic, weights
from verdicts.rules import Common

BITS, ACCURACY = "bits_per_byte", "acc"
Column = tuple[str, str]  # suite, task
_KEYS = ["run", "tokens", "method", "n", "interval"]


@dataclass(frozen=True, order=True)
class ModelKey:
    """A merge, or a single snapshot (method last, n = 1, interval 0); tokens are trajectory positions."""

    run: str
    tokens: int
    method: str = "last"
    n: int = 1
    interval: int = 0  # tokens


# Means over items: the column of each model and seed, and (1 + draws, columns).
_Means = tuple[dict[ModelKey, dict[int, int]], Statistic]


class Sample:
    """Scores of a study's models under resampling of items and seeds.

    Args:
        study: the records.
        common: draws, seed and thresholds, from claims.yaml.
    """

    def __init__(self, study: Study, common: Common) -> None:
        self.study, self.common = study, common
        self._weights: dict[tuple[int, str], Statistic] = {}
        self._means: dict[tuple[tuple[Column, ...], str], _Means] = {}

    @cached_property
    def _items(self) -> pd.DataFrame:
        """Items of every experiment, axes only; single snapshots have n = 1 and interval 0."""
        names = sorted(path.parent.name for path in self.study.root.glob("*/items.parquet"))
        if not names:
            raise Missing(f"no items.parquet below {self.study.root.name}")
        table = pd.concat([self.study.items(name).assign(experiment=name) for name in names])
        table = table[~table["task"].str.startswith("heldout")]
        table.loc[table["method"] == "last", ["n", "interval"]] = [1, 0]
        return table

    @cached_property
    def _values(self) -> pd.DataFrame:
        # (model, seed) by (suite, task, metric); a merge that two experiments scored counts once.
        keys = [*_KEYS, "seed"]
        table = self._items.drop_duplicates([*keys, "suite", "task", "metric"])
        return table.pivot(index=keys, columns=["suite", "task", "metric"], values="values").sort_index()

    def axes(self, suite: str) -> list[Column]:
        """The axes of a suite: its tasks that have an accuracy."""
        columns = self._values.columns
        return sorted({(s, task) for s, task, metric in columns if s == suite and metric == ACCURACY})

    def _resampled(self, columns: tuple[Column, ...], metric: str) -> _Means:
        """Means over `columns` of every model that has them all."""
        if (columns, metric) not in self._means:
            needed = [(*column, metric) for column in columns]
            if any(column not in self._values.columns for column in needed):
                raise Missing(f"no {metric} of {', '.join('/'.join(c) for c in columns)}")
            values = self._values[needed].dropna()
            total: Any = 0.0
            for suite, task, _ in needed:
                lists = values[suite, task, metric].to_list()
                if len({len(of_model) for of_model in lists}) > 1:
                    raise ValueError(
                        f"{self.study.root}: {suite}/{task} has other items in other records; make them again"
                    )
                total = total + self._draw(len(lists[0]), f"items {suite} {task}") @ np.stack(lists).T.astype(float)
            at: dict[ModelKey, dict[int, int]] = {}
            for column, (*model, seed) in enumerate(values.index):
                at.setdefault(ModelKey(*model), {})[seed] = column
            self._means[columns, metric] = at, np.round(total / len(needed), 9)
        return self._means[columns, metric]

    def _draw(self, count: int, key: str) -> Statistic:
        if (count, key) not in self._weights:
            self._weights[count, key] = weights(count, self.common.draws, self.common.seed, key)
        return self._weights[count, key]

    def seeds(self, models: Sequence[ModelKey], columns: Sequence[Column] | None = None) -> list[int]:
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
        self, models: Sequence[ModelKey], metric: str = BITS, columns: Sequence[Column] | None = None
    ) -> list[Statistic]:
        """Mean score over axes of models of one trunk (a run and its forks), over the seeds they have in common.

        The same items and the same seeds are resampled for all of them, so that differences are paired.

        Raises:
            Missing: when a model has no scores.
        """
        columns = tuple(columns or self.axes("proxy"))
        seeds = self.seeds(models, columns)
        at, means = self._resampled(columns, metric)
        weight = self._draw(len(seeds), f"seeds {models[0].run}")
        if (count := len(seeds)) > 1:  # resampling few understates their variance by (count - 1) / count
            weight = 1 / count + np.sqrt(count / (count - 1)) * (weight - 1 / count)
        return [np.round((weight * means[:, [at[m][seed] for seed in seeds]]).sum(axis=1), 9) for m in models]

    def item_count(self, columns: Sequence[Column] | None = None) -> int:
        """Items behind one score."""
        columns = columns or self.axes("proxy")
        return sum(len(self._values[(*column, BITS)].dropna().iloc[0]) for column in columns)

    def models(self, experiment: str, run: str) -> list[ModelKey]:
        """Models of one run that an experiment scored, in order of tokens.

        Raises:
            Missing: when there is none.
        """
        table = self._items
        table = table[(table["experiment"] == experiment) & (table["run"] == run)]
        if table.empty:
            raise Missing(f"{experiment}: no records of {run}")
        rows = table[_KEYS].drop_duplicates()
        return sorted(ModelKey(r.run, int(r.tokens), r.method, int(r.n), int(r.interval)) for r in rows.itertuples())

    @property
    def accuracy_moves(self) -> bool:
        """Whether the average accuracy says something at this scale; no, where its signal to noise is not known."""
        return self.study.signal_to_noise().get(("average", ACCURACY), 0.0) >= SIGNAL_TO_NOISE_MINIMUM
