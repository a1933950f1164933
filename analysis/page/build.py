"""report/index.html: the published records as one page that needs no server and no network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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
from verdicts.decide import VERDICTS, Family, families, of_scales
from verdicts.frozen import change_text
from verdicts.readme import deviations
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


def _counts(family: Family) -> list[tuple[int, str, int]]:
    """How many claims have each verdict that occurs: its place among the verdicts, its name, the number."""
    verdicts = [decision.verdict for decisions in family.decided.values() for decision in decisions]
    return [(i, verdict, verdicts.count(verdict)) for i, verdict in enumerate(VERDICTS) if verdict in verdicts]


def _warnings(texts: Iterable[str]) -> list[str]:
    """What a reader must know first, each said once."""
    return list(dict.fromkeys(filter(None, texts)))


def build(runs_dir: Path) -> str:
    """The page, as HTML.

    Raises:
        ValueError: when nothing is published, or a figure lacks records.
    """
    sections, rows, models, seeds = [], [], [], []
    paper, beyond = decided = families(runs_dir)
    common = paper.rules.common
    of_scale = {Study(runs_dir / scale / "published"): decisions for scale, decisions in of_scales(decided).items()}
    for study, decisions in of_scale.items():
        of_study = sizes(study)
        sections += [section(study, name, decisions, of_study) for name in study.experiments()]
        rows += run_rows(study)
        seeds.append((study.scale, seeds_fields(common, study.recorded_seeds())))
        models += [(study.scale, size) for size in of_study]
    claims = [
        claim_fields(decision, study.scale, study.experiments(), family.rules)
        for family in decided
        for study in of_scale
        for decision in family.decided.get(study.scale, ())
    ]
    shared, captions = said_once({entry["id"]: entry["caption"] for entry in sections})
    short = {entry["id"]: entry["short"] for entry in sections}
    templates = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    parts = {name: Markup((_TEMPLATES / f"page.{name}").read_text(encoding="utf-8")) for name in ("css", "js")}
    points = [_html(point) for point in deviations()]
    return templates.get_template("index.html").render(
        **parts,
        title=TITLE,
        front=_front(list(of_scale)),
        counts=_counts(paper),
        open_counts=_counts(beyond),
        revision=revision(),
        verdicts=VERDICTS,
        scales=[study.scale for study in of_scale],
        changed=_warnings(change_text(f.rules, runs_dir / scale / "published") for f in decided for scale in f.decided),
        interim=_warnings(interim_text(decisions) for f in decided for decisions in f.decided.values()),
        seeds=seeds,
        claims=claims,
        sections=sections,
        common=[(sentence, [(name, short[name]) for name in names]) for sentence, names in shared.items()],
        captions=captions,
        deviations=(points[:_FIRST_DEVIATIONS], points[_FIRST_DEVIATIONS:]),
        models=models,
        runs=rows,
        costs=[f"Scale {study.scale}: {cost_text(study)}" for study in of_scale],
        bokeh=packed("\n".join(Resources(mode="inline", components=["bokeh"]).js_raw).encode()),
        bokeh_version=bokeh.__version__,
    )
