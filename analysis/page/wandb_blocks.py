"""The report as blocks of W&B: for each experiment the claims, our picture, panels over the runs' own metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb_workspaces.reports.v2 as wr
from drawing.curves import CURVES
from drawing.find import title_of
from formats import hours
from records import Study
from verdicts.decide import Decision, decide_published
from verdicts.readme import deviations
from verdicts.rules import load_rules
from verdicts.tables import counts_text, ours

from page.build import TITLE
from page.sections import command_of, run_rows


def _claims(decisions: Sequence[Decision], name: str) -> str:
    """The claims that an experiment decides, in Markdown."""
    paragraphs = []
    for decision in decisions:
        claim = decision.claim
        if name in claim.experiments:
            paragraphs.append(
                f"**{claim.name}** {claim.text}. The paper: {claim.paper}. Ours: {ours(decision)}. "
                f"Verdict: **{decision.verdict}**. {decision.sentence}"
            )
    return "\n\n".join(paragraphs) or "Decides no claim."


def _section(study: Study, name: str, decisions: Sequence[Decision]) -> list[Any]:
    manifest = study.manifest(name)
    runs = " or ".join(f"Name == '{run}'" for run in sorted(manifest["runs"]))
    # Run sets without a project are those of the report's own.
    training = wr.Runset(name="training runs", filters=f"JobType == 'train' and ({runs})")
    scored = wr.Runset(name="scores", filters=f"Group == '{name}' and JobType == 'eval'")
    drawn = wr.Runset(name="figure", filters=f"Group == '{name}' and JobType == 'analysis'")
    curves = [wr.LinePlot(title=key, x="tokens", y=[key]) for key in CURVES]
    bits = wr.LinePlot(title="bits per byte, raw and merged", x="tokens", metric_regex=".*/average/bits_per_byte/.*")
    return [
        wr.H2(f"{title_of(name)}: {manifest['experiment']['title']}"),
        wr.MarkdownBlock(_claims(decisions, name)),
        wr.PanelGrid(runsets=[drawn], panels=[wr.MediaBrowser(title=title_of(name), media_keys=[name])]),
        wr.PanelGrid(runsets=[scored], panels=[bits]),
        wr.PanelGrid(runsets=[training], panels=curves),
        wr.MarkdownBlock(f"Made by `{command_of(name)}`, scale {study.scale}."),
    ]


def build(runs_dir: Path, entity: str, project: str) -> wr.Report:
    """The report; nothing is sent.

    Raises:
        ValueError: when nothing is published.
    """
    blocks: list[Any] = [wr.TableOfContents()]
    cost = []
    for scale, decisions in decide_published(runs_dir, load_rules()).items():
        study = Study(runs_dir / scale / "published")
        blocks += [wr.H1(f"Scale {scale}"), wr.P(f"{counts_text(decisions)}.")]
        for name in study.experiments():
            blocks += _section(study, name, decisions)
        rows = run_rows(study)
        training = hours(sum(row["seconds"] for row in rows))
        cost.append(f"Scale {scale}: {len(rows)} runs, {training} of training, one core each.")
    points = "\n".join(f"- {point}" for point in deviations())
    blocks += [wr.H1("What differs from the paper"), wr.MarkdownBlock(points)]
    blocks += [wr.H1("Cost"), wr.MarkdownBlock("\n\n".join(cost))]
    summary = "Model Merging in Pre-training of Large Language Models (arXiv 2505.12082): what of it holds here."
    return wr.Report(project=project, entity=entity, title=TITLE, description=summary, blocks=blocks, width="fluid")


def markdown(report: wr.Report) -> str:
    """The report's words; each grid of panels as a line that names them."""
    lines = [f"# {report.title}", report.description]
    for block in report.blocks:
        if isinstance(block, wr.H1 | wr.H2):
            lines.append(("## " if isinstance(block, wr.H1) else "### ") + str(block.text))
        elif isinstance(block, wr.P | wr.MarkdownBlock):
            lines.append(str(block.text))
        elif isinstance(block, wr.PanelGrid):
            lines.append(f"_Panels over {block.runsets[0].name}: {', '.join(panel.title for panel in block.panels)}._")
    return "\n\n".join(lines) + "\n"


def specification(report: wr.Report) -> str:
    """The report as JSON, as W&B would be sent it."""
    return report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True, indent=1) + "\n"
