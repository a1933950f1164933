"""The legend of a group of panels: each named series with a swatch that has its colour, its dash and its marker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from drawing.description import INK, Bars, Level, Line, Panel
from markupsafe import Markup

OF_PAPER = "the paper: "  # a series of the paper's own numbers is called so, and its setting; one entry for all
_DASHES = {"-": "", "--": ' stroke-dasharray="5 3"', ":": ' stroke-dasharray="1.5 3"'}
# Markers around the middle of the swatch, (14, 7).
_SHAPES = {
    "s": "M10 3h8v8h-8z",
    "^": "M14 2l5 9h-10z",
    "v": "M14 12l5-9h-10z",
    "D": "M14 1l5 6l-5 6l-5-6z",
    "*": "M14 1l1.6 4.2l4.6.2l-3.6 2.8l1.2 4.4l-3.8-2.5l-3.8 2.5l1.2-4.4l-3.6-2.8l4.6-.2z",
    "X": "M11 2l3 3l3-3l2 2l-3 3l3 3l-2 2l-3-3l-3 3l-2-2l3-3l-3-3z",
    "o": "M14 2.5a4.5 4.5 0 1 0 .01 0z",
}


def _color(name: str) -> str:
    return "currentColor" if name == INK else name


def swatch(series: Line | Bars | Level) -> Markup:
    """What stands before a name: a piece of the line with its marker, or of the bar."""
    color = _color(series.color)
    if isinstance(series, Bars):
        parts = f'<path d="M7 1h14v12h-14z" fill="{color}"/>'
    else:
        parts = f'<path d="M0 7h28" stroke="{color}" stroke-width="2"{_DASHES[series.dash]}/>' if series.dash else ""
        if isinstance(series, Line) and series.marker:
            look = f'fill="{_color(series.fill or series.color)}" stroke="{_color(series.edge or series.color)}"'
            parts += f'<path d="{_SHAPES[series.marker]}" {look}/>'
    return Markup(f'<svg width="28" height="14" aria-hidden="true">{parts}</svg>')


def entries(panels: Iterable[Panel]) -> dict[str, Markup]:
    """Names and swatches of the named series of some panels, in order; the paper last."""
    ours: dict[str, Markup] = {}
    paper: dict[str, Markup] = {}
    for panel in panels:
        for series in (*panel.series, *panel.levels):
            if isinstance(series, Line | Bars | Level) and series.label:
                if series.label.startswith(OF_PAPER):
                    paper["the paper"] = swatch(series)
                else:
                    ours.setdefault(series.label, swatch(series))
    return ours | paper


def shared(panels: Sequence[Panel]) -> dict[str, Any] | None:
    """The one legend of a group of panels; None where they need one each, since what they name differs."""
    named = [set(entries([panel])) for panel in panels]
    widest = max(named, key=len, default=set())
    return entries(panels) if all(names <= widest for names in named) else None
