"""A described panel as a chart for the page (Bokeh), and as a table with the same values.

page.js shows the values under a pointer, a finger or the arrow keys; it knows a series by its renderer's name.
"""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib
import numpy as np
from bokeh.embed import json_item
from bokeh.models import BasicTickFormatter, ColumnDataSource, FixedTicker, Range1d, Span, Whisker
from bokeh.plotting import figure as bokeh_figure
from formats import quantity
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator

from drawing.description import INK as BLACK
from drawing.description import Bars, Cells, Contour, Dots, Line, Panel, Table

INK, GRID = "#1f2328", "#d5d9de"  # page.js puts others in their place in dark mode
_DASHES = {"-": "solid", "--": "dashed", ":": "dotted"}
_MARKERS = {
    "o": "circle", "s": "square", "^": "triangle", "v": "inverted_triangle", "*": "star", "X": "x", "D": "diamond",
}  # fmt: skip
_TABLE_ROWS = 40  # of one series, at most

Limits = tuple[float, float]


def limits(panel: Panel) -> tuple[Limits, Limits]:
    """Lowest and highest x and y that a chart shows."""
    first = panel.series[0]
    if isinstance(first, Cells):
        count = len(first.values)
        return (0.5, count + 0.5), (count + 0.5, 0.5)
    if isinstance(first, Contour):
        return (first.x.min(), first.x.max()), (first.y.min(), first.y.max())
    drawn = [series for series in panel.series if isinstance(series, Line | Bars)]
    x, y = (np.concatenate([places for series in drawn for places in _places(series, axis)]) for axis in "xy")
    x = np.append(x, [level.at for level in panel.levels if level.upright])
    low, high = _padded(np.append(y, [level.at for level in panel.levels if not level.upright]))
    given = panel.ylim
    across = panel.across_names or _padded(x, bool(panel.log_base))
    return across, (low if given[0] is None else given[0], high if given[1] is None else given[1])


def _places(series: Line | Bars, axis: str) -> list[np.ndarray]:
    """All places of a series along x or y, with the ends of its intervals and its dots."""
    middle = np.asarray(getattr(series, axis), dtype=float)
    along = "x" if isinstance(series, Line) and series.across else "y"
    error = _error(series) if axis == along else np.zeros(len(middle))
    return [middle - error, middle + error, *([getattr(series.dots, axis)] if series.dots else [])]


def _error(series: Line | Bars) -> np.ndarray:
    return np.zeros(len(series.y)) if series.error is None else np.nan_to_num(series.error)


def _padded(values: np.ndarray, logarithmic: bool = False) -> Limits:
    values = values[np.isfinite(values)]
    if logarithmic:
        low, high = _padded(np.log(values))
        return float(np.exp(low)), float(np.exp(high))
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def chart(panel: Panel) -> dict[str, Any]:
    """A Bokeh chart of a panel, JSON-ready, for Bokeh.embed.embed_item in the page."""
    across, upright = limits(panel)
    plot = bokeh_figure(
        height=260,
        sizing_mode="stretch_width",
        x_axis_type="log" if panel.log_base else "linear",
        x_range=Range1d(*across),
        y_range=Range1d(*upright),
        tools="",
        toolbar_location=None,
        output_backend="canvas",
    )
    for level in panel.levels:
        dash, color = _DASHES[level.dash], _ink(level.color, panel)
        along = "height" if level.upright else "width"
        plot.add_layout(Span(location=level.at, dimension=along, line_color=color, line_width=1, line_dash=dash))
    for series in panel.series:
        if isinstance(series, Line):
            _line(plot, panel, series)
        elif isinstance(series, Bars):
            _bars(plot, panel, series, upright)
        elif isinstance(series, Contour):
            _contour(plot, series)
        else:
            _cells(plot, series)
    _axes(plot, panel, across)
    return json_item(plot)


def _ink(color: str, panel: Panel) -> str:
    # What is black follows the page's colour scheme, but not on a contour, whose colours are the same in both.
    on_contour = isinstance(panel.series[0], Contour)
    return INK if color == BLACK and not on_contour else color


def _axes(plot: Any, panel: Panel, across: Limits) -> None:
    ticks = dict(panel.xticks)
    if panel.tokens:
        places = MaxNLocator(4).tick_values(*across)
        ticks = {float(at): quantity(at) for at in places if across[0] <= at <= across[1]}
    if ticks:
        plot.xaxis[0].ticker = FixedTicker(ticks=list(ticks))
        plot.xaxis[0].major_label_overrides = ticks
    plot.yaxis[0].formatter = BasicTickFormatter(use_scientific=False)
    if panel.yticks:
        plot.yaxis[0].ticker = FixedTicker(ticks=list(panel.yticks))
        plot.yaxis[0].major_label_overrides = dict(panel.yticks)
    for axis, label in ((plot.xaxis[0], panel.xlabel), (plot.yaxis[0], ", ".join(panel.ylabel.splitlines()))):
        axis.axis_label = textwrap.fill(label, 38)
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "11px"
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_line_color = axis.major_tick_line_color = GRID
        axis.minor_tick_line_color = None
    plot.grid.grid_line_color = GRID
    plot.grid.grid_line_alpha = 0.6
    plot.xgrid.visible = not any(isinstance(series, Bars) for series in panel.series)
    plot.background_fill_color = plot.border_fill_color = plot.outline_line_color = None


