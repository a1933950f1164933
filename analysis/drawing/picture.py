"""A described figure as a picture: OUT/NAME.png and .pdf, or one SVG, drawn with matplotlib."""

from __future__ import annotations

import io
import math
import os
import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from formats import quantity
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from style import MATPLOTLIB

from drawing.description import INK, Bars, Block, Cells, Contour, Dots, Figure, Line, Panel, Table
from pma.files import write_text

_LETTERS_PER_INCH = 17.5  # of captions and legends
_MANY_COLUMNS = 8  # their names need a smaller font
_ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0, "columnspacing": 1.4}


def save(figure: Figure, out: Path, name: str) -> None:
    """Publish a figure as OUT/NAME.png and .pdf, and its further files beside them."""
    out.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(MATPLOTLIB):
        canvas = draw(figure)
        for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", None)):
            aside = out / f".{name}.partial{suffix}"
            canvas.savefig(aside, dpi=160, bbox_inches="tight", metadata=metadata)
            os.replace(aside, out / f"{name}{suffix}")
    plt.close(canvas)
    for file_name, text in figure.texts.items():
        write_text(out / file_name, text)


def svg(figure: Figure, made_from: str) -> str:
    """A figure as SVG without its caption, which stands in words beside it and is kept in the file."""
    with plt.rc_context(MATPLOTLIB):
        canvas = draw(figure, caption=False)
        text = vector(canvas, figure.title, made_from, figure.caption, bbox_inches="tight")
    plt.close(canvas)
    return text


def vector(canvas: Canvas, title: str, made_from: str, caption: str = "", **options: Any) -> str:
    """A drawn figure as SVG: letters as outlines, so that it looks alike everywhere; the same bytes each time.

    Args:
        made_from, caption: kept in the file as its source and its description.
        options: of savefig.
    """
    metadata = {"Title": title, "Source": made_from, "Description": caption or None}
    metadata |= dict.fromkeys(("Date", "Creator", "Format", "Type"))
    stream = io.StringIO()
    with plt.rc_context({"svg.hashsalt": title, "svg.fonttype": "path"}):
        canvas.savefig(stream, format="svg", metadata=metadata, **options)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def draw(figure: Figure, caption: bool = True) -> Canvas:
    """The matplotlib figure: title and legend over the panels, the caption under them if it is wanted."""
    canvas = plt.figure(figsize=figure.size)
    if len(figure.blocks) == 1:
        _block(canvas, canvas, figure.blocks[0])
    else:
        heights = [len(block.rows) for block in figure.blocks]
        parts = canvas.subfigures(len(figure.blocks), 1, height_ratios=heights)
        for part, block in zip(parts, figure.blocks, strict=True):
            _block(canvas, part, block)
    if figure.xlabel:
        canvas.supxlabel(figure.xlabel, fontsize=8.5)
    labels = [text.get_text() for legend in canvas.legends for text in legend.get_texts()]
    rows = math.ceil(len(labels) / _legend_columns(labels, figure.size[0])) if labels else 0
    canvas.text(0.01, 1 + (0.05 + 0.25 * rows) / figure.size[1], figure.title, fontsize=10.5, va="bottom")
    if caption:
        text = textwrap.fill(figure.caption, round(_LETTERS_PER_INCH * figure.size[0]))
        canvas.text(0.01, -0.01, text, fontsize=7.5, va="top")
    return canvas


def _block(canvas: Canvas, part: Canvas | SubFigure, block: Block) -> None:
    columns = math.lcm(*map(len, block.rows))  # each row fills the width
    grid = part.add_gridspec(len(block.rows), columns, height_ratios=block.heights or None)
    axes = []
    for i, row in enumerate(block.rows):
        for j, content in enumerate(row):
            width = columns // len(row)
            ax = part.add_subplot(grid[i, j * width : (j + 1) * width])
            if isinstance(content, Table):
                _table(ax, content)
            else:
                _panel(ax, content)
                axes.append(ax)
    handles, labels = axes[0].get_legend_handles_labels() if axes else ([], [])
    if block.heading:
        part.suptitle(block.heading, fontsize=9.5, x=0.02, ha="left", fontweight="bold")
        if block.legend and labels:
            part.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    elif block.legend and labels:
        canvas.legend(handles, labels, ncols=_legend_columns(labels, canvas.get_figwidth()), **_ABOVE)


