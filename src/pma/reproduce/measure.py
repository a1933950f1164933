"""Measure what is not the score of a merge: planes of weight space around it, and terms of the Hessian."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain, product, zip_longest
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor
from transformers import AutoTokenizer

from pma import cli
from pma.config import register
from pma.corpus import prepare
from pma.files import write_text
from pma.layout import run_window, trajectory
from pma.merge import average, sma
from pma.reproduce.experiment import Recipe, RunSeed, measured_windows
from pma.reproduce.in_memory import InMemoryMerges
from pma.reproduce.job import GRID_POINTS, HELDOUT_SEQUENCES
from pma.reproduce.score import Suites
from pma.run import run_folder
from pma.weightspace import curvature, landscape
from pma.words import experiment_title

AXIS = "knowledge"  # stands in for MMLU, whose contours Figure 8 shows


def measure(job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig], folder: Path) -> None:
    """Do an experiment's measurements, and publish them in `folder`.

    The tables are landscape.csv, curvature_terms.csv and curvature_losses.csv, with columns `run`, `seed` and
    `reference` first: the run whose last snapshot is the reference of a measurement, or `mean` for the mean of the
    first window.

    Raises:
        ValueError: when a snapshot is missing.
    """
    suites = Suites()
    tables: dict[str, list[pd.DataFrame]] = {}
    for measurement, seed in product(experiment.measurements, job.seeds):
        cfg, reference = configs[measurement.run, seed], None
        if measurement.reference is not None:
            reference = configs[measurement.reference, seed]
        windows = measured_windows(measurement, job.scale.merge_interval)
        scorer = InMemoryMerges(job, cfg, suites.load("proxy", cfg))
        for name, table in _KINDS[measurement.kind](cfg, scorer, windows, reference).items():
            table.insert(0, "reference", measurement.reference or "mean")
            table.insert(0, "seed", seed)
            table.insert(0, "run", measurement.run)
            tables.setdefault(name, []).append(table)
        what = f"{measurement.kind} of {measurement.run} seed {seed}"
        print(f"  {experiment_title(experiment.name)}: {what} measured", flush=True)
    for name, parts in tables.items():
        write_text(folder / f"{name}.csv", pd.concat(parts).to_csv(index=False))


def _folders(cfg: DictConfig, windows: list[Recipe]) -> dict[int, Path]:
    """Snapshot folders of windows, by tokens."""
    folders: dict[int, Path] = {}
    for w in windows:
        folders |= dict(zip(reversed(w.window), run_window(run_folder(cfg), w.n, w.interval, w.end), strict=True))
    return folders


def _last_snapshot(cfg: DictConfig) -> Path:
    saved = trajectory(run_folder(cfg))
    return saved[max(saved)]


def _landscape(
    cfg: DictConfig, scorer: InMemoryMerges, windows: list[Recipe], reference: DictConfig | None
) -> dict[str, pd.DataFrame]:
    assert reference is not None  # check_experiment asks for it
    window, before = windows
    batch = heldout_batch(cfg)

    def score() -> dict[str, float]:
        return {s.metric: s.value for s in scorer.scorer.score_loaded([AXIS])}

    table = landscape.measure(
        _folders(cfg, [window]), list(_folders(cfg, [before]).values()), _last_snapshot(reference), scorer.model,
        score, lambda: curvature.loss(scorer.model, batch), GRID_POINTS,
    )  # fmt: skip
    return {"landscape": table}


def _curvature(
    cfg: DictConfig, scorer: InMemoryMerges, windows: list[Recipe], reference: DictConfig | None
) -> dict[str, pd.DataFrame]:
    folders = _folders(cfg, windows)
    if reference is None:
        first = [folders[at] for at in windows[0].window]
        point = average(first, sma(len(first)))
    else:
        point = average([_last_snapshot(reference)], [1.0])
    terms, losses = curvature.measure(folders, [w.window for w in windows], point, scorer.model, heldout_batch(cfg))
    return {"curvature_terms": terms, "curvature_losses": losses}


_KINDS: dict[str, Callable[..., dict[str, pd.DataFrame]]] = {"landscape": _landscape, "curvature": _curvature}


def heldout_batch(cfg: DictConfig) -> Tensor:
    """Held-out tokens of a run's corpus, int64 (HELDOUT_SEQUENCES, sequence length + 1).

    Documents of all domains in turn, cut to sequences.
    """
    corpus = prepare(cfg.data, Path(cfg.data_dir))
    tokenizer = AutoTokenizer.from_pretrained(corpus / "tokenizer")
    length = cfg.scale.sequence_length + 1
    by_domain = []
    for path in sorted((corpus / "heldout").glob("*.jsonl")):
        texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
        ids = tokenizer("".join(text + tokenizer.eos_token for text in texts), verbose=False)["input_ids"]
        by_domain.append([ids[i : i + length] for i in range(0, len(ids) - length + 1, length)])
    in_turn = [row for row in chain.from_iterable(zip_longest(*by_domain)) if row is not None]
    return torch.tensor(in_turn[:HELDOUT_SEQUENCES])


def measure_task(
    job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig], folder: Path
) -> str | None:
    """Measure in a job of a scheduler; return what went wrong, in one line, if a user can mend it."""
    register()
    try:
        measure(job, experiment, configs, folder)
    except cli.ERRORS as error:
        return cli.message(error)
    return None