def _add_error(plot: Any, source: ColumnDataSource, series: Line | Bars) -> None:
    """Add error bars, if there are any."""
    if series.error is None:
        return
    across = isinstance(series, Line) and series.across
    middle = series.x if across else series.y
    for name, values in (("low", middle - series.error), ("high", middle + series.error), ("error", series.error)):
        source.data[name] = values
    if isinstance(series, Line) and series.band:
        plot.varea(x="x", y1="low", y2="high", source=source, color=series.color, alpha=0.18)
        return
    ends = {"base": "y" if across else "x", "upper": "high", "lower": "low"}
    whisker = Whisker(source=source, dimension="width" if across else "height", **ends, level="overlay", line_color=INK)
    whisker.upper_head.size = whisker.lower_head.size = 5
    whisker.upper_head.line_color = whisker.lower_head.line_color = INK
    plot.add_layout(whisker)


def _add_dots(plot: Any, dots: Dots | None, color: str) -> None:
    """Add single runs, if there are any; without a name, as page.js reads the means alone."""
    if dots is None:
        return
    fill = [None if hollow else color for hollow in dots.hollow]
    source = ColumnDataSource({"x": dots.x, "y": dots.y, "fill": fill})
    look = {"size": 3.5, "line_color": color, "line_width": 0.8, "alpha": 0.7}
    plot.scatter("x", "y", marker="circle", fill_color="fill", source=source, **look)


def _line(plot: Any, panel: Panel, line: Line) -> None:
    _add_dots(plot, line.dots, _ink(line.color, panel))
    source = ColumnDataSource({"x": line.x, "y": line.y})
    if line.dash and len(line.x) > 1:
        width, dash = max(0.8, 1.2 * line.width), _DASHES[line.dash]
        drawn = plot.line(
            "x", "y", color=_ink(line.color, panel), width=width, dash=dash, alpha=line.alpha, source=source
        )
    if line.marker:
        look = {"fill_color": line.fill or line.color, "line_color": _ink(line.edge or line.color, panel)}
        if line.marker == "X":  # Bokeh's cross has no inside: it is drawn twice, wide for the edge
            plot.scatter("x", "y", marker="x", size=1.5 * line.size, line_width=6, line_color=INK, source=source)
            look = {"line_color": line.fill or line.color, "line_width": 3}
        drawn = plot.scatter("x", "y", marker=_MARKERS[line.marker], size=1.5 * line.size, source=source, **look)
    drawn.name = line.label or None
    _add_error(plot, source, line)


def _bars(plot: Any, panel: Panel, bars: Bars, upright: Limits) -> None:
    source = ColumnDataSource({"x": bars.x, "y": bars.y, "group": [group_at(panel, x) for x in bars.x]})
    bottom = max(upright[0], 0.0)
    look = {"width": bars.width, "color": bars.color, "name": bars.label or None}
    plot.vbar(x="x", top="y", bottom=bottom, source=source, **look)
    _add_dots(plot, bars.dots, INK)
    _add_error(plot, source, bars)


def _contour(plot: Any, contour: Contour) -> None:
    colors = matplotlib.colormaps[contour.colors]
    fill = [to_hex(colors(share)) for share in np.linspace(0, 1, len(contour.levels) - 1)]
    grid = contour.x, contour.y, contour.values
    drawn = plot.contour(*grid, levels=contour.levels.tolist(), fill_color=fill, line_color="white", line_width=0.5)
    bar = drawn.construct_color_bar(width=10, major_label_text_color=INK, background_fill_color=None)
    plot.add_layout(bar, "right")


def _cells(plot: Any, cells: Cells) -> None:
    colors, limit = matplotlib.colormaps[cells.colors], np.abs(cells.values).max()
    row, column = (index.ravel() + 1 for index in np.indices(cells.values.shape))
    shown = cells.values.ravel()
    fill = [to_hex(colors(0.5 + 0.5 * value / limit)) for value in shown]
    source = ColumnDataSource({"x": column, "y": row, "value": shown, "color": fill})
    plot.rect("x", "y", 1, 1, color="color", line_color=None, source=source)


def group_at(panel: Panel, x: float) -> str:
    """Name of the group of bars that stands at x."""
    nearest = min(panel.xticks, key=lambda tick: abs(tick - x))
    return " ".join(panel.xticks[nearest].split())


def rows(content: Panel | Table) -> list[list[str]]:
    """The values of a panel as a table, its head first. Long curves give 40 points, contours none."""
    if isinstance(content, Table):
        return [["", *content.head], *map(list, content.rows)]
    if isinstance(content.series[0], Cells):
        matrix = content.series[0].values
        cells = [["", str(j + 1), str(i + 1), f"{matrix[i, j]:.4g}"] for i, j in np.ndindex(matrix.shape)]
        return [["", "column", "row", "value"], *cells]
    table = [["series", content.xlabel or "at", ", ".join(content.ylabel.splitlines()) or "value", "\u00b1"]]
    grouped = any(isinstance(series, Bars) for series in content.series)
    for series in content.series:
        unnamed = isinstance(series, Line) and not series.label and not series.across  # a mark, or behind a named one
        if unnamed or not isinstance(series, Line | Bars):
            continue
        for i in np.unique(np.linspace(0, len(series.x) - 1, min(len(series.x), _TABLE_ROWS)).astype(int)):
            error = _error(series)[i] if series.error is not None and np.isfinite(series.error[i]) else None
            at = group_at(content, series.x[i]) if grouped else f"{series.x[i]:,.6g}"
            number = series.y[i]
            if isinstance(series, Line) and series.across:
                at, number = " ".join(content.yticks[series.y[i]].split()), series.x[i]
            table.append([series.label, at, f"{number:.5g}", "" if error is None else f"{error:.4g}"])
    return table
