"""Measure what is not the score of a merge: planes of weight space around it, and terms of the Hessian."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import chain, product, zip_longest
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor
from transformers import AutoTokenizer

from pma import cli
from pma.config import SCORING_VERSION, hash_json, register
from pma.corpus import prepare
from pma.files import write_json, write_text
from pma.json_files import read_json, read_manifest
from pma.layout import run_window, trajectory
from pma.merge import average, sma
from pma.reproduce.experiment import Recipe, RunSeed, measured_windows
from pma.reproduce.in_memory import InMemoryMerges
from pma.reproduce.job import GRID_POINTS, HELDOUT_SEQUENCES
from pma.reproduce.score import HERE
from pma.run import identity, run_folder
from pma.weightspace import curvature, landscape

AXIS = "knowledge"  # stands in for MMLU, whose contours Figure 8 shows


@dataclass(frozen=True)
class Measured:
    """A measurement of the runs of one seed, and the file that keeps its tables.

    The file's name is the hash of all that decides them: the run, the content of its snapshots, what is measured how.
    """

    kind: str
    cfg: DictConfig
    reference: DictConfig | None
    windows: tuple[Recipe, ...]
    keys: dict[str, str | int]  # columns that stand first: run, seed, and reference, `mean` for the first window's mean
    file: Path

    @property
    def name(self) -> str:
        """The measurement as messages spell it."""
        return f"{self.kind} of {self.keys['run']} seed {self.keys['seed']}"

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return its tables by name: landscape, or curvature_terms and curvature_losses."""
        texts = read_json(self.file)
        # As text all the way, so that a number is written as it was the first time.
        return {name: pd.read_csv(StringIO(text), dtype=str, keep_default_na=False) for name, text in texts.items()}


def measurements(job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig]) -> Iterator[Measured]:
    """Yield the measurements of an experiment, each for every seed. All their runs are trained.

    Raises:
        ValueError: when a snapshot is missing.
    """
    for m, seed in product(experiment.measurements, job.seeds):
        cfg = configs[m.run, seed]
        reference = None if m.reference is None else configs[m.reference, seed]
        windows = tuple(measured_windows(m, job.scale.merge_interval))
        folders = [*_folders(cfg, windows).values()] + ([] if reference is None else [_last_snapshot(reference)])
        decides = [
            m.kind, identity(cfg), [w.window for w in windows],
            [read_manifest(folder, "content")["content"] for folder in folders],
            prepare(cfg.data, Path(cfg.data_dir)).name, AXIS, GRID_POINTS, HELDOUT_SEQUENCES, SCORING_VERSION,
        ]  # fmt: skip
        file = Path(job.data_dir) / "scores" / "measured" / f"{hash_json(decides)}.json"
        keys = {"run": m.run, "seed": seed, "reference": m.reference or "mean"}
        yield Measured(m.kind, cfg, reference, windows, keys, file)


def measurements_to_do(
    job: DictConfig, experiments: Iterable[DictConfig], configs: dict[RunSeed, DictConfig]
) -> list[Measured]:
    """Return the measurements of experiments that are not done yet."""
    every = (measured for experiment in experiments for measured in measurements(job, experiment, configs))
    return [measured for measured in every if not measured.file.is_file()]


def write_measurements(
    job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig], folder: Path
) -> None:
    """Publish the tables of an experiment's measurements in `folder`, all seeds in one: landscape.csv,
    curvature_terms.csv and curvature_losses.csv, with columns `run`, `seed` and `reference` first."""
    tables: dict[str, list[pd.DataFrame]] = {}
    for measured in measurements(job, experiment, configs):
        for name, table in measured.tables().items():
            for at, (column, value) in enumerate(measured.keys.items()):
                table.insert(at, column, value)
            tables.setdefault(name, []).append(table)
    for name, parts in tables.items():
        write_text(folder / f"{name}.csv", pd.concat(parts).to_csv(index=False))


def measure_task(job: DictConfig, measured: Measured) -> str | None:
    """Do a measurement in a process of its own; return what went wrong, in one line, if a user can mend it."""
    register()
    torch.set_num_threads(1)  # so that no number depends on how many cores there are
    try:
        scorer = InMemoryMerges(job, measured.cfg, HERE.suite("proxy", measured.cfg))
        tables = _KINDS[measured.kind](measured.cfg, scorer, list(measured.windows), measured.reference)
        write_json(measured.file, {name: table.to_csv(index=False) for name, table in tables.items()})
    except cli.ERRORS as error:
        return cli.message(error)
    return None


def _folders(cfg: DictConfig, windows: Sequence[Recipe]) -> dict[int, Path]:
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
