"""What a drawn figure shows, read back from matplotlib, as charts for a page: the same numbers, drawn once.

A figure of analysis/figure_N.py is taken apart into panels (an Axes each) and series (a line, a group of bars, points,
a family of contours); each panel becomes a Bokeh chart with hover values and a table with the same values.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bokeh.embed import json_item
from bokeh.models import ColumnDataSource, FixedTicker, HoverTool, Span, Whisker
from bokeh.plotting import figure as bokeh_figure
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Colormap, to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.transforms import Transform

INK, GRID = "#1f2328", "#d5d9de"  # the page puts others in their place in dark mode
_DASHES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dotdash"}
_MARKERS = {
    "o": "circle",
    "s": "square",
    "^": "triangle",
    "v": "inverted_triangle",
    "*": "star",
    "X": "x",
    "D": "diamond",
}


@dataclass
class Series:
    """One line, group of bars or set of points.

    Attributes:
        kind: line | bar | points | contour | cells.
        y: for cells, their row; `values` holds what they show and `colors` each one's colour.
        width: of bars, in units of x.
        error: half length of error bars, or None.
        dash, marker: Bokeh's names; None for none.
    """

    kind: str
    label: str
    color: str
    x: np.ndarray
    y: np.ndarray
    width: float = 0.0
    error: np.ndarray | None = None
    dash: str | None = "solid"
    marker: str | None = None
    size: float = 6.0
    alpha: float = 1.0
    values: np.ndarray | None = None
    colors: list[str] | None = None


@dataclass
class Panel:
    """One Axes: its labels, limits and ticks (position, text), its series, and levels drawn across it.

    Attributes:
        table: rows of text where the Axes holds a table and no chart; the first is the head.
    """

    title: str
    labels: tuple[str, str]
    limits: tuple[tuple[float, float], tuple[float, float]]
    ticks: tuple[dict[float, str], dict[float, str]]
    logarithmic: tuple[bool, bool]
    series: list[Series] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)

    def at(self, x: float) -> str:
        """Text of a position on x: of its tick where ticks are names (bars), else the number."""
        if any(one.kind == "bar" for one in self.series):
            nearest = min(self.ticks[0], key=lambda tick: abs(tick - x), default=None)
            if nearest is not None:
                return " ".join(self.ticks[0][nearest].split())
        return f"{x:,.6g}"


def panels(figure: Figure) -> list[Panel]:
    """The Axes of a figure that show something, in reading order; colour bars are left out."""
    figure.canvas.draw()  # ticks and their texts are made here
    bars = {one.colorbar.ax for ax in figure.axes for one in ax.collections if getattr(one, "colorbar", None)}
    found = (_panel(ax) for ax in figure.axes if ax not in bars)
    return [panel for panel in found if panel.series or panel.table]


def caption(figure: Figure) -> str:
    """The figure's caption: the text under it."""
    below = [text for text in figure.texts if text.get_position()[1] < 0]
    return " ".join(below[0].get_text().split()) if below else ""


def _panel(ax: Axes) -> Panel:
    figure = ax.get_figure(root=True)
    label = ax.get_xlabel() or (figure.get_supxlabel() if ax.axison else "")
    panel = Panel(
        title=" ".join((ax.get_title(loc="left") or ax.get_title() or ax.get_ylabel()).split()),
        labels=(" ".join(label.split()), ", ".join(ax.get_ylabel().splitlines())),
        limits=(ax.get_xlim(), ax.get_ylim()),
        ticks=(_ticks(ax.get_xticks(), ax.get_xticklabels()), _ticks(ax.get_yticks(), ax.get_yticklabels())),
        logarithmic=(ax.get_xscale() == "log", ax.get_yscale() == "log"),
        table=_table(ax),
    )
    inside: set[Any] = set()  # artists that a container draws
    for container in ax.containers:
        if isinstance(container, BarContainer):
            panel.series.append(_bars(container))
        elif isinstance(container, ErrorbarContainer):
            line, caps, _ = container.lines
            inside.update([*caps, *([line] if line is not None else [])])
            if line is not None:
                panel.series.append(_line(line, container.get_label(), _half(container, line.get_ydata())))
    for line in ax.lines:
        if line in inside:
            continue
        if _follows(line.get_transform(), ax.transData):
            panel.series.append(_line(line, line.get_label(), None))
        else:
            panel.levels.append(float(line.get_ydata()[0]))
    for collection in ax.collections:
        if isinstance(collection, ContourSet):
            if not collection.filled:  # the lines between the fillings, in the colours of these
                filled = [c for c in ax.collections if isinstance(c, ContourSet) and c.filled]
                panel.series += _contours(collection, filled[0].cmap if filled else collection.cmap)
        elif isinstance(collection, PathCollection):
            x, y = np.asarray(collection.get_offsets(), dtype=float).T
            color = to_hex(collection.get_facecolor()[0])
            size = float(np.sqrt(collection.get_sizes()[0])) * 1.3
            name = _name(collection.get_label())
            panel.series.append(Series("points", name, color, x, y, marker="circle", size=size))
    panel.series += [_cells(image) for image in ax.images]
    return panel


