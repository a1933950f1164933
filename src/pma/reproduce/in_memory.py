"""Score merges in memory: one model, whose weights are swapped in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig
from transformers import AutoTokenizer

from pma.ahead import ahead
from pma.device import choose_device
from pma.evaluate import Scorer, Suite
from pma.merge.memory import InMemory, averages
from pma.model.build import load_pretrained, load_weights
from pma.reproduce.experiment import Recipe
from pma.reproduce.score_cache import any_snapshot, policy, window_weights


class InMemoryMerges:
    """Scores merges of one run with one suite; `model` and `scorer` take other weights of the run too."""

    def __init__(self, job: DictConfig, cfg: DictConfig, suite: Suite) -> None:
        self._cfg = cfg
        snapshot = any_snapshot(cfg)
        self.model = load_pretrained(snapshot).to(choose_device(cfg.device))
        tokenizer = AutoTokenizer.from_pretrained(snapshot)
        scores = Path(job.data_dir) / "scores"
        self.scorer = Scorer(suite, self.model, tokenizer, scores, self.model.device, job.threads)

    def score(self, merges: Sequence[Recipe]) -> Iterator[Path]:
        """Score merges in turn, while a thread makes the next one; yield the file with the scores of each."""
        for merged in ahead(self._merge, merges):
            name = merged.content.rpartition(":")[2]
            self.scorer.score(name, lambda tensors=merged.tensors: load_weights(self.model, tensors))
            yield self.scorer.path(name)

    def _merge(self, recipe: Recipe) -> InMemory:
        folders, weights = window_weights(self._cfg, recipe)
        return averages(folders, [weights], policy(self._cfg))[0]
