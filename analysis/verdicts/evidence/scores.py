"""One number for one merge of one seed, from the records of an experiment: what all evidence on scores is made of.

Points and intervals are given in multiples of V, the merge interval of the run's config (scale.merge_interval).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path

import pandas as pd
import yaml
from records import Missing, Study

# Of a measure: task and metric in the records, and 1 where lower is better. Scores are turned so that lower is better.
MEASURES = {
    "text": ("heldout", "bits_per_byte", 1),
    "tasks": ("average", "bits_per_byte", 1),
    "choice": ("average", "choice", 1),
    "accuracy": ("average", "acc", -1),
    "reward": ("average", "reward", -1),
}
SUITE = "proxy"
_CLAIMS = Path(__file__).resolve().parents[2] / "claims.yaml"


class Scores:
    """Scores of an experiment's merges by one measure; lower is better, so a gain is the other's score minus ours.

    Args:
        study: the records.
        experiment: whose records are read, and nothing else.
        measure: text | tasks | choice | accuracy | reward.
        suite: of lm-eval tasks.
        task: takes the place of the measure's own, as for one axis of a suite.
    """

    def __init__(
        self, study: Study, experiment: str, measure: str, suite: str = SUITE, task: str | None = None
    ) -> None:
        if measure not in MEASURES:
            raise ValueError(f"measure={measure}: no score; choose one of {', '.join(MEASURES)}")
        of_measure, metric, self._sign = MEASURES[measure]
        self.study, self.experiment, self.name = study, experiment, f"{suite} {task or of_measure}/{metric}"
        table = study.records(experiment)
        chosen = (table["suite"] == suite) & (table["task"] == (task or of_measure)) & (table["metric"] == metric)
        table = table[chosen].copy()
        if table.empty:
            raise Missing(f"{experiment}: no {self.name} in its records; make reproduce scores it")
        # A single snapshot is the same model whatever interval stands beside it.
        table.loc[table["method"] == "last", ["n", "interval"]] = [1, 0]
        keys = ["run", "seed", "tokens", "method", "n", "interval"]
        twice = table[table.duplicated(keys)]
        if not twice.empty:
            row = twice.iloc[0]
            raise ValueError(f"{experiment}: {row['run']} seed {row['seed']} stands twice in its records; keep one")
        self._values: dict[tuple, float] = table.set_index(keys)["value"].to_dict()

    @cached_property
    def unit(self) -> int:
        """V in tokens, one for all runs of a scale: from the config of the first run in the records."""
        run, seed, *_ = next(iter(self._values))
        return int(self.study.config(run, seed)["scale"]["merge_interval"])

    def _tokens(self, multiple: float) -> int:
        return round(multiple * self.unit)

    def merge(self, run: str, seed: int, at: float, method: str, n: int = 1, interval: float = 0) -> float:
        """Score of one merge.

        Args:
            at: point of the newest snapshot, in V.
            method: as records spell it: last | sma | wma | ema_ALPHA.
            n: snapshots merged.
            interval: between them, in V.

        Raises:
            Missing: when the records lack it.
        """
        key = (run, seed, self._tokens(at), method, n, self._tokens(interval))
        if key not in self._values:
            what = method if method == "last" else f"{method} of {n}, {interval:g} V apart,"
            raise Missing(f"{self.experiment}: no {self.name} of {run} seed {seed}, {what} at {at:g} V")
        return self._sign * self._values[key]

    def only(self, run: str, seed: int, at: float) -> float:
        """Score of the only merge of a run that was scored at a point in V.

        Raises:
            Missing: when there is none, or more than one.
        """
        found = [value for key, value in self._values.items() if key[:3] == (run, seed, self._tokens(at))]
        if len(found) != 1:
            raise Missing(f"{self.experiment}: {len(found)} of {self.name} of {run} seed {seed} at {at:g} V, not one")
        return self._sign * found[0]

    def last(self, run: str, seed: int, at: float) -> float:
        """Score of the last snapshot at a point in V."""
        return self.merge(run, seed, at, "last")

    def sma(self, run: str, seed: int, at: float, n: int = 10, interval: float = 1) -> float:
        """Score of the mean of `n` snapshots, `interval` V apart, at a point in V."""
        return self.merge(run, seed, at, "sma", n, interval)

    def gain(self, run: str, seed: int, at: float, n: int = 10, interval: float = 1) -> float:
        """Score that the mean of snapshots saves over the last of them."""
        return self.last(run, seed, at) - self.sma(run, seed, at, n, interval)

    def merged_at(self, run: str, seed: int) -> list[float]:
        """Points, in V, at which merges of a run were scored."""
        keys = {key for key in self._values if key[:2] == (run, seed) and key[3] != "last"}
        return sorted({tokens / self.unit for _, _, tokens, *_ in keys})

    def windows(self, run: str, seed: int, at: float, method: str = "sma") -> list[tuple[int, float]]:
        """(N, V) of the merges by one method that were scored at a point, by V and N.

        Raises:
            Missing: when there are none.
        """
        found = sorted(
            (interval / self.unit, n)
            for name, of_seed, tokens, by, n, interval in self._values
            if (name, of_seed, tokens, by) == (run, seed, self._tokens(at), method)
        )
        if not found:
            raise Missing(f"{self.experiment}: no {self.name} of {run} seed {seed}, {method} at {at:g} V")
        return [(int(n), interval) for interval, n in found]


def by_seed(seeds: Sequence[int], of: Callable[[int], Mapping[str, float]]) -> pd.DataFrame:
    """Columns of numbers, a row a seed."""
    table = pd.DataFrame.from_dict({seed: dict(of(seed)) for seed in seeds}, orient="index", dtype=float)
    return table.rename_axis(index="seed")


def series(seeds: Sequence[int], of: Callable[[int], float]) -> pd.Series:
    """A number a seed: what a margin takes its share of."""
    return by_seed(seeds, lambda seed: {"value": of(seed)})["value"]


@cache
def smallest_effect(measure: str) -> float:
    """Smallest effect worth naming of a measure, from claims.yaml; accuracy has none.

    Raises:
        ValueError: for a measure without one.
    """
    smallest = yaml.safe_load(_CLAIMS.read_text(encoding="utf-8"))["common"]["smallest"]
    if measure not in smallest:
        raise ValueError(f"measure={measure}: no smallest effect; choose one of {', '.join(smallest)}")
    return float(smallest[measure])
