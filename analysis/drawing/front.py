"""The README's picture: constant learning rate, annealing and PMA, with their names on the lines, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import style
from formats import quantity
from matplotlib.ticker import MaxNLocator

from drawing.description import Line, Panel
from drawing.picture import vector

_SIZE = (7.3, 3.8)  # inches; 700 pixels wide
_TITLE = "Bits per byte of held-out text (lower is better) over training tokens"
_NAMES = {style.GREY: "constant learning rate", style.ORANGE: "annealing", style.BLUE: "merged (PMA)"}
_APART = 0.07  # of the height of the axes, from one name to the next


@dataclass(frozen=True)
class Look:
    """Colours on a page that is light or dark.

    Attributes:
        ink: of axes and words.
        names: colour of each line and its name, by the colour that it has in the figures.
    """

    ink: str
    names: dict[str, str]


LOOKS = {
    "light": Look("#1f2328", {style.GREY: "#6e7681", style.ORANGE: "#b35900", style.BLUE: style.BLUE}),
    "dark": Look("#e6edf3", {style.GREY: "#9198a1", style.ORANGE: style.ORANGE, style.BLUE: style.SKY}),
}


def front(panel: Panel, look: Look, made_from: str) -> str:
    """A panel of lines as SVG for a page's top, on no background."""
    lines = [series for series in panel.series if isinstance(series, Line)]
    colors = {"axes.edgecolor": look.ink, "text.color": look.ink, "xtick.color": look.ink, "ytick.color": look.ink}
    with plt.rc_context({**style.MATPLOTLIB, **colors, "font.size": 12, "lines.markersize": 5.5}):
        canvas, ax = plt.subplots(figsize=_SIZE)
        for line in lines:
            color = look.names[line.color]
            ax.plot(line.x, line.y, color=color, lw=2, marker=line.marker)
            if line.error is not None:
                ax.fill_between(line.x, line.y - line.error, line.y + line.error, color=color, alpha=0.15, lw=0)
        low, high = ax.get_ylim()
        for line, y in spread(lines, _APART * (high - low)):
            place = {"xytext": (10, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
            ax.annotate(_NAMES[line.color], (line.x[-1], y), color=look.names[line.color], fontweight="bold", **place)
        ax.set_title(_TITLE, fontsize=13)
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        ax.xaxis.set_major_formatter(lambda value, _: quantity(value))
        ax.grid(axis="y", color=look.ink, alpha=0.15, lw=0.8)
        text = vector(canvas, _TITLE, made_from, transparent=True)
    plt.close(canvas)
    return text


def spread(lines: Sequence[Line], apart: float) -> list[tuple[Line, float]]:
    """Lines from the lowest end up, with the height of each name: its line's end, or higher where names would touch."""
    placed: list[tuple[Line, float]] = []
    for line in sorted(lines, key=lambda line: line.y[-1]):
        floor = placed[-1][1] + apart if placed else -math.inf
        placed.append((line, max(float(line.y[-1]), floor)))
    return placed
