"""What docs/choosing.md says in numbers: the gain by N and V, by method, and by learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from drawing.scores import AVERAGE_BITS, Z95, pick, scores
from formats import millions, quantity, rate
from records import Study
from verdicts.tables import markdown_table

_METHODS = {"sma": "SMA (all alike)", "wma": "WMA (linear)", "ema_0.2": "EMA(0.2)", "ema_0.1": "EMA(0.1)"}


def choosing_blocks(study: Study) -> dict[str, str]:
    """The blocks of docs/choosing.md by name.

    Raises:
        Missing: when records of Figures 4, 5 or of the learning-rate study are not there.
    """
    return {
        "windows": windows(study),
        "methods": methods(study),
        "rates": rates(study),
    }


def _gain(row: Any) -> str:
    return f"{row.gain:+.3f} ± {Z95 * row.gain_error:.3f}"


def _points(table: pd.DataFrame) -> list[str]:
    return [f"at {millions(tokens)}" for tokens in sorted(table["tokens"].unique())]


def _grid(table: pd.DataFrame, rows: Sequence[tuple[list[str], dict[str, Any]]]) -> list[list[str]]:
    """A row of cells for each setting: gains at every point, the best of a point in bold, none where not scored."""
    points = sorted(table["tokens"].unique())
    best = table.groupby("tokens")["gain"].max()
    cells = []
    for heads, setting in rows:
        of_setting = table
        for column, value in setting.items():
            of_setting = of_setting[of_setting[column] == value]
        gains = {row.tokens: row for row in of_setting.itertuples()}
        texts = []
        for point in points:
            text = _gain(gains[point]) if point in gains else ""
            texts.append(f"**{text}**" if point in gains and gains[point].gain == best[point] else text)
        cells.append([*heads, *texts])
    return cells


def windows(study: Study) -> str:
    """Figure 5: the gain for every N and V at four points of training."""
    table = pick(scores(study, "figure_5"), method="sma", **AVERAGE_BITS)
    unit = study.config("moe_main")["scale"]["merge_interval"]
    settings = sorted({(int(n), int(v)) for n, v in zip(table["n"], table["interval"], strict=True)})
    settings.sort(key=lambda setting: ((setting[0] - 1) * setting[1], setting))
    rows = [([str(n), f"{v / unit:g} V", quantity((n - 1) * v)], {"n": n, "interval": v}) for n, v in settings]
    header = ["N", "apart", "window, tokens", *_points(table)]
    return "\n".join(markdown_table(header, _grid(table, rows)))


def methods(study: Study) -> str:
    """Figure 4: the gain of every method at four points of training."""
    table = pick(scores(study, "figure_4"), **AVERAGE_BITS)
    table = table[table["method"].isin(_METHODS)]
    rows = [([words], {"method": method}) for method, words in _METHODS.items()]
    header = ["weights", *_points(table)]
    return "\n".join(markdown_table(header, _grid(table, rows)))


def rates(study: Study) -> str:
    """The learning-rate study: gain and score at the end, for every peak rate."""
    table = pick(scores(study, "learning_rate"), **AVERAGE_BITS)
    end = table["tokens"].max()
    rows = []
    for run in table["run"].unique():
        merged = pick(table, run=run, method="sma", tokens=end).iloc[0]
        last = pick(table, run=run, method="last", tokens=end).iloc[0]
        peak = study.config(run)["schedule"]["peak_lr"]
        rows.append((peak, [rate(peak), _gain(merged), f"{last.value:.3f}", f"{merged.value:.3f}"]))
    header = ["peak learning rate", "gain", "last snapshot", "merge"]
    return "\n".join(markdown_table(header, [row for _, row in sorted(rows)]))
