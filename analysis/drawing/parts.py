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
from drawing.description import Bars, Dots, Level, Line, Panel, Table
from drawing.scores import counted_seeds, error_of, measure, of_seeds, pick
from pma.records import SIGNAL_TO_NOISE_MINIMUM

ZERO = Level(0.0)
_NUMBERED = 20  # bars of a panel that have room for a number each
_SPREAD = 0.25  # of the dots at one place of a line, in gaps between its places


def line(
    rows: pd.DataFrame,
    x: str,
    column: str,
    label: str,
    color: str,
    errors: bool = True,
    log: bool = False,
    spread: float | None = None,
    **look: Any,
) -> Line:
    """A line of `column` (value or gain) of a table of scores over column `x`, with intervals and a dot a seed.

    Args:
        log: whether the x axis is logarithmic.
        spread: of the dots at one place; a quarter of the smallest gap between places if not given.
    """
    places, means = rows[x].to_numpy(dtype=float), rows[column].to_numpy()
    if spread is None:
        gaps = np.diff(np.unique(np.log(places) if log else places))
        spread = _SPREAD * gaps.min() if len(gaps) else 0.0
    dots = dots_of(rows[of_seeds(column)], places, spread, log)
    error = rows[error_of(column)].to_numpy() if errors else None
    return Line(label, color, places, means, error, dots=dots, **{"marker": "o", **look})


def dots_of(numbers: Iterable[dict[int, float]], x: Iterable[float], width: float, log: bool = False) -> Dots | None:
    """A dot for every seed at each place, side by side over `width`; none where there is one seed alone.

    Args:
        numbers: by seed, a dictionary a place.
        log: `width` is in natural logarithms of x.
    """
    rows = []
    for of_place, place in zip(numbers, x, strict=True):
        seeds, counted = sorted(of_place), counted_seeds(of_place)
        if len(seeds) > 1:
            shifts = width * (np.arange(len(seeds)) / (len(seeds) - 1) - 0.5)
            for seed, shift in zip(seeds, shifts, strict=True):
                rows.append((place * np.exp(shift) if log else place + shift, of_place[seed], seed not in counted))
    if not rows:
        return None
    at, value, hollow = zip(*rows, strict=True)
    return Dots(np.array(at, dtype=float), np.array(value, dtype=float), np.array(hollow))


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
    settings = {s: color for s, color in colors.items() if column == "value" or color != GREY}
    number = drawn.number if column == "value" else "+" + drawn.number
    if column == "value" and len(settings) * len(groups) > _NUMBERED:
        number = ""
    width = 0.84 / len(settings)
    bars, ends = [], []
    for index, (setting, color) in enumerate(settings.items()):
        rows = table[table["setting"] == setting].set_index(by).reindex(list(groups))
        x = np.arange(len(groups)) + (index - (len(settings) - 1) / 2) * width
        height, error = rows[column].to_numpy(), rows[error_of(column)].fillna(0).to_numpy()
        of_group = [seeds if isinstance(seeds, dict) else {} for seeds in rows[of_seeds(column)]]
        dots = dots_of(of_group, x, 0.6 * width)
        bars.append(Bars(setting, color, x, height, error, 0.92 * width, number, dots=dots))
        ends += [height - error, height + error, *([] if dots is None else [dots.y])]
    low, high = (float(of(np.concatenate(ends))) for of in (np.nanmin, np.nanmax))
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


def main_scores(study: Study) -> list[tuple[str, str, str]]:
    """(task, metric, name) of what is drawn first: held-out text, which decides, then the average of the axes."""
    return [("heldout", "bits_per_byte", "held-out text"), ("average", measure(study), "average of four axes")]


def gain_title(name: str) -> str:
    """Title of a panel of gains on a score that `main_scores` names."""
    return f"gain, {name.removeprefix('average of ')}"


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
        ("heldout", "bits_per_byte"): "held-out text of all domains",
        ("average", "bits_per_byte"): "right answers of the four axes",
        ("average", "acc"): "accuracy on the four axes",
    }
    moves = ratios.get(("average", "acc"), 0) >= SIGNAL_TO_NOISE_MINIMUM
    return [
        (*key, f"{name}\n(signal to noise {ratios[key]:.0f})")
        for key, name in names.items()
        if key[1] != "acc" or moves
    ]
