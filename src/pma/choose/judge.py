"""Scores merges of one run with their weights swapped into one model; many merges share a pass over the checkpoints."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from pma.choose.candidates import Candidate
from pma.choose.kept import Scored
from pma.choose.measure import Measure
from pma.device import choose_device, cpu_threads
from pma.evaluate import Scorer
from pma.merge import Policy
from pma.merge.checkpoints import RunCheckpoints
from pma.merge.formats import open_source
from pma.merge.memory import Trial, trials
from pma.merge.options import Part, select
from pma.model.build import assets_folder, load_architecture, load_tokenizer, load_weights

_AT_ONCE = 32  # merges of one pass, at most
_SOURCES = 64  # their checkpoints, at most, for the distances between these grow with the square of their number


class Judge:
    """One model, into which the weights of every candidate go.

    Args:
        end: position of the newest checkpoint.

    Raises:
        ValueError: when there is no config or tokenizer, when the model cannot be built, or for LoRA adapters.
    """

    def __init__(self, job: DictConfig, run: RunCheckpoints, end: int, measure: Measure) -> None:
        self._run, self._end, self._measure = run, end, measure
        self._part, self._policy = select(Part, job), Policy(suspicious=job.suspicious)
        newest = run.checkpoints[end]
        self._at_once = max(1, min(_AT_ONCE, job.memory // _bytes_of(newest, self._part)))
        place = assets_folder(newest, job.assets)
        tokenizer = load_tokenizer(place)
        self._model = load_architecture(place)
        torch.set_num_threads(cpu_threads(job.threads))
        self._cache = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # candidates.jsonl keeps the scores
        self._scorers = {
            half.version: Scorer(
                half, self._model, tokenizer, Path(self._cache.name), choose_device(job.device), job.threads
            )
            for half in measure.halves
        }

    def scores(self, some: Sequence[Candidate], half: str) -> Iterator[tuple[Candidate, Scored]]:
        """Score candidates on the half named so, one after the other.

        Raises:
            ValueError: when the newest checkpoint itself cannot be scored, for then none can.
        """
        for group in self._groups(some):
            used = sorted({at for candidate in group for at in candidate.window})
            weights = [[candidate.weights.get(at, 0.0) for at in used] for candidate in group]
            judged = trials([self._run.checkpoints[at] for at in used], weights, self._policy, self._part)
            for i, candidate in enumerate(group):
                yield candidate, self._score(candidate, judged[i], half)

    def _groups(self, some: Sequence[Candidate]) -> Iterator[list[Candidate]]:
        """Candidates, in order, as many together as memory and `_SOURCES` allow."""
        group: list[Candidate] = []
        used: set[int] = set()
        for candidate in some:
            if group and (len(group) == self._at_once or len(used.union(candidate.window)) > _SOURCES):
                yield group
                group, used = [], set()
            group.append(candidate)
            used |= set(candidate.window)
        if group:
            yield group

    def _score(self, candidate: Candidate, trial: Trial, half: str) -> Scored:
        cosine = statistics.fmean(trial.cosines) if trial.cosines else None
        try:
            if trial.merge is None:
                raise ValueError(trial.refusal)
            name, tensors = trial.merge.content.rpartition(":")[2], trial.merge.tensors
            self._scorers[half].score(name, lambda: load_weights(self._model, tensors))
        except ValueError as error:
            if candidate.method == "single" and candidate.window == (self._end,):
                raise
            return Scored([], cosine, str(error))
        return Scored(self._measure.values(self._scorers[half].items(name)), cosine)


def _bytes_of(checkpoint: Path, part: Part) -> int:
    """Bytes of a merge in memory."""
    source = open_source(checkpoint, part.prefix, part.state, part.key)
    try:
        if source.adapter is not None:
            raise ValueError(
                f"{checkpoint}: a LoRA adapter, and a score needs a whole model; write whole models (PEFT's "
                f"merge_and_unload does) and give their folder"
            )
        return max(1, 4 * sum(info.count for info in source.tensors.values()))
    finally:
        source.close()
