"""A bar for all runs in training, one for all models to score; a line now and then where the output is no terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from pma.json_files import complete_lines
from pma.reproduce.experiment import RunSeed
from pma.reproduce.progress import missing_tokens
from pma.run import run_folder
from pma.words import count, duration, quantity

LINE_SECONDS = 30  # between two lines, where the output is no terminal


class TrainingBar:
    """How far the runs of a reproduction are, read from the metrics that they write.

    Args:
        configs: of the runs to train.
    """

    def __init__(self, configs: dict[RunSeed, DictConfig]) -> None:
        self._configs = configs
        self._missing = {key: missing_tokens(cfg) for key, cfg in configs.items()}
        self._done = dict.fromkeys(configs, 0)
        self._total, self._ended = sum(self._missing.values()), 0
        self._began = self._said = time.perf_counter()
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(total=self._total, unit="tok", unit_scale=True, disable=not self._terminal, leave=False)

    def look(self, running: Iterable[RunSeed]) -> None:
        """Show how far the runs in work are."""
        texts = []
        for key in running:
            tokens, loss = _newest(run_folder(self._configs[key]))
            begun = self._configs[key].stop - self._missing[key]
            self._done[key] = min(max(tokens - begun, 0), self._missing[key])
            texts.append(f"{self._configs[key].run_id}{f' (loss {loss:.2f})' if self._done[key] else ''}")
        done = sum(self._done.values())
        self._bar.set_description_str(f"{self._ended} of {count(len(self._configs), 'run')} trained", refresh=False)
        self._bar.set_postfix_str(", ".join(texts), refresh=False)
        self._bar.update(done - self._bar.n)
        now = time.perf_counter()
        if not self._terminal and done and now - self._said > LINE_SECONDS:
            self._said, speed = now, done / (now - self._began)
            print(
                f"  {100 * done / self._total:.0f} % trained, {quantity(speed)} tokens/s, about "
                f"{duration((self._total - done) / speed)} left; in work: {', '.join(texts)}",
                flush=True,
            )

    def ended(self, key: RunSeed) -> None:
        """Say that a run has come to its end."""
        cfg = self._configs[key]
        tokens, loss = _newest(run_folder(cfg))
        if tokens < cfg.stop:  # out of time, or failed: somebody else says so
            return
        self._done[key] = self._missing[key]
        self._ended += 1
        with tqdm.external_write_mode():
            print(
                f"  {self._ended} of {count(len(self._configs), 'run')}: {cfg.run_id} trained to {quantity(tokens)} "
                f"tokens, loss {loss:.3f}",
                flush=True,
            )

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


class ScoringBar:
    """How many models are scored.

    Args:
        total: models to score.
    """

    def __init__(self, total: int) -> None:
        self._began = self._said = time.perf_counter()
        self._terminal = sys.stderr.isatty()
        self._total = total
        self._bar = tqdm(total=total, unit="model", desc="scored", disable=not self._terminal, leave=False)

    def look(self, done: int) -> None:
        """Show that `done` models are scored."""
        now = time.perf_counter()
        self._bar.update(done - self._bar.n)
        if not self._terminal and done and now - self._said > LINE_SECONDS:
            self._said, speed = now, done / (now - self._began)
            left = duration((self._total - done) / speed)
            print(f"  {done} of {count(self._total, 'model')} scored, about {left} left", flush=True)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


def _newest(folder: Path) -> tuple[int, float]:
    """Tokens and loss of the newest line of a run's metrics; 0 and NaN before the first."""
    path = folder / "metrics.jsonl"
    lines = complete_lines(path) if path.is_file() else []
    if not lines:
        return 0, float("nan")
    try:
        row = json.loads(lines[-1])
        return int(row["tokens"]), float(row["loss"])
    except (ValueError, TypeError, KeyError):  # the run itself refuses a damaged file, by name
        return 0, float("nan")
