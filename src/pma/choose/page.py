"""The page of a search: one HTML file with the gain, the reason, the command, the heat maps and the table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment

from pma.choose.picture import svg, write_png
from pma.choose.result import Result
from pma.files import write_text
from pma.layout import gaps
from pma.merge.checkpoints import RunCheckpoints

_TEMPLATE = Path(__file__).with_name("page.html")


def write_page(
    output: Path, run: RunCheckpoints, result: Result, rows: Sequence[Sequence[str]], lines: Sequence[str], command: str
) -> Path:
    """Write heatmap.png and index.html; return the path of the page.

    Args:
        rows: of the table, its head first.
        lines: what the search says beside it, as in a terminal.
        command: that makes the best merge.
    """
    write_png(result, output / "heatmap.png")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    )
    page = template.render(
        run=str(run.run_dir),
        newest=result.newest.window[0],
        apart=_apart(list(run.checkpoints)),
        result=result,
        panels=[svg(result, method) for method in result.methods],
        head=rows[0],
        rows=rows[1:],
        best_row=next((i for i, row in enumerate(rows[1:]) if row[0] != "single"), -1),
        lines=lines,
        command=command,
    )
    write_text(output / "index.html", page)
    return output / "index.html"


def _apart(positions: Sequence[int]) -> str:
    """The distance between neighbours, in positions."""
    usual = statistics.median_low([b - a for a, b in zip(positions, positions[1:], strict=False)])
    return f"{usual:,}{', with gaps' if gaps(positions) else ''}"
