"""Measurements of an experiment that are not scores of merges: planes of weight space, and terms of the Hessian."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain, zip_longest
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor

from pma.files import write_text
from pma.layout import run_window, trajectory
from pma.merge import average, sma
from pma.reproduce.experiment import MergeScorer, RunSeed, Suites
from pma.run import run_folder
from pma.weightspace import curvature, landscape

RESOLUTION = 8  # grid points along an axis of a plane; even, so that none of them is the merged model itself
AXIS = "knowledge"  # stands in for MMLU, whose contours Figure 8 shows
SEQUENCES = 32  # of held-out text, as many tokens each as a training sequence, for losses and derivatives


def measure(
    job: DictConfig, experiment: DictConfig, configs: dict[RunSeed, DictConfig], suites: Suites, folder: Path
) -> None:
    """Do an experiment's measurements and publish them as landscape.csv, curvature_terms.csv, curvature_losses.csv.

    Raises:
        ValueError: for an unknown kind, or snapshots that are not there.
    """
    seed = (job.seeds or [0])[0]
    tables: dict[str, list[pd.DataFrame]] = {}
    for one in experiment.measurements:
        if one.kind not in _KINDS:
            raise ValueError(f"measurements.kind={one.kind}: choose one of {', '.join(_KINDS)}")
        cfg = configs[one.run, seed]
        interval = job.scale.merge_interval
        window = run_window(run_folder(cfg), one.n, round(one.interval * interval), round(one.end * interval))
        scorer = MergeScorer(job, cfg, "proxy", suites)
        reference = None if one.reference is None else configs[one.reference, seed]
        for name, table in _KINDS[one.kind](job, cfg, scorer, window, reference).items():
            table.insert(0, "reference", "mean" if one.reference is None else one.reference)
            table.insert(0, "run", one.run)
            tables.setdefault(name, []).append(table)
        print(f"{experiment.name}: {one.kind} of {one.run} measured", flush=True)
    for name, found in tables.items():
        write_text(folder / f"{name}.csv", pd.concat(found).to_csv(index=False))


def _landscape(
    job: DictConfig, cfg: DictConfig, scorer: MergeScorer, window: list[Path], reference: DictConfig | None
) -> dict[str, pd.DataFrame]:
    def score() -> dict[str, float]:
        return {s.metric: s.value for s in scorer.scorer.score_loaded([AXIS])}

    return {"landscape": landscape.planes(window, scorer.model, score, RESOLUTION)}


def _curvature(
    job: DictConfig, cfg: DictConfig, scorer: MergeScorer, window: list[Path], reference: DictConfig | None
) -> dict[str, pd.DataFrame]:
    if reference is None:
        at = average(window, sma(len(window)))
    else:
        found = trajectory(run_folder(reference))
        at = average([found[max(found)]], [1.0])
    terms, losses = curvature.measure(window, at, scorer.model, heldout_batch(cfg, scorer.corpus))
    return {
        "curvature_terms": terms,
        "curvature_losses": pd.DataFrame(list(losses.items()), columns=["name", "value"]),
    }


_KINDS: dict[str, Callable[..., dict[str, pd.DataFrame]]] = {"landscape": _landscape, "curvature": _curvature}


def heldout_batch(cfg: DictConfig, corpus: Path) -> Tensor:
    """Held-out tokens, int64 (SEQUENCES, sequence length + 1): documents of all domains in turn, cut to sequences."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(corpus / "tokenizer")
    length = cfg.scale.sequence_length + 1
    by_domain = []
    for path in sorted((corpus / "heldout").glob("*.jsonl")):
        texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
        ids = tokenizer("".join(text + tokenizer.eos_token for text in texts), verbose=False)["input_ids"]
        by_domain.append([ids[i : i + length] for i in range(0, len(ids) - length + 1, length)])
    in_turn = [row for row in chain.from_iterable(zip_longest(*by_domain)) if row is not None]
    return torch.tensor(in_turn[:SEQUENCES])
