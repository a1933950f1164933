"""Curves of runs, mean over seeds: over steps for Figures 6 and 7, over tokens for a study of one's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import style
from records import Study

from drawing.description import Line, Panel
from drawing.scores import counted_seeds, mean_and_half

CURVES = {
    "loss": "training loss (nats a token)",
    "lr": "learning rate",
    "gradient_norm": "gradient norm (L2, before clipping)",
    "tokens_per_second": "tokens a second",
}
_FROM_ZERO = ("lr", "gradient_norm")


def seeds_of(study: Study, run: str) -> list[int]:
    """Seeds of a run; 0 where there is none, so that its missing file names what to do."""
    return study.seeds(run) or [0]


def curves_by_step(study: Study, run: str, column: str) -> pd.DataFrame:
    """One column of a run's curves, a row a step and a column a seed, as far as all seeds go.

    Raises:
        Missing: when a curve or a config is not there.
    """
    curves = {}
    for seed in seeds_of(study, run):
        batch = study.config(run, seed)["scale"]["batch_tokens"]
        curve = study.curve(run, seed)
        curves[seed] = curve.set_index(pd.Index(curve["tokens"] // batch, name="step"))[column]
    return pd.DataFrame(curves).dropna()


def mean_line(curves: pd.DataFrame, label: str, color: str, band: bool = True, **look: float | str) -> Line:
    """The mean over the counted seeds of curves (a column a seed), with its 95 % interval as a band if wanted."""
    of_step = mean_and_half(curves[counted_seeds(curves.columns)].T)
    half = of_step["half"].to_numpy() if band and of_step["half"].notna().any() else None
    return Line(label, color, curves.index.to_numpy(), of_step["mean"].to_numpy(), half, band=True, **look)


def single_lines(curves: pd.DataFrame, color: str, **look: float | str) -> list[Line]:
    """Every seed of curves as a thin line, the exploratory ones dotted; none where there is one seed alone."""
    counted = counted_seeds(curves.columns)
    return [
        Line(
            "", color, curves.index.to_numpy(np.float32), curve.to_numpy(np.float32), width=0.5, alpha=0.3,
            dash="-" if seed in counted else ":", **look,
        )
        for seed, curve in curves.items()
        if len(curves.columns) > 1
    ]  # fmt: skip


def curve_panels(study: Study, folders: Sequence[str]) -> list[Panel]:
    """Loss, learning rate, gradient norm and speed over tokens of some runs (RUN-seedN), as far as they are there.

    One line a run: the mean over its counted seeds, with its interval as a band.
    """
    curves: dict[str, dict[int, pd.DataFrame]] = {}
    for folder in folders:
        run, _, seed = folder.rpartition("-seed")
        if study.has(folder, "metrics.jsonl"):
            curves.setdefault(run, {})[int(seed)] = study.curve(run, int(seed)).set_index("tokens")
    panels = []
    for column, label in CURVES.items():
        lines = []
        for run, by_seed in curves.items():
            there = {seed: curve[column] for seed, curve in by_seed.items() if column in curve}
            of_run = pd.DataFrame(there).astype(np.float32).dropna()
            if len(of_run):
                lines.append(mean_line(of_run, run, style.color(len(lines))))
        if lines:
            bottom = 0.0 if column in _FROM_ZERO else None
            panels.append(Panel(label, "training tokens", label, tuple(lines), tokens=True, ylim=(bottom, None)))
    return panels
