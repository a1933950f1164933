"""Which merges of a run a suite has scored, known without merging or loading anything."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from pma.config import SCORING_VERSION, hash_json
from pma.corpus import prepare
from pma.evaluate import Score, read_scores
from pma.files import write_json
from pma.json_files import read_json, read_manifest
from pma.layout import average_dir, run_window, snapshots
from pma.merge import Policy
from pma.merge.weights import method_weights
from pma.reproduce.experiment import Recipe
from pma.run import identity, run_folder


class ScoredMerge(NamedTuple):
    """The scores of one merge, and the values of the suite's single items by (task, metric)."""

    recipe: Recipe
    scores: list[Score]
    items: dict[tuple[str, str], list[float]]


def window_weights(cfg: DictConfig, recipe: Recipe) -> tuple[list[Path], list[float]]:
    """Return the snapshot folders of a merge, oldest first, and their weights, which sum to 1.

    Raises:
        ValueError: when a snapshot is missing.
    """
    if recipe.method == "online_ema":
        assert recipe.alpha is not None  # check_experiment asks for it
        return [_average(cfg, recipe.alpha, recipe.end)], [1.0]
    if recipe.others:
        runs = [run_folder(cfg), *(run_folder(cfg).with_name(f"{name}-seed{cfg.seed}") for name in recipe.others)]
        folders = [folder for run in runs for folder in run_window(run, 1, 1, recipe.end)]
    else:
        folders = run_window(run_folder(cfg), recipe.n, recipe.interval, recipe.end)
    return folders, [1.0] if recipe.method == "last" else method_weights(recipe.method, recipe.n, recipe.alpha)


def _average(cfg: DictConfig, alpha: float, tokens: int) -> Path:
    folder = average_dir(run_folder(cfg), alpha, tokens)
    if not folder.is_dir():
        raise ValueError(f"{folder}: not there; give alpha={alpha:g} in train.online_ema of run={cfg.run_name}")
    return folder


def policy(cfg: DictConfig) -> Policy:
    """What a merge of a run refuses: along a decay steps shrink, so that early snapshots lie far from the others."""
    return Policy(suspicious="warn" if cfg.schedule.decay_tokens else "refuse")


def any_snapshot(cfg: DictConfig) -> Path:
    """Return the first snapshot of a run: its architecture and tokenizer are those of every merge."""
    return next(iter(snapshots(run_folder(cfg)).values()))


class ScoredMerges:
    """The scored merges of one run and suite.

    For every merge a small file `DATA_DIR/scores/merges/HASH.json` names the file with its scores. The hash is of all
    that decides them: the run, the content of its snapshots and their weights, the suite and its corpus, how merges
    are scored, and the versions of lm-eval and of our scoring. Several processes may add to it at once.
    """

    def __init__(self, job: DictConfig, cfg: DictConfig, suite: str) -> None:
        self._cfg, self._scores = cfg, Path(job.data_dir) / "scores"
        corpus = prepare(cfg.data, Path(cfg.data_dir)).name
        self._scoring = [identity(cfg), suite, corpus, job.scale.scoring, SCORING_VERSION, version("lm-eval")]

    def key(self, recipe: Recipe) -> str:
        """Return the hash that stands for a merge, of 16 hex digits."""
        folders, weights = window_weights(self._cfg, recipe)
        return hash_json([self._scoring, [read_manifest(folder, "content")["content"] for folder in folders], weights])

    def holds(self, recipe: Recipe) -> bool:
        """Whether a merge is scored."""
        file = self._file(recipe)
        return file.is_file() and self._scores_file(file).is_file()

    def read(self, recipe: Recipe) -> ScoredMerge | None:
        """Return the scores of a merge; None while it is not scored."""
        file = self._file(recipe)
        if not file.is_file() or (cached := read_scores(self._scores_file(file))) is None:
            return None
        return ScoredMerge(recipe, *cached)

    def add(self, recipe: Recipe, scores: Path) -> None:
        """Note the file with the scores of a merge."""
        write_json(self._file(recipe), {"scores": scores.relative_to(self._scores).as_posix()})

    def _file(self, recipe: Recipe) -> Path:
        return self._scores / "merges" / f"{self.key(recipe)}.json"

    def _scores_file(self, file: Path) -> Path:
        return self._scores / read_json(file, scores=str)["scores"]
