"""Score the folders of one run, checkpoints and merges, and keep the records of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from pma.device import choose_device
from pma.merge.options import Part
from pma.records import Record, read_records, write_records

if TYPE_CHECKING:
    from pma.evaluate.scorer import Score

Scores = Mapping[tuple[str, str], "Score"]  # by (task, metric)
_LOWER = ("bits_per_byte", "choice")  # metrics that count bits


def lower_is_better(metric: str) -> bool:
    """Whether a metric counts bits, of which a better model needs fewer."""
    return metric in _LOWER


def gain(metric: str, value: float, over: float) -> float:
    """What a score gains over another; above 0 it is the better one, whatever the metric."""
    return over - value if lower_is_better(metric) else value - over


class FolderScorer:
    """Scores model folders of one architecture, each content once; the model is loaded at the first of them.

    Args:
        job: a WatchJob: suite or text, corpus, limit, assets, device, threads.
        cache_dir: scores are kept there by the content of the weights.

    Raises:
        ValueError: for a suite without what it needs.
    """

    def __init__(self, job: DictConfig, cache_dir: Path) -> None:
        from pma.evaluate.suites import load_suite, load_text

        if job.text is None and job.suite != "paper" and job.corpus is None:
            raise ValueError(
                f"suite={job.suite}: give corpus=DIR, the folder with its items, text=FILE with text of your "
                f"own, or suite=null to only merge"
            )
        self._job, self._cache_dir = job, cache_dir
        if job.text is None:
            self._suite = load_suite(job.suite, job.corpus and Path(job.corpus), job.limit)
        else:
            self._suite = load_text(Path(job.text), job.limit)
        self._scorer: Any = None
        if job.assets is not None:
            self.require(Path(job.assets))

    def require(self, checkpoint: Path) -> Path:
        """Return where config and tokenizer of a checkpoint lie.

        Raises:
            ValueError: saying which of them is not there.
        """
        from pma.model.build import assets_folder

        return assets_folder(checkpoint, self._job.assets)

    def score(self, folder: Path, part: Part | None = None) -> Scores:
        """Scores of a folder by (task, metric).

        Args:
            part: which of its tensors are the model; null: all, as in a merge.

        Raises:
            ValueError: when the folder cannot be read, or its log-likelihoods are not finite.
        """
        from pma.merge import averages
        from pma.model.build import load_weights
        from pma.snapshot import content_of

        if self._scorer is None:
            self._load(folder)
        name = content_of(folder, part).rpartition(":")[2]
        scores = self._scorer.score(
            name, lambda: load_weights(self._model, averages([folder], [[1.0]], part=part)[0].tensors)
        )
        return {(score.task, score.metric): score for score in scores}

    def _load(self, folder: Path) -> None:
        from pma.evaluate.scorer import Scorer
        from pma.model.build import load_architecture, load_tokenizer

        job = self._job
        place = self.require(folder)
        self._model = load_architecture(place)
        tokenizer = load_tokenizer(place)
        self._scorer = Scorer(
            self._suite, self._model, tokenizer, self._cache_dir, choose_device(job.device), job.threads
        )


def records_of(run: str, suite: str, method: str, n: int, tokens: int, scores: Scores) -> list[Record]:
    """Records of one folder: the checkpoint itself (method last, n 1) or a merge of n at `tokens`."""
    shared: dict[str, Any] = {"scale": "watch", "experiment": "watch", "run": run, "seed": 0, "interval": 0}
    shared |= {"tokens": tokens, "method": method, "n": n, "suite": suite, "config_hash": ""}
    return [
        Record(**shared, task=s.task, metric=s.metric, value=s.value, stderr=math.nan if s.stderr is None else s.stderr)
        for s in scores.values()
    ]


def add_records(path: Path, records: list[Record]) -> None:
    """Put the records of one position into a CSV, ordered by tokens; earlier ones of that position are replaced."""
    if not records:
        return
    tokens = records[0].tokens
    past = [Record(**row) for row in read_records(path).to_dict("records")] if path.is_file() else []
    before = [record for record in past if record.tokens < tokens]
    after = [record for record in past if record.tokens > tokens]
    write_records(path, [*before, *records, *after])
