"""The heat map of a search: what each merge gains, N upward and V to the right, a panel a method."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pma.choose.result import Result
from pma.files import write_bytes

_CELL = (0.46, 0.27)  # inches
_MARGIN = (1.9, 1.0)  # of axes, labels and colour bar
_INK = "#010203"  # of what is written outside cells; the page puts its own colour there
_BEST = "#E69F00"
_WORDS = {"sma": "equal weights", "wma": "linear weights"}
_COLORS = "RdBu"  # red loses, blue gains
_LOOK: dict[str, Any] = {"font.size": 8, "axes.titlesize": 9, "axes.titlelocation": "left"}
_LOOK |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _INK)


def write_png(result: Result, path: Path) -> None:
    """All panels side by side."""
    buffer = io.BytesIO()
    _draw(result, result.methods).savefig(buffer, format="png", dpi=150, facecolor="white")
    write_bytes(path, buffer.getvalue())


def svg(result: Result, method: str) -> str:
    """One panel for a page, in the page's own colour and on its background."""
    buffer = io.StringIO()
    # Ids of their own, for all panels stand on one page, and text that stays text.
    with matplotlib.rc_context({"svg.hashsalt": method, "svg.fonttype": "none"}):
        _draw(result, [method]).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return re.sub(_INK, "currentColor", text[text.index("<svg") :])


def _draw(result: Result, panels: Sequence[str]) -> Figure:
    merges = [candidate for candidate in result.chosen if candidate.method != "single"]
    numbers = sorted({candidate.n for candidate in merges})
    distances = {method: sorted({c.every for c in merges if c.method == method}) for method in panels}
    gain = {candidate: result.measure.factor * result.chosen_gain(candidate) for candidate in merges}
    # As far up as down, so that white is the last checkpoint; what loses more than the best gains is all one red.
    limit = max(max(gain.values()), 0) or max(map(abs, gain.values())) or 1
    norm = Normalize(-limit, limit, clip=True)
    columns = [max(3, len(distances[method])) for method in panels]
    size = _MARGIN[0] + _CELL[0] * sum(columns) + 0.3 * (len(panels) - 1), _MARGIN[1] + _CELL[1] * len(numbers)
    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True, width_ratios=columns)[0]
        for axis, method, width in zip(axes, panels, columns, strict=True):
            for candidate in merges:
                if candidate.method == method:
                    at = distances[method].index(candidate.every), numbers.index(candidate.n)
                    _cell(axis, at, gain[candidate], norm, candidate == result.best)
            axis.set(xlim=(-0.5, width - 0.5), ylim=(-0.5, len(numbers) - 0.5))
            axis.set_title(f"{method}: {_WORDS.get(method, 'weights of such a decay')}")
            axis.set_xticks(range(len(distances[method])), distances[method])
            axis.set_yticks(range(len(numbers)), numbers)
            axis.set_xlabel("V: distance, in checkpoints")
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
        axes[0].set_ylabel("N: checkpoints merged")
        scale = ScalarMappable(norm, _COLORS)
        bar = figure.colorbar(scale, ax=list(axes), label=f"gain, {result.measure.unit}", fraction=0.05, aspect=25)
        bar.outline.set_visible(False)
    return figure


def _cell(axis: Any, at: tuple[int, int], gain: float, norm: Normalize, best: bool) -> None:
    color = matplotlib.colormaps[_COLORS](norm(gain))
    place = at[0] - 0.47, at[1] - 0.45
    edge = {"edgecolor": _BEST, "linewidth": 2.5, "zorder": 3} if best else {"edgecolor": "none"}
    axis.add_patch(Rectangle(place, 0.94, 0.9, facecolor=color, **edge))
    dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 0.5
    text = f"{gain:+.1f}" if abs(gain) >= 10 else f"{gain:+.2f}" if abs(gain) >= 1 else f"{gain:+.3f}"
    axis.text(*at, text, ha="center", va="center", size=6.5, color="white" if dark else "#1a1a1a", zorder=4)
