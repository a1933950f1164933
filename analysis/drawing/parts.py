"""Pieces that several figures share: grouped bars, lines with errors, the paper's table, the zero line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from formats import quantity
from records import Study
from style import GREY, METRICS

from drawing.captions import PAPER
from drawing.description import Bars, Level, Line, Panel, Table
from drawing.scores import error_of, pick
from pma.records import SIGNAL_TO_NOISE_MINIMUM

ZERO = Level(0.0)


def line(rows: pd.DataFrame, x: str, column: str, label: str, color: str, errors: bool = False, **look: Any) -> Line:
    """A line of `column` (value or gain) of a table of scores over column `x`, with its error bars if asked for."""
    error = rows[error_of(column)].to_numpy() if errors else None
    look = {"marker": "o", **look}
    return Line(label, color, rows[x].to_numpy(dtype=float), rows[column].to_numpy(), error, **look)


def grouped_bars(
    table: pd.DataFrame,
    by: str,
    groups: dict[Any, str],
    colors: dict[str, str],
    metric: str,
    column: str,
    title: str,
    xlabel: str = "",
) -> Panel:
    """A panel of grouped bars: a group for each value of column `by`, a bar for each setting.

    Args:
        table: scores of one task and metric, with a column `setting`.
        groups: values of `by` and their names, in order.
        colors: of the settings, in order. Gains leave out the grey one, which is what they are gains over.
        column: value or gain. The axis of values starts near the lowest bar, that of gains holds 0.
    """
    drawn = METRICS[metric]
    number = drawn.number if column == "value" else "+" + drawn.number
    settings = {s: color for s, color in colors.items() if column == "value" or color != GREY}
    width = 0.84 / len(settings)
    bars, ends = [], []
    for index, (setting, color) in enumerate(settings.items()):
        rows = table[table["setting"] == setting].set_index(by).reindex(list(groups))
        x = np.arange(len(groups)) + (index - (len(settings) - 1) / 2) * width
        height, error = rows[column].to_numpy(), rows[error_of(column)].fillna(0).to_numpy()
        bars.append(Bars(setting, color, x, height, error, 0.92 * width, number))
        ends += [height - error, height + error]
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    if column == "gain":
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.45 * (high - low) or 0.1 * abs(high) or 1.0
    below = 1 if low < 0 else 0 if column == "gain" else 0.4
    return Panel(
        title,
        xlabel,
        (drawn.label if column == "value" else drawn.gain).replace(", ", "\n"),
        tuple(bars),
        levels=(ZERO,) if column == "gain" else (),
        xticks=dict(enumerate(groups.values())),
        ylim=(low - room * below, high + room * (high > 0)),
    )


def paper_table(name: str, settings: Iterable[str]) -> Table:
    """The paper's own numbers by point of training and setting."""
    paper = pd.read_csv(PAPER / f"{name}.csv")
    points, settings = sorted(paper["tokens_billions"].unique()), list(settings)

    def cell(setting: str, point: int) -> str:
        rows = paper[(paper["setting"] == setting) & (paper["tokens_billions"] == point)]
        if rows.empty:
            return "–"
        low, high = rows.iloc[0][["low", "high"]]
        return f"{low:g}" if low == high else f"{low:g}–{high:g}"

    rows = tuple((f"{point}B", *(cell(setting, point) for setting in settings)) for point in points)
    title = "the paper (1.3B/13B, its benchmark average; places inferred)"
    return Table(title, tuple(settings), rows, of_paper=True)


def value_and_gain_rows(study: Study, table: pd.DataFrame, colors: dict[str, str]) -> list[list[Panel]]:
    """Two rows of grouped bars over points of training, a column a metric: the values, under them the gains.

    Args:
        table: scores with a column `setting`; rows without a setting are left out.
    """
    groups = {tokens: quantity(tokens) for tokens in sorted(table.dropna(subset="setting")["tokens"].unique())}
    values, gains = [], []
    for task, metric, title in _columns(study):
        rows = pick(table, task=task, metric=metric)
        values.append(grouped_bars(rows, "tokens", groups, colors, metric, "value", title))
        name = f"gain, {title.splitlines()[0]}"
        gains.append(grouped_bars(rows, "tokens", groups, colors, metric, "gain", name, "training tokens"))
    return [values, gains]


def _columns(study: Study) -> list[tuple[str, str, str]]:
    """(task, metric, title) of what is drawn: bits per byte always, average accuracy where it moves."""
    ratios = study.signal_to_noise()
    names = {
        ("average", "acc"): "accuracy on the four axes",
        ("average", "bits_per_byte"): "right answers of the four axes",
        ("heldout", "bits_per_byte"): "held-out text of all domains",
    }
    moves = ratios.get(("average", "acc"), 0) >= SIGNAL_TO_NOISE_MINIMUM
    return [
        (*key, f"{name}\n(signal to noise {ratios[key]:.0f})")
        for key, name in names.items()
        if key[1] != "acc" or moves
    ]
