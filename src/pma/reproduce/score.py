"""Score the merges of runs: those scored before are known, the others are merged and scored, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from omegaconf import DictConfig

from pma import cli
from pma.config import register
from pma.corpus import prepare
from pma.evaluate import Suite, load_suite
from pma.reproduce.experiment import Merged, Recipe, RunMerges, RunSeed, merges_of
from pma.reproduce.score_cache import ScoredMerge, ScoredMerges
from pma.run import run_folder


@dataclass(frozen=True)
class ScoredRun:
    """The merges of a run that a suite scored, with the scores of each, in the same order."""

    merges: RunMerges
    scores: list[ScoredMerge]


def scored_runs(
    job: DictConfig, experiments: Iterable[DictConfig], configs: dict[RunSeed, DictConfig]
) -> list[ScoredRun]:
    """Return the scores of all merges of experiments; every one of them is scored."""
    runs = []
    for merges in merges_of(job, experiments):
        cache = ScoredMerges(job, configs[merges.run, merges.seed], merges.suite)
        scores = [scored for recipe in merges.recipes if (scored := cache.read(recipe)) is not None]
        assert len(scores) == len(merges.recipes), "scoring ended well without all of its scores"
        runs.append(ScoredRun(merges, scores))
    return runs


def shares_to_score(
    job: DictConfig,
    experiments: Iterable[DictConfig],
    configs: dict[RunSeed, DictConfig],
    seen: set[Merged] | None = None,
) -> list[RunMerges]:
    """Return the merges that are not scored yet, in shares of `job.merges_per_job` of one run and suite.

    Those in `seen` are left out, and the others are added to it.
    """
    shares = []
    for merges in merges_of(job, experiments, seen):
        cache = ScoredMerges(job, configs[merges.run, merges.seed], merges.suite)
        todo = tuple(recipe for recipe in merges.recipes if not cache.holds(recipe))
        shares += [
            replace(merges, recipes=todo[first : first + job.merges_per_job])
            for first in range(0, len(todo), job.merges_per_job)
        ]
    return shares


class MergeScorer(Protocol):
    """What scores merges of one run with one suite."""

    def score(self, merges: Sequence[Recipe]) -> Iterator[Path]:
        """Score merges in turn; yield the file with the scores of each."""


class Scorers:
    """What a process scores with: each suite is built once, because lm-eval takes seconds; the last model is kept."""

    def __init__(self) -> None:
        self._suites: dict[tuple[str, Path], Suite] = {}
        self._last: tuple[tuple[Path, str, str, str], MergeScorer] | None = None

    def suite(self, name: str, cfg: DictConfig) -> Suite:
        """Return a suite on the corpus of a run."""
        corpus = prepare(cfg.data, Path(cfg.data_dir))
        if (name, corpus) not in self._suites:
            self._suites[name, corpus] = load_suite(name, corpus)
        return self._suites[name, corpus]

    def scorer(self, job: DictConfig, cfg: DictConfig, suite: str) -> MergeScorer:
        """Return what scores merges of a run with a suite."""
        key = (run_folder(cfg), suite, job.data_dir, job.scale.scoring)
        if self._last is None or self._last[0] != key:
            self._last = key, _scorer(job, cfg, self.suite(suite, cfg))
        return self._last[1]


def _scorer(job: DictConfig, cfg: DictConfig, suite: Suite) -> MergeScorer:
    # Imported by need: an environment made for vLLM has no transformers that our models run on.
    if job.scale.scoring == "vllm":
        from pma.reproduce.on_disk import MergesOnDisk

        return MergesOnDisk(job, cfg, suite)
    from pma.reproduce.in_memory import InMemoryMerges

    return InMemoryMerges(job, cfg, suite)


HERE = Scorers()  # of this process, which scores many shares


def score_task(job: DictConfig, cfg: DictConfig, share: RunMerges) -> str | None:
    """Score a share in a process of its own; return what went wrong, in one line, if a user can mend it."""
    register()
    try:
        cache = ScoredMerges(job, cfg, share.suite)
        scorer = HERE.scorer(job, cfg, share.suite)
        for recipe, path in zip(share.recipes, scorer.score(share.recipes), strict=True):
            cache.add(recipe, path)
    except cli.ERRORS as error:
        return cli.message(error)
    return None
