"""A study written row by row, of seeds 2, 3 and 4, whose numbers are known by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from records import Study

from pma.records import COLUMNS

SEEDS = [2, 3, 4]
V = 100  # tokens


class Small:
    """A study on disk, of seeds 2, 3 and 4, written row by row."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._rows: dict[str, list[dict]] = {}

    def run(self, run: str, parameters: int = 1000, peak_lr: float = 1.0, **columns) -> None:
        """Config and manifest of a run, and its curve: a step of 10 tokens for each value, by seed, of each column."""
        for seed in SEEDS:
            folder = self.root / f"{run}-seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            config = {"scale": {"merge_interval": V}, "schedule": {"peak_lr": peak_lr, "warmup_tokens": 20}}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            (folder / "manifest.json").write_text(json.dumps({"parameters": {"total": parameters}}))
            if columns:
                of_seed = {name: values[seed] for name, values in columns.items()}
                steps = [
                    {"tokens": 10 * (i + 1), **dict(zip(of_seed, row, strict=True))}
                    for i, row in enumerate(zip(*of_seed.values(), strict=True))
                ]
                (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))

    def score(self, experiment, run, at, values, method="last", n=1, interval=1.0, column=None) -> None:
        """Scores of a merge: a number for all seeds, or one a seed; `column` is suite, task, metric (text if None)."""
        if not (self.root / f"{run}-seed2" / "config.yaml").exists():
            self.run(run)
        suite, task, metric = column or ("proxy", "heldout", "bits_per_byte")
        values = [values] * len(SEEDS) if np.isscalar(values) else values
        self._rows.setdefault(experiment, []).extend(
            dict(
                scale="cpu", experiment=experiment, run=run, seed=seed, tokens=round(at * V), method=method, n=n,
                interval=round(interval * V), suite=suite, task=task, metric=metric, value=value, stderr=0.0,
                config_hash="0",
            )
            for seed, value in zip(SEEDS, values, strict=True)
        )  # fmt: skip

    def sma(self, experiment, run, at, values, n=10, interval=1.0, **column) -> None:
        self.score(experiment, run, at, values, "sma", n, interval, **column)

    def table(self, experiment: str, name: str, rows: pd.DataFrame) -> None:
        (self.root / experiment).mkdir(parents=True, exist_ok=True)
        rows.to_csv(self.root / experiment / f"{name}.csv", index=False)

    def study(self) -> Study:
        for experiment, rows in self._rows.items():
            self.table(experiment, "records", pd.DataFrame(rows, columns=COLUMNS))
        return Study(self.root)


def values(evidence: pd.DataFrame | pd.Series, decimals: int = 9) -> list:
    """Numbers by seed, and a check of what every function of evidence promises: a row a seed, in floats."""
    assert list(evidence.index) == SEEDS and evidence.index.name == "seed"
    assert all(dtype.kind == "f" for dtype in np.atleast_1d(evidence.dtypes))
    return evidence.round(decimals).to_numpy().squeeze().tolist()
