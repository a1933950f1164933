"""A watch killed at any moment, while a trainer goes on writing and deleting checkpoints."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from campaign import Ended, Outcome, Running, command
from kills import Killer, finished, usual, writing
from kills_merge import read_output, tensors, write_dcp, write_model
from oracle import differs, weighted_sum

KILLS = 4  # of one trial
COUNT = 6  # checkpoints that the trainer writes
KEPT = 3  # of them that it keeps, where it deletes
ALPHA = 0.5
WINDOW = 3


class Trainer(threading.Thread):
    """Writes checkpoints one after the other, each in pieces, and deletes old ones.

    Args:
        dcp: torch distributed checkpoints, instead of the Hugging Face Trainer's folders.
        deletes: whether it keeps only the newest.
        pause: seconds between two.
    """

    def __init__(self, random: Random, folder: Path, dcp: bool, deletes: bool, pause: float) -> None:
        super().__init__(daemon=True)
        self.states = {10 * (k + 1): tensors(random) for k in range(COUNT)}
        self._aside, self._folder = folder.with_name(f"{folder.name}-aside"), folder
        self._dcp, self._deletes, self._pause = dcp, deletes, pause
        folder.mkdir()

    def run(self) -> None:
        for step, state in self.states.items():
            self._write(step, state)
            if self._deletes:
                old = sorted(self._folder.iterdir(), key=lambda path: int(path.name.split("-")[1]))[:-KEPT]
                for path in old:
                    shutil.rmtree(path)
            time.sleep(self._pause)

    def _write(self, step: int, state: dict[str, np.ndarray]) -> None:
        whole, last = self._aside / str(step), ".metadata" if self._dcp else "trainer_state.json"
        (write_dcp if self._dcp else write_model)(whole, state)
        place = self._folder / (f"step-{step}" if self._dcp else f"checkpoint-{step}")
        place.mkdir()
        for path in sorted(whole.iterdir(), key=lambda path: path.name == last):
            if path.name == ".metadata":  # which writers rename into place
                path.rename(place / path.name)
                continue
            data = path.read_bytes()
            with open(place / path.name, "wb") as file:  # a reader may look in between
                file.write(data[: len(data) // 2])
                file.flush()
                time.sleep(self._pause / 10)
                file.write(data[len(data) // 2 :])
        shutil.rmtree(whole)


def _wide(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values.astype("float64") for name, values in state.items()}


def wrong(output: Path, trainer: Trainer, left: set[int], hold: bool) -> str:
    """What is wrong with what a watch has written, in words.

    Args:
        left: positions of the checkpoints that are there at the end: each of them needs its row.
    """
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    positions = [row["position"] for row in rows]
    if positions != sorted(set(positions)):
        return f"rows at {positions}"
    if missing := left - set(positions):
        return f"no rows at {sorted(missing)}"
    means = _running(output, trainer)
    for k, at in enumerate(positions):
        folder = output / "merged/sma_3" / f"{at:012d}"
        named = [
            Path(source["folder"]).name for source in json.loads((folder / "manifest.json").read_text())["sources"]
        ]
        window = [int(name.rpartition("-")[2]) for name in named]
        if window[-1] != at or (hold and window != positions[max(0, k - WINDOW + 1) : k + 1]):
            return f"sma_3 at {at} is of {window}, with rows at {positions}"
        sma = weighted_sum([_wide(trainer.states[other]) for other in window], [1 / len(window)] * len(window))
        ema = output / f"merged/ema_{ALPHA}" / f"{at:012d}"
        for merged, expected in ((folder, sma), (ema, means.get(at))):
            if expected is None:
                return f"{merged.parent.name} at {at}: none is there"
            if difference := differs(read_output(merged, expected), expected):
                return f"{merged.parent.name} at {at}: {difference}"
    return ""


def _running(output: Path, trainer: Trainer) -> dict[int, dict[str, np.ndarray]]:
    """The running EMA by position, over what it was given: a kill can take a row, and its checkpoint be gone then."""
    means: dict[int, dict[str, np.ndarray]] = {}
    for at in sorted(int(path.name) for path in (output / f"merged/ema_{ALPHA}").iterdir() if path.name.isdigit()):
        state = _wide(trainer.states[at])
        before = list(means.values())[-1:]
        mean = weighted_sum([*before, state], [1 - ALPHA, ALPHA] if before else [1.0])
        assert mean is not None
        means[at] = mean
    return means


def arguments(run: Path, output: Path, hold: bool, *more: str) -> list[str]:
    """Of the command."""
    recipes = f"recipes=[{{method: sma, n: {WINDOW}}},{{method: ema, alpha: {ALPHA}}}]"
    switches = [f"hold={str(hold).lower()}", "keep=99", "poll=0.02", "tracking.mode=off"]
    return [f"run_dir={run}", f"output={output}", recipes, *switches, *more]


def killed_watch(random: Random, folder: Path) -> Outcome:
    """A watch that is killed and started again while checkpoints come and go, and at the end let finish."""
    kind, hold = random.choice(["trainer", "dcp"]), random.random() < 0.7
    deletes = random.random() < 0.6

    def never_killed() -> Ended:
        place = folder / "timed"
        place.mkdir()
        Trainer(Random(1), place / "run", False, False, 0).run()
        return command("pma.watch", *arguments(place / "run", place / "out", True, "idle=0"), folder=place)

    seconds = usual("watch", never_killed)
    trainer = Trainer(random, folder / "run", kind == "dcp", deletes, pause=seconds * KILLS / COUNT / 3)
    output = folder / "out"
    given = arguments(folder / "run", output, hold)
    killer = Killer(random, seconds, _busy(output))
    trainer.start()
    while not killer.enough(KILLS):
        ended = killer.kill(Running("pma.watch", *given, folder=folder))
        if ended.code > 0:
            return Outcome("traceback", f"{ended.stderr[-600:]}; {killer.note}")
    trainer.join()
    ended = command("pma.watch", *given, "idle=1", folder=folder)
    return outcome(ended, trainer, folder, hold, f"{kind}, hold={hold}, deletes={deletes}: {killer.note}")


def outcome(ended: Ended, trainer: Trainer, folder: Path, hold: bool, note: str) -> Outcome:
    """What came of the last call of a watch of folder/run into folder/out."""
    left = {int(path.name.rpartition("-")[2]) for path in (folder / "run").iterdir()}
    return finished(ended, folder / "out", note, lambda: wrong(folder / "out", trainer, left, hold))


def _busy(output: Path) -> Callable[[], bool]:
    folders = [output, output / "held", output / "merged/sma_3", output / f"merged/ema_{ALPHA}"]
    return lambda: writing(*folders)
