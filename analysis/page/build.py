"""report/index.html: the published records as one page that needs no server and no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bokeh
from bokeh.resources import Resources
from figures.figure_3 import front_panel
from finding import finding
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from records import Missing, Study
from sizes import sizes
from verdicts.decide import VERDICTS, decide_published
from verdicts.frozen import change_text
from verdicts.readme import deviations
from verdicts.rules import load_rules
from verdicts.tables import interim_text

from page.captions import said_once
from page.claims import claim_fields, seeds_fields
from page.legend import entries
from page.panels import packed, shown
from page.runs import cost_text, run_rows
from page.sections import section
from pma.files import revision

TITLE = "Model merging in pre-training: a replication"
_TEMPLATES = Path(__file__).resolve().parent
_FIRST_DEVIATIONS = 3  # those that stand there unfolded


def _html(markdown: str) -> Markup:
    """A line of Markdown as HTML; it knows `code`."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(Markup.escape(markdown))))


def _front(studies: Sequence[Study]) -> dict[str, Any] | None:
    """The first screen, from the first scale that has the main run: finding, Figure 3's picture, advice."""
    for study in studies:
        try:
            result, picture = finding(study), front_panel(study)
        except Missing:
            continue
        number = Markup.escape(result.text.merged.number)
        sentence = str(Markup.escape(result.sentence)).replace(number, f"<strong>{number}</strong>", 1)
        panel = shown(picture) | {"title": "", "legend": entries([picture])}
        return {
            "sentence": Markup(sentence),
            "second": result.second,
            "advice": result.advice,
            "panel": panel,
            "caption": f"{picture.title.capitalize()}: {picture.ylabel}. Dots: single runs; bars: 95 % "
            "intervals of the difference to the constant rate.",
            "at": f"{study.scale}-figure_3",
        }
    return None


def build(runs_dir: Path) -> str:
    """The page, as HTML.

    Raises:
        ValueError: when nothing is published, or a figure lacks records.
    """
    sections, rows, claims, models, seeds = [], [], [], [], []
    rules = load_rules()
    decided = decide_published(runs_dir, rules)
    studies = [Study(runs_dir / scale / "published") for scale in decided]
    for study, decisions in zip(studies, decided.values(), strict=True):
        names = study.experiments()
        of_study = sizes(study)
        sections += [section(study, name, decisions, of_study) for name in names]
        rows += run_rows(study)
        claims += [claim_fields(decision, study.scale, names, rules.common) for decision in decisions]
        seeds.append((study.scale, seeds_fields(rules.common, study.recorded_seeds())))
        models += [(study.scale, size) for size in of_study]
    common, captions = said_once({entry["id"]: entry["caption"] for entry in sections})
    short = {entry["id"]: entry["short"] for entry in sections}
    counts = [(verdict, sum(claim["verdict"] == verdict for claim in claims)) for verdict in VERDICTS]
    templates = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    parts = {name: Markup((_TEMPLATES / f"page.{name}").read_text(encoding="utf-8")) for name in ("css", "js")}
    points = [_html(point) for point in deviations()]
    return templates.get_template("index.html").render(
        **parts,
        title=TITLE,
        front=_front(studies),
        counts=[(VERDICTS.index(verdict), verdict, count) for verdict, count in counts if count],
        revision=revision(),
        verdicts=VERDICTS,
        scales=list(decided),
        changed=list(dict.fromkeys(filter(None, (change_text(rules, study.root) for study in studies)))),
        interim=list(dict.fromkeys(filter(None, map(interim_text, decided.values())))),
        seeds=seeds,
        claims=claims,
        sections=sections,
        common=[(sentence, [(name, short[name]) for name in names]) for sentence, names in common.items()],
        captions=captions,
        deviations=(points[:_FIRST_DEVIATIONS], points[_FIRST_DEVIATIONS:]),
        models=models,
        runs=rows,
        costs=[f"Scale {study.scale}: {cost_text(study)}" for study in studies],
        bokeh=packed("\n".join(Resources(mode="inline", components=["bokeh"]).js_raw).encode()),
        bokeh_version=bokeh.__version__,
    )
