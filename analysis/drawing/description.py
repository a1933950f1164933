"""What a figure shows, as plain data. picture.py makes a picture of it, chart.py charts for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

INK = "black"


@dataclass(frozen=True)
class Dots:
    """Single training runs behind the means of a series, a small dot each; `hollow` are those that no mean counts."""

    x: np.ndarray
    y: np.ndarray
    hollow: np.ndarray  # bool


@dataclass(frozen=True)
class Line:
    """A line, points, or both.

    Attributes:
        error: half lengths of 95 % intervals.
        dash: "-", "--", or "" for points alone.
        marker: matplotlib's sign (o, s, ^, v, *, X), or "" for none.
        size: of the markers, points.
        fill: colour inside the markers; "" is `color`.
        edge: colour around the markers; "" is `color`.
        alpha: opacity, 0 to 1.
        band: whether the intervals are drawn as a band about the line, instead of bars.
        across: whether they run along x: a row of a strip, whose number is x.
    """

    label: str  # "" keeps it out of legends
    color: str
    x: np.ndarray
    y: np.ndarray
    error: np.ndarray | None = None
    dash: str = "-"
    width: float = 1.5
    marker: str = ""
    size: float = 4.0
    fill: str = ""
    edge: str = ""
    alpha: float = 1.0
    band: bool = False
    across: bool = False
    dots: Dots | None = None


@dataclass(frozen=True)
class Bars:
    """A set of bars of one colour.

    Attributes:
        x: middles of the bars.
        width: of a bar, in units of x.
        number: format of the number written at each bar; "" for none.
        upright: whether that number is turned by 90 degrees, so that narrow bars keep theirs apart.
    """

    label: str
    color: str
    x: np.ndarray
    y: np.ndarray
    error: np.ndarray | None = None
    width: float = 0.8
    number: str = ".3g"
    upright: bool = True
    dots: Dots | None = None


@dataclass(frozen=True)
class Contour:
    """A surface over a plane, as filled contours: `values` (len(y), len(x))."""

    label: str  # of the colour bar
    x: np.ndarray
    y: np.ndarray
    values: np.ndarray
    levels: np.ndarray
    colors: str = "viridis_r"  # matplotlib's name of a colour map


@dataclass(frozen=True)
class Cells:
    """A square matrix as coloured cells, rows and columns numbered from 1; 0 is the middle of the colours."""

    values: np.ndarray
    colors: str = "RdBu_r"


Series = Line | Bars | Contour | Cells


@dataclass(frozen=True)
class Level:
    """A line across a panel: horizontal at y = `at`, or upright at x = `at`."""

    at: float
    label: str = ""
    color: str = INK
    dash: str = "-"
    width: float = 0.8
    upright: bool = False


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        xticks: places and their texts, where they are given; names of groups under bars.
        yticks: the same on the other axis; names of the rows of a strip.
        tokens: whether x counts tokens, so that its ticks are written 1.2M.
        log_base: of a logarithmic x axis; 0 for a linear one.
        ylim: lowest and highest y; None follows the data.
        legend: place of a legend inside the panel, in matplotlib's words; "" for none.
    """

    title: str
    xlabel: str
    ylabel: str
    series: tuple[Series, ...]
    levels: tuple[Level, ...] = ()
    xticks: Mapping[float, str] = field(default_factory=dict)
    yticks: Mapping[float, str] = field(default_factory=dict)
    tokens: bool = False
    log_base: int = 0
    ylim: tuple[float | None, float | None] = (None, None)
    legend: str = ""

    @property
    def across_names(self) -> tuple[float, float] | None:
        """Lowest and highest x where places have names, numbered from 0, with room at both ends; else None."""
        places = range(len(self.xticks))
        return (-0.6, len(places) - 0.4) if places and list(self.xticks) == list(places) else None


@dataclass(frozen=True)
class Table:
    """Text in rows and columns instead of axes.

    Attributes:
        head: names of the columns, without that of the row names.
        rows: name of each row and its cells.
        bold: (row, column) of the cells that stand out.
        of_paper: whether these are the paper's own numbers.
        left: share of the width left of the cells, for long row names.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: frozenset[tuple[int, int]] = frozenset()
    of_paper: bool = False
    left: float = 0.0
    size: float = 7.0  # of the text, points


@dataclass(frozen=True)
class Block:
    """Panels in rows that fill the width, with one legend above them.

    Attributes:
        heights: of the rows, relative.
        heading: over the block, where a figure has several.
    """

    rows: tuple[tuple[Panel | Table, ...], ...]
    heights: tuple[float, ...] = ()
    heading: str = ""
    legend: bool = True  # of the first panel's series


@dataclass(frozen=True)
class Figure:
    """A figure or table of the paper, or of a study of one's own.

    Attributes:
        size: width and height, inches.
        xlabel: under all panels.
        texts: further files to publish beside the picture, by name.
        see: one sentence for the page: what to look at, and how to read it.
        lead: the panels in which to see it, which the page shows first; empty for all.
    """

    title: str
    blocks: tuple[Block, ...]
    size: tuple[float, float]
    caption: str
    xlabel: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)
    see: str = ""
    lead: tuple[Panel, ...] = ()

    @property
    def panels(self) -> list[Panel]:
        """All panels, in reading order."""
        return [part for block in self.blocks for row in block.rows for part in row if isinstance(part, Panel)]

    @property
    def tables(self) -> list[Table]:
        """All tables, in reading order."""
        return [part for block in self.blocks for row in block.rows for part in row if isinstance(part, Table)]


def figure(
    title: str,
    rows: Sequence[Sequence[Panel | Table]],
    size: tuple[float, float],
    *caption: str,
    heights: tuple[float, ...] = (),
    legend: bool = True,
    xlabel: str = "",
    texts: Mapping[str, str] | None = None,
    see: str = "",
    lead: Sequence[Panel] = (),
) -> Figure:
    """A figure of one block.

    Args:
        rows: its panels and tables, row by row.
        size: width and height, inches.
        caption: its sentences.
        heights, legend: of the `Block`. xlabel, texts, see, lead: of the `Figure`.
    """
    block = Block(tuple(map(tuple, rows)), heights, legend=legend)
    return Figure(title, (block,), size, " ".join(caption), xlabel, texts or {}, see, tuple(lead))
