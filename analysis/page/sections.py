"""What the page says of one experiment at one scale, as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from drawing import chart
from drawing.description import Figure, Panel, Table
from drawing.find import describe
from drawing.plain import raw_and_merged
from drawing.scores import counted_seeds
from formats import listed, quantity
from records import Study, seed_of
from sizes import Size
from verdicts.decide import VERDICTS, Decision
from verdicts.tables import parts_text

from page.claims import anchor
from page.panels import group, named, packed
from page.paper import beside
from page.runs import run_curves
from pma.words import duration, experiment_title


def command_of(name: str, scale: str = "cpu") -> str:
    """The command that makes the records and the picture of an experiment."""
    return f"make reproduce-{name.replace('_', '-')}" + ("" if scale == "cpu" else f" SCALE={scale}")


def _groups(study: Study, name: str, figure: Figure) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Panel]]:
    """The groups of panels that the page shows first, those that it shows on demand, and all panels."""
    lead = {id(panel) for panel in figure.lead or figure.panels}
    first, more, every = [], [], []
    for block in figure.blocks:
        panels = named(block)
        ahead = [panel for key, panel in panels.items() if key in lead] + beside(study, name, block)
        rest = [panel for key, panel in panels.items() if key not in lead]
        first += [group(block.heading, ahead)] if ahead else []
        more += [group(block.heading, rest)] if rest else []
        every += [replace(panel, title=f"{block.heading}: {panel.title}".removeprefix(": ")) for panel in ahead + rest]
    return first, more, every


def _table(content: Table) -> dict[str, Any]:
    return {"title": content.title, "rows": chart.rows(content), "bold": content.bold}


def _downloads(study: Study, name: str) -> list[dict[str, str]]:
    """The experiment's CSV files, compressed into the page; numbers with six digits, or they would be half of it."""
    files = []
    for path in sorted((study.root / name).glob("*.csv")):
        content = pd.read_csv(path).to_csv(index=False, float_format="%.6g").encode()
        size = f"{len(content) / 1000:.0f} kB"
        files.append({"name": f"{name}-{path.name}", "file": path.name, "size": size, "data": packed(content)})
    return files


def _curves(study: Study, name: str, folders: Sequence[str]) -> list[dict[str, Any]]:
    """Scores before and after merging, and the curves of the runs."""
    return [group("", panels) for panels in (raw_and_merged(study, name), run_curves(study, folders)) if panels]


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


def _seeds(folders: Iterable[str]) -> dict[str, str]:
    """Seeds of an experiment's runs: those that its means are over, and those drawn as hollow dots."""
    seeds = {seed_of(folder) for folder in folders}
    counted = counted_seeds(seeds)
    return {"filled": listed(counted), "hollow": listed(sorted(seeds - set(counted)))}


def section(study: Study, name: str, decisions: Iterable[Decision], models: Sequence[Size]) -> dict[str, Any]:
    """All that the page says of one experiment.

    Args:
        models: of the scale.

    Raises:
        Missing: when a part of its records is not there.
    """
    manifest, figure, scale = study.manifest(name), describe(study, name), study.scale
    title = experiment_title(name)
    first, more, every = _groups(study, name, figure)
    folders = sorted(manifest["runs"])
    runs = {folder.rpartition("-seed")[0] for folder in folders}
    values = [{"title": panel.title, "rows": chart.rows(panel), "bold": ()} for panel in every]
    values += [_table(table) for table in figure.tables if table.of_paper and figure.panels]
    return {
        "id": f"{scale}-{name}",
        "short": title.replace("Figure ", "Fig. ") + ("" if scale == "cpu" else f" {scale}"),
        "heading": f"{title}: {manifest['experiment']['title']}" + ("" if scale == "cpu" else f" ({scale})"),
        "scale": scale,
        "see": figure.see,
        "seeds": _seeds(folders),
        "models": models_text([model for model in models if runs & set(model.runs)]),
        "claims": [
            {"name": d.claim.name, "anchor": anchor(d.claim.name, scale), "text": d.claim.text, "verdict": d.verdict}
            | {"rank": VERDICTS.index(d.verdict), "parts": parts_text(d)}
            for d in decisions
            if name in d.claim.experiments
        ],
        "groups": first,
        "tables": [] if figure.panels else [_table(table) for table in figure.tables],
        "more": more,
        "values": [value for value in values if len(value["rows"]) > 1],
        "caption": figure.caption,
        "command": command_of(name, scale),
        "cost": "" if math.isnan(seconds := study.cost([name])) else f"{duration(seconds)} a seed on 2 cores",
        "downloads": _downloads(study, name),
        "curves": _curves(study, name, folders),
    }
