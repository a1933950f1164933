"""Your own records of some seeds, laid over published ones of the others: as if one study had made both.

What is chosen or forecast from other seeds can then be computed for a single new one.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
from records import Study


class Overlay(Study):
    """Records of `own` for its seeds, and of `published` for all others.

    Args:
        own: your records.
        published: the published ones of the same scale.
        seeds: of your own. They hide the published ones, where these hold the same.
    """

    def __init__(self, own: Study, published: Study, seeds: Collection[int]) -> None:
        super().__init__(own.root)
        self._own, self._published, self._seeds = own, published, frozenset(seeds)

    def _of(self, folder: str) -> Study:
        """Whose a folder is: published, where it is a run of a seed that is not yours."""
        run, _, seed = folder.rpartition("-seed")
        return self._published if run and int(seed) not in self._seeds else self._own

    def has(self, folder: str, name: str) -> bool:
        """Whether a file is there."""
        return self._of(folder).has(folder, name)

    def file(self, folder: str, name: str) -> Path:
        """Path of a file."""
        return self._of(folder).file(folder, name)

    def manifest(self, folder: str) -> dict[str, Any]:
        """Manifest of an experiment (yours), or of a run."""
        return self._of(folder).manifest(folder)

    def records(self, experiment: str) -> pd.DataFrame:
        """Records of an experiment: yours of your seeds, the published ones of the others."""
        return self._both(self._own.records(experiment), self._published.records(experiment))

    def measurement(self, experiment: str, name: str) -> pd.DataFrame:
        """A measurement's table, likewise."""
        return self._both(self._own.measurement(experiment, name), self._published.measurement(experiment, name))

    def _both(self, own: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
        mine = own["seed"].isin(self._seeds)
        return pd.concat([own[mine], published[~published["seed"].isin(self._seeds)]], ignore_index=True)