def _follows(transform: Transform, other: Transform) -> bool:
    return all(transform.contains_branch_seperately(other))


def _ticks(places: np.ndarray, labels: list[Any]) -> dict[float, str]:
    texts = [label.get_text() for label in labels]
    return {float(at): text.replace("\u2212", "-") for at, text in zip(places, texts, strict=False) if text}


def _name(label: str) -> str:
    return "" if label.startswith("_") else label


def _half(container: ErrorbarContainer, y: np.ndarray) -> np.ndarray:
    """Half lengths of error bars."""
    segments = [np.asarray(s) for bars in container.lines[2] for s in bars.get_segments()]
    ends = [s[:, 1] if len(s) else np.array([np.nan, np.nan]) for s in segments]
    return np.array([(e[1] - e[0]) / 2 for e in ends]) if len(ends) == len(y) else np.full(len(y), np.nan)


def _bars(container: BarContainer) -> Series:
    patches = container.patches
    height = np.array([p.get_height() for p in patches])
    error = _half(container.errorbar, height) if container.errorbar is not None else None
    x = np.array([p.get_x() + p.get_width() / 2 for p in patches])
    color = to_hex(patches[0].get_facecolor())
    return Series("bar", _name(container.get_label()), color, x, height, float(patches[0].get_width()), error)


def _line(line: Line2D, label: str, error: np.ndarray | None) -> Series:
    return Series(
        "line",
        _name(label),
        to_hex(line.get_color()),
        np.asarray(line.get_xdata(), dtype=float),
        np.asarray(line.get_ydata(), dtype=float),
        error=error,
        dash=_DASHES.get(line.get_linestyle()),
        marker=_MARKERS.get(line.get_marker()),
        size=float(line.get_markersize()) * 1.5,
        alpha=float(line.get_alpha() or 1.0),
    )


def _cells(image: AxesImage) -> Series:
    shown = np.asarray(image.get_array(), dtype=float)
    left, right, bottom, top = image.get_extent()  # of rows drawn from the top, bottom is where the last one ends
    rows, columns = shown.shape
    row, column = (grid.ravel() + 0.5 for grid in np.indices(shown.shape))
    x, y = left + column * (right - left) / columns, top + row * (bottom - top) / rows
    colors = [to_hex(image.cmap(image.norm(value))) for value in shown.ravel()]
    return Series("cells", "", INK, x, y, values=shown.ravel(), colors=colors)


def _contours(contours: ContourSet, colors: Colormap) -> list[Series]:
    low, high = min(contours.levels), max(contours.levels)
    found = []
    for level, path in zip(contours.levels, contours.get_paths(), strict=True):
        share = (level - low) / (high - low) if high > low else 0.5
        color = to_hex(colors(share))
        for polygon in path.to_polygons(closed_only=False):
            found.append(Series("contour", f"{level:.4g}", color, polygon[:, 0], polygon[:, 1]))
    return found


def _table(ax: Axes) -> list[list[str]]:
    if not ax.tables:
        return []
    cells = ax.tables[0].get_celld()
    rows, columns = sorted({row for row, _ in cells}), sorted({column for _, column in cells})
    return [
        [cells[row, column].get_text().get_text() if (row, column) in cells else "" for column in columns]
        for row in rows
    ]


# ---- a panel as a chart, and as a table ------------------------------------------------------------------------------


