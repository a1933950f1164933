"""The report in W&B: for each figure the claims, our picture, panels over the runs' own metrics, the verdicts.

python analysis/wandb_report.py --project NAME [--entity TEAM]      after `make wandb-replay` has sent the runs

Without a login the same content goes to report/wandb-report.json (what W&B would be told) and report/wandb-report.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import wandb_workspaces.reports.v2 as wr
from claims import VERDICTS, Decision, decide_published, load_claims, ours
from draw import NAMES
from report import CURVES, ROOT, command_of, deviations, run_rows, title_of
from style import Source

from pma.files import MANIFEST, read_manifest, write_text
from pma.tracking import mode_of


def _claims(decisions: list[Decision], name: str) -> str:
    """The claims of a figure in Markdown."""
    lines = []
    for one in decisions:
        about = one.about
        if name in about["experiments"]:
            lines.append(f"**{one.claim}** {about['text']}. The paper: {about['paper']}. Ours: {ours(one)}. ")
            lines[-1] += f"Verdict: **{one.verdict}**. {one.sentence}"
    return "\n\n".join(lines) or "Decides no claim."


def _section(source: Source, name: str, decisions: list[Decision]) -> list[Any]:
    manifest = read_manifest(source.folder / name)
    runs = " or ".join(f"Name == '{run}'" for run in sorted(manifest["runs"]))
    # Run sets without a project are those of the report's own.
    training = wr.Runset(name="training runs", filters=f"JobType == 'train' and ({runs})")
    scored = wr.Runset(name="scores", filters=f"Group == '{name}' and JobType == 'eval'")
    drawn = wr.Runset(name="figure", filters=f"Group == '{name}' and JobType == 'analysis'")
    curves = [wr.LinePlot(title=key, x="tokens", y=[key]) for key in CURVES]
    scores = [
        wr.LinePlot(title="bits per byte, raw and merged", x="tokens", metric_regex=".*/average/bits_per_byte/.*")
    ]
    return [
        wr.H2(f"{title_of(name)}: {manifest['experiment']['title']}"),
        wr.MarkdownBlock(_claims(decisions, name)),
        wr.PanelGrid(runsets=[drawn], panels=[wr.MediaBrowser(title=title_of(name), media_keys=[name])]),
        wr.PanelGrid(runsets=[scored], panels=scores),
        wr.PanelGrid(runsets=[training], panels=curves),
        wr.MarkdownBlock(f"Made by `{command_of(name)}`, scale {source.scale}."),
    ]


def build(runs_dir: Path, readme: Path, entity: str, project: str) -> wr.Report:
    """The report; nothing is sent.

    Raises:
        ValueError: when nothing is published.
    """
    decided = decide_published(runs_dir, load_claims())
    blocks: list[Any] = [wr.TableOfContents()]
    cost = []
    for scale, decisions in decided.items():
        source = Source(runs_dir / scale / "published")
        counts = ", ".join(f"{sum(d.verdict == v for d in decisions)} {v}" for v in VERDICTS)
        blocks += [wr.H1(f"Scale {scale}"), wr.P(f"{counts}.")]
        for name in NAMES:
            if (source.folder / name / MANIFEST).is_file():
                blocks += _section(source, name, decisions)
        rows = run_rows(source)
        hours = sum(row["seconds"] for row in rows) / 3600
        cost.append(f"Scale {scale}: {len(rows)} runs, {hours:.1f} hours of training, one core each.")
    different = "\n".join(f"- {point.striptags()}" for point in deviations(readme))
    blocks += [wr.H1("What differs from the paper"), wr.MarkdownBlock(different)]
    blocks += [wr.H1("Cost"), wr.MarkdownBlock("\n\n".join(cost))]
    about = "Model Merging in Pre-training of Large Language Models (arXiv 2505.12082): what of it holds here."
    title = "Model merging in pre-training: a replication"
    return wr.Report(project=project, entity=entity, title=title, description=about, blocks=blocks, width="fluid")


def markdown(report: wr.Report) -> str:
    """The report's words; panels as what they show."""
    lines = [f"# {report.title}", report.description]
    for block in report.blocks:
        if isinstance(block, wr.H1 | wr.H2):
            lines.append(("## " if isinstance(block, wr.H1) else "### ") + str(block.text))
        elif isinstance(block, wr.P | wr.MarkdownBlock):
            lines.append(str(block.text))
        elif isinstance(block, wr.PanelGrid):
            lines.append(f"_Panels over {block.runsets[0].name}: {', '.join(panel.title for panel in block.panels)}._")
    return "\n\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the W&B report from the published records.")
    parser.add_argument("--project", required=True)
    parser.add_argument("--entity", help="team or user; null: yours")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    parser.add_argument("--readme-path", type=Path, default=ROOT / "README.md")
    parser.add_argument("--out", type=Path, default=ROOT / "report")
    options = parser.parse_args()
    online = mode_of("auto") == "online"
    entity = options.entity or (wr.Report(project=options.project).entity if online else "ENTITY")
    try:
        report = build(options.runs_dir, options.readme_path, entity, options.project)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    if online:
        print(report.save().url)
        return
    spec = report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True, indent=1)
    write_text(options.out / "wandb-report.json", spec + "\n")
    write_text(options.out / "wandb-report.md", markdown(report))
    print(
        f"not logged in to W&B: the report stands in {options.out / 'wandb-report.md'} and .json. To publish it: "
        f"wandb login; make wandb-replay WANDB_PROJECT={options.project}; make report WANDB_PROJECT={options.project}"
    )


if __name__ == "__main__":
    main()
