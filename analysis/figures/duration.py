"""The length N x V of the merged window against how it is cut: what WSM (arXiv 2507.17634) reports."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import measure_text, model_text, pma_text, scores_text
from drawing.description import Figure, Panel, figure
from drawing.parts import ZERO, gain_title, line, main_scores
from drawing.scores import pick, scores
from formats import quantity
from records import Study


def _panel(table: pd.DataFrame, unit: int, tokens: int, task: str, metric: str, name: str) -> Panel:
    """The gain over the length of the window, a line for each V."""
    merged = pick(table, tokens=tokens, task=task, metric=metric, method="sma")
    merged = merged.assign(length=merged["n"] * merged["interval"] / unit).sort_values("length")
    lines = []
    for i, (interval, rows) in enumerate(merged.groupby("interval")):
        lines.append(line(rows, "length", "gain", f"{interval / unit:g} V apart", style.color(i + 1), log=True))
    title = f"{gain_title(name)}, after {quantity(tokens)} tokens"
    ticks = {length: f"{length:g} V" for length in (5.0, 10.0, 20.0, 40.0)}
    look = {"levels": (ZERO,), "xticks": ticks, "log_base": 2}
    return Panel(title, "length N x V of the window", style.METRICS[metric].gain, tuple(lines), **look)


def describe(study: Study) -> Figure:
    """A row for each point of training: held-out text, and the average of the axes."""
    table = scores(study, "duration")
    unit = study.config("moe_main")["scale"]["merge_interval"]
    points = sorted(pick(table, method="sma")["tokens"].unique())
    rows = [[_panel(table, unit, tokens, *score) for score in main_scores(study)] for tokens in points]
    return figure(
        "The length of the merged window, cut into few snapshots or many",
        rows,
        (9, 6),
        model_text(study),
        pma_text([]),
        f"V is {quantity(unit)} tokens. The gain is over the last snapshot.",
        measure_text(study),
        scores_text(study, table),
        "The paper does not ask this; WSM (arXiv 2507.17634) reports that the length decides.",
        see="Where the colours lie on one another, the length of the window decides and not how it is cut.",
        lead=[rows[-1][0]],
    )
