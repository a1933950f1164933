"""Score the merges of a run: those scored before are read, the others are merged and scored, each once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from omegaconf import DictConfig
from tqdm import tqdm

from pma import cli
from pma.config import register
from pma.corpus import prepare
from pma.evaluate import Suite, load_suite
from pma.reproduce.clock import Clock
from pma.reproduce.experiment import Recipe, RunMerges
from pma.reproduce.score_cache import ScoredMerge, ScoredMerges


@dataclass(frozen=True)
class ScoredRun:
    """The merges of a run that a suite scored, with the scores of each, in the same order."""

    merges: RunMerges
    scores: list[ScoredMerge]


class MergeScorer(Protocol):
    """What scores merges of one run with one suite."""

    def score(self, merges: Sequence[Recipe]) -> Iterator[Path]:
        """Score merges in turn; yield the file with the scores of each."""


class Suites:
    """Suites by name and corpus, each built once a process, because lm-eval takes seconds to build one."""

    def __init__(self) -> None:
        self._suites: dict[tuple[str, Path], Suite] = {}

    def load(self, name: str, cfg: DictConfig) -> Suite:
        """Return a suite on the corpus of a run."""
        corpus = prepare(cfg.data, Path(cfg.data_dir))
        if (name, corpus) not in self._suites:
            self._suites[name, corpus] = load_suite(name, corpus)
        return self._suites[name, corpus]


def score_merges(
    job: DictConfig, cfg: DictConfig, merges: RunMerges, suites: Suites, clock: Clock, title: str
) -> ScoredRun:
    """Return the scores of a run's merges, after scoring those that are not scored yet. `title` labels the bar.

    Raises:
        OutOfTime: between two merges; those before are kept.
    """
    cache = ScoredMerges(job, cfg, merges.suite)
    scored = {recipe: cache.read(recipe) for recipe in merges.recipes}
    todo = [recipe for recipe, scores in scored.items() if scores is None]
    if todo:
        clock.check()
        scorer = _scorer(job, cfg, suites.load(merges.suite, cfg))
        best = float("inf")
        bar = tqdm(todo, desc=f"{title} {cfg.run_id}", unit="model", leave=False, disable=not sys.stderr.isatty())
        for recipe, path in zip(bar, scorer.score(todo), strict=True):
            scored[recipe] = merge = cache.add(recipe, path)
            bits = _average_bits(merge)
            best = min(best, bits)
            bar.set_postfix(bits_per_byte=f"{bits:.3f}", best=f"{best:.3f}", refresh=False)
            clock.check()
    return ScoredRun(merges, [merge for merge in scored.values() if merge is not None])


def _scorer(job: DictConfig, cfg: DictConfig, suite: Suite) -> MergeScorer:
    # Imported by need: an environment made for vLLM has no transformers that our models run on.
    if job.scale.scoring == "vllm":
        from pma.reproduce.on_disk import MergesOnDisk

        return MergesOnDisk(job, cfg, suite)
    from pma.reproduce.in_memory import InMemoryMerges

    return InMemoryMerges(job, cfg, suite)


def _average_bits(merge: ScoredMerge) -> float:
    values = (s.value for s in merge.scores if (s.task, s.metric) == ("average", "bits_per_byte"))
    return next(values, float("nan"))


def score_task(job: DictConfig, cfg: DictConfig, merges: RunMerges) -> str | None:
    """Score merges in a job of a scheduler; return what went wrong, in one line, if a user can mend it."""
    register()
    try:
        score_merges(job, cfg, merges, Suites(), Clock(None), "scoring")
    except cli.ERRORS as error:
        return cli.message(error)
    return None
