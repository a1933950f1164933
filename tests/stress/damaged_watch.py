"""A live run whose checkpoints, or the monitor's own files, are damaged: its merge is right, or it is not there."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
from campaign import Ended, Outcome, command, names, refusal
from damage import BYTES, JSON, LINES, damaged
from merging import models
from oracle import Tensors, differs, read, weighted_sum


def watch(folder: Path) -> Ended:
    """Look at the run until nothing new comes."""
    arguments = ["run_dir=run", "output=out", "recipes=[{method: sma, n: 3}]", "idle=0.3", "poll=0.1", "keep=10"]
    return command("pma.watch", *arguments, "tracking.mode=off", folder=folder)


def _finite(tensors: Tensors | None) -> bool:
    return tensors is not None and all(np.isfinite(values).all() for values in tensors.values())


def damaged_watch(random: Random, folder: Path) -> Outcome:
    """A watch goes on after damage: to a checkpoint, to its rows, to what it published, or to its own notes."""
    run = folder / "run"
    sources = models(random, run, 5)
    for source in sources:
        (source / "trainer_state.json").write_text("{}")
    like = read(sources[0])
    late = [sources[-1], sources[-2]]
    for source in late:
        source.rename(folder / source.name)
    if (first := watch(folder)).code:
        return Outcome("traceback", f"before any damage: {first.stderr[-400:]}")
    for source in late:
        (folder / source.name).rename(source)
    files = {
        sources[-1] / "model.safetensors": BYTES,
        sources[-1] / "config.json": JSON,
        sources[-1] / "trainer_state.json": JSON,
        folder / "out/metrics.jsonl": LINES,
        folder / "out/watch.json": JSON,
        folder / "out/merged/sma_3/000000000030/manifest.json": JSON,
    }
    path = random.choice(list(files))
    damage = damaged(path, random, files[path])
    before = names(folder)
    ended = watch(folder)
    subject = path.parent.name if "run" in path.parts[-3:] else path.name
    outcome = refusal(ended, folder, before, subject)
    if outcome is not None:
        return Outcome(outcome.verdict if damage else "wrong", f"{path.name} {damage}: {outcome.note}")
    whole = [source for source in sources if _finite(read(source)) and read(source).keys() == like.keys()]
    merged = {int(place.name): place for place in (folder / "out/merged/sma_3").iterdir()}
    for at, place in merged.items():
        window = [source for source in whole if int(source.name.removeprefix("checkpoint-")) <= at][-3:]
        expected = weighted_sum([read(source) for source in window], [1 / len(window)] * len(window))
        if difference := differs(read(place), expected):
            return Outcome("wrong", f"{path.name} {damage}: merge at {at}: {difference}")
    rows = [json.loads(line)["position"] for line in (folder / "out/metrics.jsonl").read_text().splitlines()]
    missing = {10, 20, 30, 40, 50} - set(rows)
    if missing and (not damage or str(max(missing)) not in ended.stdout):
        return Outcome("wrong", f"{path.name} {damage}: no row at {missing}, and not a word: {ended.stdout[-300:]}")
    return Outcome("right", f"{path.name} {damage}")
