"""Training that goes on from damaged files: the same bits as a run that nothing happened to, or one line."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
from campaign import Ended, Outcome, command, names, refusal
from damage import BYTES, JSON, LINES, cut, damaged, flip
from prepared import linked, own, prepared
from safetensors.numpy import load_file
from tiny import RUN

JOB = [  # 30 steps, a checkpoint every 10
    *RUN,
    "model=smoke/dense_411m",
    "train.total_tokens=7680",
    "train.snapshot_interval=2560",
    "train.checkpoint_interval=2560",
    "train.log_interval=10",
    "schedule.warmup_tokens=1280",
    "data_dir=data",
]
_NEWEST = "tokens-000000000005120"


def train(folder: Path, *more: str) -> Ended:
    """Train, or go on with, the run in folder/runs."""
    return command("pma.train", *JOB, *more, folder=folder, seconds=300)


def _make(folder: Path) -> None:
    """A run that was stopped at two thirds, and the corpus that it trains on; its end beside, in whole/."""
    stopped, whole = train(folder, "stop=5120"), folder / "whole"
    linked(folder / "runs", whole / "runs")
    linked(folder / "data", whole / "data")
    for path in whole.rglob("*"):
        if path.is_file():
            own(path)
    ended = train(whole)
    if stopped.code or ended.code:
        raise RuntimeError(f"no run to damage: {stopped.stderr[-500:]} {ended.stderr[-500:]}")


def _last(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "runs/smoke/run/snapshots/tokens-000000000007680/model.safetensors")


def _copy(folder: Path) -> Path:
    """The stopped run in the folder of a trial; returns where it was made."""
    made = prepared(folder, "stopped-run", _make)
    for name in ("runs", "data"):
        linked(made / name, folder / name)
    for path in (folder / "runs").rglob("*"):
        if path.is_file():
            own(path)
    return made


def _judge(folder: Path, ended: Ended, before: set[str], subject: str, damage: str, made: Path) -> Outcome:
    outcome = refusal(ended, folder, before, subject)
    if outcome is None:
        try:
            expected, trained = _last(made / "whole"), _last(folder)
        except OSError as error:
            return Outcome("wrong", f"{damage}: it says that it is trained: {error}")
        same = expected.keys() == trained.keys() and all(np.array_equal(expected[k], trained[k]) for k in expected)
        return Outcome("right", damage) if same else Outcome("wrong", f"{damage}: other bits than without damage")
    if not damage:
        return Outcome("wrong", f"a run that nothing happened to: {outcome}")
    return Outcome(outcome.verdict, f"{damage}: {outcome.note}")


def damaged_run(random: Random, folder: Path) -> Outcome:
    """A file of a stopped run is damaged: of its newest checkpoint, its manifest, config or metrics."""
    made = _copy(folder)
    run = folder / "runs/smoke/run"
    checkpoint = run / "checkpoints" / _NEWEST
    files = {
        checkpoint / "weights.safetensors": BYTES,
        checkpoint / "optimizer.safetensors": BYTES,
        checkpoint / "state.json": JSON,
        run / "manifest.json": JSON,
        run / "metrics.jsonl": LINES,
        run / "config.yaml": BYTES,
    }
    path = random.choice(list(files))
    damage = damaged(path, random, files[path])
    before = names(folder)
    return _judge(folder, train(folder), before, "smoke/run", damage and f"{path.name} {damage}", made)


def damaged_corpus(random: Random, folder: Path) -> Outcome:
    """A file of the corpus that a stopped run goes on with is damaged."""
    made = _copy(folder)
    (corpus,) = (folder / "data/corpora").glob("generated-*")
    files = {"train.bin": BYTES, "manifest.json": JSON, "tokenizer/tokenizer.json": (*JSON[:2], cut, flip)}
    name = random.choice(["train.bin", "train.bin", "manifest.json", "tokenizer/tokenizer.json"])
    damage = damaged(own(corpus / name), random, files[name])
    before = names(folder)
    return _judge(folder, train(folder), before, corpus.name, damage and f"{name} {damage}", made)
