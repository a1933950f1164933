"""What the page says of one experiment at one scale, of one claim, and of the runs' costs, as plain data."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from typing import Any

from drawing import chart
from drawing.curves import curve_panels
from drawing.description import Panel, Table
from drawing.find import describe, title_of
from drawing.plain import raw_and_merged
from formats import minutes, quantity
from markupsafe import Markup
from records import Study
from verdicts.decide import VERDICTS, Decision
from verdicts.tables import ours

from page.paper import paper_panels


def command_of(name: str, scale: str = "cpu") -> str:
    """The command that makes the records and the picture of an experiment."""
    return f"make reproduce-{name.replace('_', '-')}" + ("" if scale == "cpu" else f" SCALE={scale}")


def claim_fields(decision: Decision, scale: str) -> dict[str, Any]:
    """A claim as the page shows it."""
    claim, seconds = decision.claim, decision.seconds
    return {
        "name": claim.name,
        "number": claim.name[1:],
        "text": claim.text,
        "source": claim.source,
        "paper": claim.paper,
        "ours": ours(decision),
        "sentence": decision.sentence,
        "verdict": decision.verdict,
        "rank": VERDICTS.index(decision.verdict),
        "scale": scale,
        "seconds": 0 if math.isnan(seconds) else seconds,
        "cost": minutes(seconds),
        "section": f"{scale}-{claim.experiments[0]}",
        "experiments": claim.experiments,
    }


def shown(content: Panel | Table) -> dict[str, Any]:
    """A panel or a table for the template: title, chart as JSON, text for those who do not see it, values."""
    title = " ".join((content.title or getattr(content, "ylabel", "")).split())
    if isinstance(content, Table):
        return {"title": title, "item": None, "rows": chart.rows(content)}
    item = json.dumps(chart.chart(content), separators=(",", ":")).replace("</", "<\\/")
    ylabel = " ".join(content.ylabel.split())
    names = "; ".join(filter(None, [", ".join(chart.legend([content]))]))
    alt = f"{title}: {ylabel or 'values'} over {content.xlabel or 'groups'}" + (f"; {names}" if names else "")
    return {
        "title": title,
        "item": Markup(item),
        "alt": f"{alt}. The values stand in the table below.",
        "rows": chart.rows(content),
    }


def _downloads(study: Study, name: str) -> list[dict[str, str]]:
    """The experiment's CSV files, compressed into the page."""
    files = []
    for path in sorted((study.root / name).glob("*.csv")):
        packed = gzip.compress(path.read_bytes(), mtime=0)
        size = f"{path.stat().st_size / 1000:.0f} kB"
        data = base64.b64encode(packed).decode()
        files.append({"name": f"{name}-{path.name}", "file": path.name, "size": size, "data": data})
    return files


def section(study: Study, name: str, decisions: Sequence[Decision]) -> dict[str, Any]:
    """All that the page says of one experiment.

    Raises:
        Missing: when a part of its records is not there.
    """
    manifest, figure, scale = study.manifest(name), describe(study, name), study.scale
    paper = [*(table for table in figure.tables if table.of_paper), *paper_panels(name)]
    parts: list[Panel | Table] = [*figure.panels, *(table for table in figure.tables if not table.of_paper)]
    curves = raw_and_merged(study, name) + curve_panels(study, sorted(manifest["runs"]))
    scoring = f"{manifest['seconds']:.0f} s of merging and scoring on two"
    cost = f"{minutes(study.cost([name]))} in all: training of its runs, one core each, and {scoring}"
    return {
        "id": f"{scale}-{name}",
        "short": title_of(name).replace("Figure ", "Fig. ") + ("" if scale == "cpu" else f" {scale}"),
        "heading": f"{title_of(name)}: {manifest['experiment']['title']}",
        "scale": scale,
        "claims": [claim_fields(d, scale) for d in decisions if name in d.claim.experiments],
        "paper": [shown(part) for part in paper],
        "panels": [shown(part) for part in parts],
        "legend": chart.legend(figure.panels),
        "caption": figure.caption,
        "command": command_of(name, scale),
        "cost": cost,
        "downloads": _downloads(study, name),
        "curves": [shown(panel) for panel in curves],
        "curve_legend": chart.legend(curves),
    }


def run_rows(study: Study) -> list[dict[str, Any]]:
    """One row a run, for the table of costs."""
    rows = []
    for folder in study.run_folders():
        manifest = study.manifest(folder)
        counts = manifest["parameters"]
        rows.append(
            {
                "scale": study.scale,
                "name": folder,
                "parameters": f"{quantity(counts['total'])} ({quantity(counts['active'])})",
                "tokens": f"{manifest['tokens']:,}",
                "seconds": manifest["seconds"],
                "minutes": f"{manifest['seconds'] / 60:.1f}",
                "device": manifest["device"],
            }
        )
    return rows
