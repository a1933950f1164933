"""Curves of runs: over steps for Figures 6 and 7, over tokens for the page and for a study of one's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import style
from records import Study

from drawing.description import Line, Panel

CURVES = {
    "loss": "training loss (nats a token)",
    "lr": "learning rate",
    "gradient_norm": "gradient norm (L2, before clipping)",
    "tokens_per_second": "tokens a second",
}
_FROM_ZERO = ("lr", "gradient_norm")


def curve_by_step(study: Study, run: str, seed: int = 0) -> pd.DataFrame:
    """A run's curve, indexed by step.

    Raises:
        Missing: when the run's curve or config is not there.
    """
    batch = study.config(run, seed)["scale"]["batch_tokens"]
    curve = study.curve(run, seed)
    return curve.set_index(pd.Index(curve["tokens"] // batch, name="step"))


def curve_panels(study: Study, folders: Sequence[str]) -> list[Panel]:
    """Loss, learning rate, gradient norm and speed over tokens of some runs (RUN-seedN), as far as they are there."""
    curves = {}
    for folder in folders:
        run, _, seed = folder.rpartition("-seed")
        if study.has(folder, "metrics.jsonl"):
            curves[folder] = study.curve(run, int(seed))
    panels = []
    for column, label in CURVES.items():
        drawn = {folder: curve for folder, curve in curves.items() if column in curve and curve[column].notna().any()}
        # Half the bytes on the page; no eye sees the difference.
        lines = tuple(
            Line(folder, style.color(i), curve["tokens"].to_numpy(np.float32), curve[column].to_numpy(np.float32))
            for i, (folder, curve) in enumerate(drawn.items())
        )
        if lines:
            bottom = 0.0 if column in _FROM_ZERO else None
            panels.append(Panel(label, "training tokens", label, lines, tokens=True, ylim=(bottom, None)))
    return panels
