"""The numbers behind a claim: a row a part and column, a dot a seed, the mean with its interval, what it must pass."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pandas as pd
import style
from formats import column_words
from verdicts.decide import Decision
from verdicts.judge import Judged, Numbers
from verdicts.rules import Part
from verdicts.student import Student

from drawing.captions import runs_text
from drawing.description import INK, Figure, Level, Line, Panel, figure
from drawing.numbers import strip_row

_WIDTH, _ROW, _FRAME = 9.0, 0.3, 0.75  # inches: of a picture, of a row, of what stands around the rows
_LETTERS, _TITLE = 46, 110  # of a row's name on a line, and of the title
_COLORS = {"holds": style.GREEN, "fails": style.RED, "open": style.SKY}  # of the mean, by the part's outcome


def describe_claim(decision: Decision) -> Figure | None:
    """Every number that a claim's verdict rests on; None where it has none."""
    parts = [judged for judged in decision.parts if _columns(judged)]
    if not parts:
        return None
    by_unit = [list(of_unit) for _, of_unit in groupby(parts, key=lambda judged: judged.part.unit)]
    rows = [sum(len(_columns(judged)) for judged in of_unit) for of_unit in by_unit]
    seeds = {seed for judged in parts for numbers in _numbers(judged) for seed in numbers.values.index}
    return figure(
        textwrap.fill(f"{decision.claim.name}: {decision.claim.text}", _TITLE),
        [[_panel(of_unit)] for of_unit in by_unit],
        (_WIDTH, sum(_ROW * count + _FRAME for count in rows)),
        f"{decision.claim.name}, {decision.verdict}. A number above 0 favours the claim; "
        "green: the part holds, vermilion: it fails, light blue: open, grey: shown, never counted.",
        "Dashed: the smallest effect worth naming, or minus the margin, which the mean has to pass.",
        runs_text(seeds),
        heights=tuple(count + 1.5 for count in rows),
        legend=False,
    )


def _numbers(judged: Judged) -> list[Numbers]:
    """What the confirmatory seeds say and what the exploratory ones do, as far as they are there."""
    return [numbers for numbers in (judged.evidence.numbers, judged.evidence.exploratory) if numbers is not None]


def _columns(judged: Judged) -> list[str]:
    return list(dict.fromkeys(column for numbers in _numbers(judged) for column in numbers.values))


def _panel(parts: Sequence[Judged]) -> Panel:
    series: list[Line] = []
    names: dict[float, str] = {}
    for judged in parts:
        columns = _columns(judged)
        for i, column in enumerate(columns):
            at = -float(len(names))
            names[at] = _name(judged.part, column if len(columns) > 1 else "", first=i == 0)
            series += _row(judged, column, at)
    ends = (min(names) - 0.6, 0.6)
    return Panel("", parts[0].part.unit, "", tuple(series), (Level(0.0, upright=True),), yticks=names, ylim=ends)


def _name(part: Part, column: str, first: bool) -> str:
    """Letter and words of a part at its first row; a column's own at the others."""
    text = f"{part.name}  {part.says}" if first else ""
    text = ": ".join(filter(None, (text, column_words(column))))
    return textwrap.fill(text.replace(" V", "\u00a0V"), _LETTERS)  # 25 V stays on one line


def _row(judged: Judged, column: str, at: float) -> list[Line]:
    """Dots, mean and interval of one column, and a mark at what it has to pass."""
    values, hollow = [], []
    for numbers, exploratory in ((judged.evidence.exploratory, True), (judged.evidence.numbers, False)):
        if numbers is not None and column in numbers.values:
            values.append(numbers.values[column])
            hollow += [exploratory] * len(numbers.values)
    counted = judged.columns.get(column, Student.of([]))
    half = counted.interval()[1] - counted.mean
    color = _COLORS.get(judged.outcome, style.GREY)
    marks = [
        Line("", INK, np.full(2, threshold), np.array([at - 0.4, at + 0.4]), dash="--", width=0.9)
        for threshold in _thresholds(judged)
    ]
    return [strip_row(pd.concat(values), hollow, at, counted.mean, half, color), *marks]


def _thresholds(judged: Judged) -> list[float]:
    """The smallest effect, minus the margin, or both sides of a level."""
    part, margin = judged.part, judged.margin
    if part.rule in ("above", "all_above"):
        return [part.smallest] if part.smallest else []
    if math.isnan(margin):
        return []
    return {"level": [-margin, margin], "bound": [margin]}.get(part.rule, [-margin])