def _legend_columns(labels: list[str], inches: float) -> int:
    """How many labels fit side by side; the sign before each takes as much as six letters."""
    letters = _LETTERS_PER_INCH * inches
    return min(len(labels), max(1, int(letters // (6 + max(map(len, labels))))))


def _panel(ax: Axes, panel: Panel) -> None:
    for series in panel.series:
        if isinstance(series, Line):
            _line(ax, series)
        elif isinstance(series, Bars):
            _bars(ax, series)
        elif isinstance(series, Contour):
            _contour(ax, series)
        else:
            _cells(ax, series)
    for level in panel.levels:
        across = ax.axvline if level.upright else ax.axhline
        across(level.at, color=level.color, ls=level.dash, lw=level.width, label=level.label or None)
    ax.set_title(panel.title)
    ax.set_xlabel(panel.xlabel)
    ax.set_ylabel(panel.ylabel)
    ax.set_ylim(*panel.ylim)
    if panel.log_base:
        ax.set_xscale("log", base=panel.log_base)
        ax.minorticks_off()
    if panel.across_names and isinstance(panel.series[0], Line):
        ax.set_xlim(*panel.across_names)
    if panel.xticks:
        ax.set_xticks(list(panel.xticks), list(panel.xticks.values()), fontsize=7.2)
    if panel.yticks:
        ax.set_yticks(list(panel.yticks), list(panel.yticks.values()), fontsize=7.5)
        ax.tick_params(axis="y", length=0)
    if panel.tokens:
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(lambda value, _: quantity(value))
    if panel.legend:
        ax.legend(loc=panel.legend, fontsize=7.5)


def _line(ax: Axes, line: Line) -> None:
    look: dict[str, Any] = {"ls": line.dash or "none", "lw": line.width, "marker": line.marker or None}
    look |= {"ms": line.size, "alpha": line.alpha, "color": line.color, "mfc": line.fill or line.color}
    if line.edge:
        look |= {"mec": line.edge, "mew": 0.8, "zorder": 4, "clip_on": False}
    if line.dots:
        _dots(ax, line.dots, line.color)
    if line.error is not None and line.band:
        ax.fill_between(line.x, line.y - line.error, line.y + line.error, color=line.color, alpha=0.18, lw=0)
    if line.error is None or line.band:
        ax.plot(line.x, line.y, label=line.label, **look)
    else:
        error = {"xerr" if line.across else "yerr": line.error}
        ax.errorbar(line.x, line.y, **error, elinewidth=0.8, label=line.label, **look)


def _dots(ax: Axes, dots: Dots, color: str) -> None:
    """Single runs, filled and hollow ones."""
    for hollow in (False, True):
        of_kind = dots.hollow == hollow
        look = {"mfc": "none" if hollow else color, "mec": color, "mew": 0.5, "ms": 2.2, "alpha": 0.7, "zorder": 3}
        ax.plot(dots.x[of_kind], dots.y[of_kind], ls="none", marker="o", **look)


def _bars(ax: Axes, bars: Bars) -> None:
    error = np.zeros(len(bars.y)) if bars.error is None else bars.error
    whiskers = {"yerr": bars.error, "error_kw": {"lw": 0.8}} if bars.error is not None else {}
    ax.bar(bars.x, bars.y, bars.width, color=bars.color, label=bars.label, **whiskers)
    if bars.dots:
        _dots(ax, bars.dots, INK)
    style = {"ha": "center", "fontsize": 6.5 if bars.upright else 8, "rotation": 90 if bars.upright else 0}
    for x, y, low, high in zip(bars.x, bars.y, *_ends(bars, error), strict=True):
        if np.isfinite(y) and bars.number:
            end, shift, align = (low, -3, "top") if y < 0 else (high, 3, "bottom")
            place = {"xytext": (0, shift), "textcoords": "offset points", "va": align}
            ax.annotate(format(y, bars.number), (x, end), **place, **style)


def _ends(bars: Bars, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each bar, its interval and its dots reach, down and up."""
    low, high = bars.y - np.nan_to_num(error), bars.y + np.nan_to_num(error)
    if bars.dots:
        of_bar = np.abs(bars.dots.x[:, None] - bars.x[None]).argmin(1)
        np.minimum.at(low, of_bar, bars.dots.y)
        np.maximum.at(high, of_bar, bars.dots.y)
    return low, high


def _contour(ax: Axes, contour: Contour) -> None:
    grid = contour.x, contour.y, contour.values
    filled = ax.contourf(*grid, levels=contour.levels, cmap=contour.colors)
    ax.contour(*grid, levels=contour.levels, colors="white", linewidths=0.3)
    ax.figure.colorbar(filled, ax=ax, label=contour.label, format=ScalarFormatter(useOffset=False))


def _cells(ax: Axes, cells: Cells) -> None:
    count, limit = len(cells.values), np.abs(cells.values).max()
    extent = (0.5, count + 0.5, count + 0.5, 0.5)
    image = ax.imshow(cells.values, cmap=cells.colors, vmin=-limit, vmax=limit, extent=extent, aspect="auto")
    ax.figure.colorbar(image, ax=ax, orientation="horizontal", aspect=30)


def _table(ax: Axes, content: Table) -> None:
    ax.axis("off")
    ax.set_title(content.title, fontsize=7.5 if content.of_paper and not content.left else 9)
    names, cells = [row[0] for row in content.rows], [row[1:] for row in content.rows]
    place = {"bbox": (content.left, 0, 1 - content.left, 1)} if content.left else {"loc": "center", "cellLoc": "center"}
    table = ax.table(cells, rowLabels=names, colLabels=content.head, **place)
    table.auto_set_font_size(False)
    for (row, column), cell in table.get_celld().items():
        if content.left:
            cell.set_linewidth(0.4)
        many = len(content.head) >= _MANY_COLUMNS
        cell.set_fontsize(6.3 if row == 0 and many else content.size)
        if (row - 1, column) in content.bold:
            cell.set_text_props(fontweight="bold")
