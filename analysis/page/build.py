"""report/index.html: the published records as one page that needs no server and no network."""

from __future__ import annotations

import re
from pathlib import Path

import bokeh
from bokeh.resources import Resources
from formats import hours
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from records import Study
from verdicts.decide import VERDICTS, decide_published
from verdicts.readme import deviations
from verdicts.rules import load_rules

from page.sections import claim_fields, run_rows, section
from pma.files import revision

TITLE = "Model merging in pre-training: a replication"
_TEMPLATES = Path(__file__).resolve().parent
_CLAIM_HEADS = ("claim", "what it says", "paper", "ours", "verdict", "scale", "cost")


def _html(markdown: str) -> Markup:
    """A line of Markdown as HTML; it knows `code`."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(Markup.escape(markdown))))


def build(runs_dir: Path) -> str:
    """The page, as HTML.

    Raises:
        ValueError: when nothing is published, or a figure lacks records.
    """
    sections, rows, claims = [], [], []
    decided = decide_published(runs_dir, load_rules())
    for scale, decisions in decided.items():
        study = Study(runs_dir / scale / "published")
        sections += [section(study, name, decisions) for name in study.experiments()]
        rows += run_rows(study)
        claims += [claim_fields(decision, scale) for decision in decisions]
    ids = {entry["id"] for entry in sections}
    for claim in claims:
        claim["section"] = claim["section"] if claim["section"] in ids else None
    counts = {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in VERDICTS}
    templates = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True)
    panel = templates.get_template("panel.html")
    parts = {name: Markup((_TEMPLATES / f"page.{name}").read_text(encoding="utf-8")) for name in ("css", "js")}
    return templates.get_template("index.html").render(
        **parts,
        title=TITLE,
        summary=", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n).capitalize() + ".",
        revision=revision(),
        verdicts=VERDICTS,
        scales=list(decided),
        claim_heads=_CLAIM_HEADS,
        claims=claims,
        sections=sections,
        panel=lambda p: Markup(panel.render(p=p)),
        deviations=[_html(point) for point in deviations()],
        runs=rows,
        total=f"{hours(sum(row['seconds'] for row in rows))} of training in all, one core each.",
        bokeh=Markup(Resources(mode="inline", components=["bokeh"]).render_js()),
        bokeh_version=bokeh.__version__,
    )
