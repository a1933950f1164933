"""Score merges through vLLM: each is written to disk in bf16, scored, and removed.

Imports nothing that an environment made for vLLM lacks: no model of ours and no training.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from omegaconf import DictConfig

from pma.evaluate import Suite, VllmScorer
from pma.json_files import read_manifest
from pma.merge import Merge, Options, merge_all
from pma.reproduce.experiment import Recipe
from pma.reproduce.score_cache import ScoredMerges, any_snapshot, policy, window_weights


class MergesOnDisk:
    """Scores merges of one run with one suite; a merge lies in DATA_DIR/merged while it is scored."""

    def __init__(self, job: DictConfig, cfg: DictConfig, suite: Suite) -> None:
        self._job, self._cfg, self._scored = job, cfg, ScoredMerges(job, cfg, suite.name)
        self._scorer = VllmScorer(suite, any_snapshot(cfg), Path(job.data_dir) / "scores")

    def score(self, merges: Sequence[Recipe]) -> Iterator[Path]:
        """Score merges in turn; yield the file with the scores of each."""
        for recipe in merges:
            with self._written(recipe) as folder:
                name = read_manifest(folder, "content")["content"].rpartition(":")[2]
                self._scorer.score_folder(name, folder)
            yield self._scorer.path(name)

    @contextmanager
    def _written(self, recipe: Recipe) -> Iterator[Path]:
        folders, weights = window_weights(self._cfg, recipe)
        if recipe.method == "last":
            yield folders[0]
            return
        folder = Path(self._job.data_dir) / "merged" / self._scored.key(recipe)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not folder.exists():  # a folder that a killed job left is whole, because folders are published at once
                merge = Merge(tuple(weights), folder, dataclasses.asdict(recipe))
                options = Options(dtype="bfloat16", threads=self._job.threads, diagnose=False)
                merge_all(folders, [merge], options, policy(self._cfg))
            try:
                yield folder
            finally:
                aside = folder.with_name(f".{folder.name}.partial-old")  # so that the name never shows half a folder
                folder.rename(aside)
                shutil.rmtree(aside)
