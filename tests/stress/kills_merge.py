"""Merges killed at any moment: nothing under the output's name unless whole and right; the same command succeeds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import numpy as np
import torch
from campaign import Ended, Outcome, Running, command, names
from kills import Killer, finished, usual, writing
from merging import save_model, values
from oracle import differs, read, weighted_sum
from torch.distributed import checkpoint as dcp

KINDS = ("model", "dcp", "resumable", "many", "dcp sources")
KILLS = 5  # of one trial
_STEPS = (10, 20, 30)


def tensors(random: Random) -> dict[str, np.ndarray]:
    """A small model, of more than one block of a file."""
    return values(random, count=5, shape=(40, 16))


def write_model(folder: Path, state: dict[str, np.ndarray]) -> None:
    """A checkpoint as the Hugging Face Trainer leaves it."""
    save_model(state, folder)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 1}))
    parameter = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(4)
    optimizer.step()
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")


def write_dcp(folder: Path, state: dict[str, np.ndarray]) -> None:
    """A checkpoint as torchtitan leaves it."""
    folder.mkdir(parents=True)
    dcp.save({k: torch.from_numpy(v) for k, v in state.items()}, checkpoint_id=folder, no_dist=True)


def read_output(folder: Path, like: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """Tensors of a merge in either format, in float64."""
    if not (folder / ".metadata").exists():
        return read(folder)
    state = {name: torch.empty(values.shape) for name, values in like.items()}
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    return {name: tensor.double().numpy() for name, tensor in state.items()}


class Merge:
    """A merge to kill: its sources, its command, and what it must give."""

    def __init__(self, random: Random, folder: Path, kind: str) -> None:
        self.folder = folder
        states = [tensors(random) for _ in _STEPS]
        for step, state in zip(_STEPS, states, strict=True):
            (write_dcp if kind == "dcp sources" else write_model)(folder / f"run/checkpoint-{step}", state)
        weights = {"merged": [1 / 3] * 3}
        self.arguments = [f"run_dir={folder / 'run'}", "last=3"]
        if kind == "many":
            weights |= {"tilted": [0.2, 0.3, 0.5]}
            self.arguments.append("merges=[{method: sma, output: merged}, {weights: [0.2, 0.3, 0.5], output: tilted}]")
        else:
            options = {"model": ["shard_size=6000"], "dcp": ["format=dcp"], "resumable": ["resumable=true"]}
            self.arguments += ["method=sma", "output=merged", *options.get(kind, [])]
        wide = [{name: values.astype("float64") for name, values in state.items()} for state in states]
        self.expected = {name: weighted_sum(wide, each) for name, each in weights.items()}
        self.before = names(folder)

    @property
    def outputs(self) -> list[Path]:
        """Folders that it makes."""
        return [self.folder / name for name in self.expected]

    def begin(self) -> Running:
        """Start it."""
        return Running("pma.merge", *self.arguments, folder=self.folder)

    def run(self) -> Ended:
        """Run it to its end."""
        return command("pma.merge", *self.arguments, folder=self.folder)

    def wrong(self, output: Path) -> str:
        """What is wrong with an output that is there, in words."""
        if not (output / "manifest.json").is_file():
            return f"{output.name} without a manifest"
        try:
            return differs(read_output(output, self.expected[output.name]), self.expected[output.name])
        except Exception as error:  # half a file
            return f"{output.name} cannot be read: {error}"

    def take_away(self) -> str:
        """Remove what is there after a kill; return what was wrong with it."""
        for output in self.outputs:
            if output.exists():
                if wrong := self.wrong(output):
                    return wrong
                shutil.rmtree(output)
        return ""

    def outcome(self, ended: Ended, note: str) -> Outcome:
        """What came of the same command in the end."""
        outcome = finished(ended, self.folder, note, lambda: "; ".join(filter(None, map(self.wrong, self.outputs))))
        made = {output.name for output in self.outputs}
        over = sorted(name for name in names(self.folder) - self.before if name.split("/")[0] not in made)
        return Outcome("left over", f"{over[:5]}; {note}") if over and outcome.verdict == "right" else outcome


def killed_merge(random: Random, folder: Path) -> Outcome:
    """A merge that is killed again and again, and then let finish."""
    kind = random.choice(KINDS)
    merge = Merge(random, folder, kind)
    seconds = usual(f"merge {kind}", merge.run)
    killer = Killer(random, seconds, lambda: writing(folder))
    while not killer.enough(KILLS):
        if wrong := merge.take_away():
            return Outcome("wrong", f"{kind}: {wrong}; {killer.note}")
        killer.kill(merge.begin())
    if wrong := merge.take_away():
        return Outcome("wrong", f"{kind}: {wrong}; {killer.note}")
    return merge.outcome(merge.run(), f"{kind}: {killer.note}")
