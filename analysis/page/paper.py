"""The paper's own numbers of a figure (analysis/paper), as panels beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import style
from drawing.captions import PAPER
from drawing.description import Bars, Panel


def _bar_panel(title: str, groups: Sequence[str], values: Mapping[str, Sequence[float]], label: str) -> Panel:
    """Grouped bars, a group for each name in `groups`."""
    width = 0.8 / len(values)
    bars = []
    for i, (name, heights) in enumerate(values.items()):
        x = np.arange(len(groups)) + (i - (len(values) - 1) / 2) * width
        bars.append(Bars(name, style.color(i), x, np.asarray(heights, dtype=float), width=0.92 * width))
    every = np.concatenate([series.y for series in bars])
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    room = 0.15 * (high - low) or 1.0
    limits = (low - 2 * room, high + room)
    return Panel(title, "", label, tuple(bars), xticks=dict(enumerate(map(str, groups))), ylim=limits)


def paper_panels(name: str) -> list[Panel]:
    """What the paper prints of a figure's numbers; empty where it prints none."""
    panels = []
    for path in sorted(PAPER.glob(f"{name}*.csv")):
        table = pd.read_csv(path)
        if {"last", "pma"} <= set(table):
            groups = [f"{b}\n{s}" for b, s in zip(table["benchmark"], table["stands_for"], strict=True)]
            values = {"last snapshot": table["last"], "PMA": table["pma"]}
            panels.append(_bar_panel("its numbers", groups, values, "score"))
        elif "setting" in table:
            points = sorted(table["tokens_billions"].unique())
            middle = table.assign(value=(table["low"] + table["high"]) / 2)
            wide = middle.pivot(index="tokens_billions", columns="setting", values="value").reindex(points)
            values = {setting: wide[setting].to_numpy() for setting in dict.fromkeys(table["setting"])}
            part = path.stem.removeprefix(name).strip("_")
            heading = "its numbers" + (f" ({part})" if part else "") + ", places inferred"
            panels.append(_bar_panel(heading, [f"{p}B" for p in points], values, "average of its benchmarks"))
        elif "interval_billions" in table:
            values = {"best V": table["interval_billions"].to_numpy()}
            panels.append(_bar_panel("its best V", list(table["stands_for"]), values, "billions of tokens"))
    return panels