def chart(panel: Panel) -> dict[str, Any]:
    """A Bokeh chart of a panel, JSON-ready, for Bokeh.embed.embed_item."""
    kinds = ["log" if log else "linear" for log in panel.logarithmic]
    plot = bokeh_figure(
        height=260,
        sizing_mode="stretch_width",
        x_axis_type=kinds[0],
        y_axis_type=kinds[1],
        x_range=panel.limits[0],
        y_range=panel.limits[1],
        tools="",
        toolbar_location=None,
        output_backend="canvas",
    )
    for level in panel.levels:
        plot.add_layout(Span(location=level, dimension="width", line_color=INK, line_width=1))
    for one in panel.series:
        _draw(plot, panel, one)
    for axis, ticks, label in zip((plot.xaxis[0], plot.yaxis[0]), panel.ticks, panel.labels, strict=True):
        axis.ticker = FixedTicker(ticks=list(ticks))
        axis.major_label_overrides = ticks
        axis.axis_label = textwrap.fill(label, 38)
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "11px"
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_line_color = axis.major_tick_line_color = GRID
        axis.minor_tick_line_color = None
    plot.grid.grid_line_color = GRID
    plot.grid.grid_line_alpha = 0.6
    plot.xgrid.visible = not any(one.kind == "bar" for one in panel.series)
    plot.background_fill_color = plot.border_fill_color = plot.outline_line_color = None
    return json_item(plot)


def _draw(plot: Any, panel: Panel, one: Series) -> None:
    data = {"x": one.x, "y": one.y, "at": [panel.at(x) for x in one.x], "series": [one.label] * len(one.x)}
    tip = "<b>@series</b><br>@at<br>@y{0.[0000]}"
    if one.error is not None:
        data |= {"low": one.y - one.error, "high": one.y + one.error, "error": one.error}
        tip += " \u00b1 @error{0.[0000]}"
    if one.kind == "contour":
        tip = "level @series"
    if one.kind == "cells":
        data |= {"value": one.values, "color": one.colors}
        tip = "row @y, column @x<br>@value{0.[0000]}"
    source = ColumnDataSource(data)
    drawn = []
    if one.kind == "cells":
        drawn.append(plot.rect("x", "y", 1, 1, color="color", line_color=None, source=source))
    if one.kind == "bar":
        bottom = panel.limits[1][0] if panel.limits[1][0] > 0 else 0.0
        drawn.append(plot.vbar(x="x", top="y", bottom=bottom, width=one.width, color=one.color, source=source))
    if one.kind in ("line", "contour") and one.dash is not None and len(one.x) > 1:
        width = 1.8 if one.kind == "line" else 1.2
        drawn.append(plot.line("x", "y", color=one.color, width=width, dash=one.dash, alpha=one.alpha, source=source))
    if one.marker is not None:
        look = {"fill_color": one.color, "line_color": INK if one.kind == "points" else one.color}
        drawn.append(plot.scatter("x", "y", marker=one.marker, size=one.size, source=source, **look))
    if one.error is not None:
        whisker = Whisker(source=source, base="x", upper="high", lower="low", line_color=INK, level="overlay")
        whisker.upper_head.size = whisker.lower_head.size = 5
        whisker.upper_head.line_color = whisker.lower_head.line_color = INK
        plot.add_layout(whisker)
    plot.add_tools(HoverTool(renderers=drawn[-1:], tooltips=tip, mode="mouse", visible=False))


def rows(panel: Panel) -> list[list[str]]:
    """The values of a panel as a table: series, x, y, error; of long curves 40 points, of contours none."""
    found = [["series", panel.labels[0] or "x", panel.labels[1] or "y", "\u00b1"]]
    if panel.series and panel.series[0].kind == "cells":
        found = [["", "column", "row", "value"]]
    for one in panel.series:
        if one.kind == "contour":
            continue
        if one.kind == "cells":
            cells = zip(one.y, one.x, one.values, strict=True)
            found += [["", f"{x:.0f}", f"{y:.0f}", f"{value:.4g}"] for y, x, value in cells if np.isfinite(value)]
            continue
        for i in np.unique(np.linspace(0, len(one.x) - 1, min(len(one.x), 40)).astype(int)):
            error = "" if one.error is None or not np.isfinite(one.error[i]) else f"{one.error[i]:.4g}"
            found.append([one.label, panel.at(one.x[i]), f"{one.y[i]:.5g}", error])
    return found


def legend(found: list[Panel]) -> dict[str, str]:
    """Colours of the series of a figure by name; contours have none."""
    return {s.label: s.color for panel in found for s in panel.series if s.label and s.kind != "contour"}
