"""Words that several commands print: counts, sizes, durations, what a run is, the next command."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from omegaconf import DictConfig

from pma.run import is_fork

_WIDTH = 112  # of a terminal's lines


def quantity(number: float) -> str:
    """A count with three significant digits and a unit: 4_915_200 is 4.92M."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def count(number: int, noun: str) -> str:
    """A number of things: `1 run`, `2 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time to wait for: `8 s`, `12 min`, `1.5 h`."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def disk_size(megabytes: float) -> str:
    """Space on a disk: `33 MB`, `1.2 GB`."""
    return f"{megabytes:,.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:,.1f} GB"


def experiment_title(name: str) -> str:
    """An experiment's name in words: figure_3 is `Figure 3`."""
    return name.replace("_", " ").capitalize()


def size_name(kind: str, parameters: int) -> str:
    """A model by its real size: `576k MoE`, `182k dense`."""
    return f"{quantity(parameters)} {'MoE' if kind == 'moe' else kind}"


def size_label(kind: str, parameters: int, stands_for: str) -> str:
    """A model by its real size first: `576k MoE, standing for 1.3B/13B`."""
    return f"{size_name(kind, parameters)}, standing for {stands_for}"


def run_in_words(cfg: DictConfig) -> str:
    """What a run does, for a reader who does not know its name: `annealed fork of moe_main`."""
    init, schedule, part = cfg.init, cfg.schedule, cfg.train.part
    parent = init.parent
    if parent.run is None:
        given = init.weights or init.checkpoint
        text = f"from {given}" if given else "from scratch"
    elif is_fork(cfg):
        text = f"{'annealed ' if schedule.decay_tokens else ''}fork of {parent.run}"
    else:
        start = f"the last snapshot of {parent.run}" if parent.n == 1 else f"a merge of {parent.run}"
        work = {"continued": "continued on other text", "instruct": "fine-tuned"}.get(part, "resumed")
        text = f"{'reinforced' if cfg.train.reward_domain else work} from {start}"
    times = schedule.peak_lr / cfg.scale.peak_lr
    return text if abs(times - 1) < 1e-9 else f"{text}, {times:.3g} × rate"


def wrapped(label: str, names: list[str]) -> str:
    """A list after its label, wrapped to the width of a terminal."""
    together = [name.replace(" ", "\0") for name in names]  # a name is not broken over two lines
    text = textwrap.fill(f"{label} {', '.join(together)}", _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return text.replace("\0", " ")


def short(path: Path) -> str:
    """A path as you would type it from where you are."""
    return str(path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path)


def print_next(command: str) -> None:
    """Say which command comes next; a make target that runs several commands says it once, at its end."""
    if os.environ.get("PMA_NEXT") != "no":
        print(f"next: {command}", flush=True)
