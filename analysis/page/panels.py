"""Panels of a figure for the page's templates: each with a title of its own, in groups under one legend."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from drawing import chart
from drawing.description import Bars, Block, Line, Panel

from page.legend import entries, shared

_TASKS = ("four axes", "held-out text")  # what a panel's y label may begin with, on a line of its own
_ROW, _FRAME = 30, 60  # pixels: of a row of a strip, and around the rows


def packed(content: bytes) -> str:
    """Bytes as the page keeps them, which page.js unpacks: a fifth of the text."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def shown(panel: Panel, own_legend: bool = False) -> dict[str, Any]:
    """A panel for the template: title, chart as packed JSON, text for those who do not see it, a legend of its own.

    A strip of dots has a row for each of its names, and its height (strip, in pixels) follows.
    """
    strip = any(isinstance(series, Line) and series.across for series in panel.series)
    ylabel = ", ".join(panel.ylabel.splitlines())
    names = ", ".join(entries([panel]))
    alt = f"{panel.title}: {ylabel or 'values'} over {panel.xlabel or 'groups'}" + (f"; {names}" if names else "")
    return {
        "title": panel.title,
        "item": packed(json.dumps(chart.chart(panel), separators=(",", ":")).encode()),
        "alt": f"{alt}. Arrow keys read the values; a table of them stands under Values and records.",
        "legend": entries([panel]) if own_legend else {},
        "strip": _ROW * len(panel.yticks) + _FRAME if strip else 0,
    }


def named(block: Block) -> dict[int, Panel]:
    """A block's panels by the id of the original, each with a title and a y label that need no neighbour.

    In a picture a row shares the label of its first panel, and a column the title of its upper one.
    """
    panels: dict[int, Panel] = {}
    above: dict[int, str] = {}
    for row in block.rows:
        first = next((part.ylabel for part in row if isinstance(part, Panel)), "")
        for column, panel in enumerate(row):
            if not isinstance(panel, Panel):
                continue
            ylabel, title = panel.ylabel or first, " ".join(panel.title.split())
            task, _, rest = ylabel.partition("\n")
            if task in _TASKS:
                ylabel = rest
            if not title:
                bars = entries([panel]) == {} and panel.xticks
                what = " and ".join(panel.xticks.values()) if bars else ylabel.split("(")[0].strip()
                title = f"{above.get(column, '')}: {what}".removeprefix(": ")
            above.setdefault(column, ", ".join(panel.title.partition("\n(")[0].splitlines()))
            title += f", {task}" if task in _TASKS else ""
            # Bars of gains reach to zero; a picture leaves room under them for their numbers.
            ylim = (None, None) if panel.levels and isinstance(panel.series[0], Bars) else panel.ylim
            panels[id(panel)] = replace(panel, title=title or " ".join(ylabel.split()), ylabel=ylabel, ylim=ylim)
    return panels


def group(heading: str, panels: Sequence[Panel]) -> dict[str, Any]:
    """Panels under one heading, with one legend, or one each where they name different things."""
    legend = shared(panels)
    return {"heading": heading, "legend": legend, "panels": [shown(panel, legend is None) for panel in panels]}
