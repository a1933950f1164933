"""What the page says of one experiment at one scale, and of the runs' costs, as plain data."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import style
from drawing import chart
from drawing.curves import curve_panels
from drawing.description import Bars, Block, Figure, Line, Panel, Table
from drawing.find import describe
from drawing.plain import raw_and_merged
from formats import minutes, quantity
from markupsafe import Markup
from records import Study
from sizes import Size, sizes
from verdicts.decide import VERDICTS, Decision

from page.claims import anchor
from page.legend import entries, shared
from page.paper import beside
from pma.words import experiment_title

_TASKS = ("four axes", "held-out text")  # what a panel's y label may begin with, on a line of its own
_DASHES = ("-", "--", ":")


def command_of(name: str, scale: str = "cpu") -> str:
    """The command that makes the records and the picture of an experiment."""
    return f"make reproduce-{name.replace('_', '-')}" + ("" if scale == "cpu" else f" SCALE={scale}")


def shown(panel: Panel, own_legend: bool = False) -> dict[str, Any]:
    """A panel for the template: title, chart as JSON, text for those who do not see it, a legend of its own."""
    ylabel = ", ".join(panel.ylabel.splitlines())
    names = ", ".join(entries([panel]))
    alt = f"{panel.title}: {ylabel or 'values'} over {panel.xlabel or 'groups'}" + (f"; {names}" if names else "")
    return {
        "title": panel.title,
        "item": Markup(json.dumps(chart.chart(panel), separators=(",", ":")).replace("</", "<\\/")),
        "alt": f"{alt}. Arrow keys read the values; a table of them stands under Values and records.",
        "legend": entries([panel]) if own_legend else {},
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


def _group(heading: str, panels: Sequence[Panel]) -> dict[str, Any]:
    """Panels under one heading, with one legend, or one each where they name different things."""
    legend = shared(panels)
    return {"heading": heading, "legend": legend, "panels": [shown(panel, legend is None) for panel in panels]}


def _groups(study: Study, name: str, figure: Figure) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Panel]]:
    """The groups of panels that the page shows first, those that it shows on demand, and all panels."""
    lead = {id(panel) for panel in figure.lead or figure.panels}
    first, more, every = [], [], []
    for block in figure.blocks:
        panels = named(block)
        ahead = [panel for key, panel in panels.items() if key in lead] + beside(study, name, block)
        rest = [panel for key, panel in panels.items() if key not in lead]
        first += [_group(block.heading, ahead)] if ahead else []
        more += [_group(block.heading, rest)] if rest else []
        every += [replace(panel, title=f"{block.heading}: {panel.title}".removeprefix(": ")) for panel in ahead + rest]
    return first, more, every


def _table(content: Table) -> dict[str, Any]:
    return {"title": content.title, "rows": chart.rows(content), "bold": content.bold}


def _downloads(study: Study, name: str) -> list[dict[str, str]]:
    """The experiment's CSV files, compressed into the page."""
    files = []
    for path in sorted((study.root / name).glob("*.csv")):
        packed = gzip.compress(path.read_bytes(), mtime=0)
        size = f"{path.stat().st_size / 1000:.0f} kB"
        data = base64.b64encode(packed).decode()
        files.append({"name": f"{name}-{path.name}", "file": path.name, "size": size, "data": data})
    return files


def _curves(study: Study, name: str, runs: Sequence[str]) -> list[dict[str, Any]]:
    """Scores before and after merging, and the curves of the runs; the eighth run repeats the colours, in dashes."""
    panels = []
    names = {run: f"{run} ({quantity(study.manifest(run)['parameters']['total'])})" for run in runs}
    for panel in curve_panels(study, runs):
        lines = [
            replace(line, label=names[line.label], dash=_DASHES[i // len(style.COLORS) % len(_DASHES)])
            for i, line in enumerate(panel.series)
            if isinstance(line, Line)
        ]
        panels.append(replace(panel, series=tuple(lines)))
    scored = raw_and_merged(study, name)
    return [_group("", panels) for panels in (scored, panels) if panels]


def models_text(models: Sequence[Size]) -> str:
    """The models of an experiment, real size first, then what they stand for."""
    if len(models) == 1:
        return models[0].label
    parts = []
    for kind, word in (("moe", "MoE"), ("dense", "dense")):
        of_kind = [model for model in models if model.kind == kind]
        if of_kind:
            real, paper = ([*map(quantity, (m.total for m in of_kind))], [m.stands_for for m in of_kind])
            parts.append(f"{', '.join(real)} {word}, standing for {', '.join(paper)}")
    return "; ".join(parts)


def section(study: Study, name: str, decisions: Sequence[Decision]) -> dict[str, Any]:
    """All that the page says of one experiment.

    Raises:
        Missing: when a part of its records is not there.
    """
    manifest, figure, scale = study.manifest(name), describe(study, name), study.scale
    title = experiment_title(name)
    first, more, every = _groups(study, name, figure)
    folders = sorted(manifest["runs"])
    runs = {folder.rpartition("-seed")[0] for folder in folders}
    scoring = f"{manifest['seconds']:.0f} s of merging and scoring on two"
    values = [{"title": panel.title, "rows": chart.rows(panel), "bold": ()} for panel in every]
    values += [_table(table) for table in figure.tables if table.of_paper and figure.panels]
    return {
        "id": f"{scale}-{name}",
        "short": title.replace("Figure ", "Fig. ") + ("" if scale == "cpu" else f" {scale}"),
        "heading": f"{title}: {manifest['experiment']['title']}" + ("" if scale == "cpu" else f" ({scale})"),
        "scale": scale,
        "see": figure.see,
        "models": models_text([model for model in sizes(study) if runs & set(model.runs)]),
        "claims": [
            {"name": d.claim.name, "anchor": anchor(d.claim.name, scale), "text": d.claim.text, "verdict": d.verdict}
            | {"rank": VERDICTS.index(d.verdict)}
            for d in decisions
            if name in d.claim.experiments
        ],
        "groups": first,
        "tables": [] if figure.panels else [_table(table) for table in figure.tables],
        "more": more,
        "values": [value for value in values if len(value["rows"]) > 1],
        "caption": figure.caption,
        "command": command_of(name, scale),
        "cost": f"{minutes(study.cost([name]))} in all: training of its runs, one core each, and {scoring}",
        "downloads": _downloads(study, name),
        "curves": _curves(study, name, folders),
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
