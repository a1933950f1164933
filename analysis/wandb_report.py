"""Make the report in W&B: the finding, figures with panels over the runs' own metrics, verdicts, cost, conclusion.

python analysis/wandb_report.py --project NAME [--entity TEAM]      after `make wandb-replay` has sent the runs
python analysis/wandb_report.py --sample                            docs/wandb-report.md: its words and pictures, no W&B

Without a login the same content goes to report/wandb-report.json (what W&B would be sent) and report/wandb-report.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from page.build import TITLE
from page.story import Story, markdown, stories
from pictures import FIGURES
from records import ROOT

from pma.files import write_text
from pma.tracking import mode_of
from pma.words import short

SAMPLE = ROOT / "docs" / "wandb-report.md"


def sample(runs_dir: Path, place: Path) -> str:
    """The report's words and pictures as Markdown.

    Args:
        place: the file that it is for; the links to the pictures begin there.

    Raises:
        ValueError: when nothing is published.
    """
    return _markdown(stories(runs_dir), place)


def _markdown(told: Sequence[Story], place: Path) -> str:
    return markdown(TITLE, told, Path(os.path.relpath(FIGURES, place.parent)).as_posix())


def stale_sample(runs_dir: Path, place: Path) -> list[str]:
    """Whether the committed sample is what the published records give: no line, or one that says how to mend it."""
    if place.is_file() and place.read_text(encoding="utf-8") == sample(runs_dir, place):
        return []
    return [f"{place}: older than its records; write it anew with python analysis/wandb_report.py --sample"]


def publish(runs_dir: Path, out: Path, project: str, entity: str | None) -> str:
    """Send the report to W&B, or write it to files without a login.

    Returns:
        Where it stands.

    Raises:
        ValueError: when nothing is published.
    """
    import wandb_workspaces.reports.v2 as wr
    from page.wandb_blocks import report, specification

    online = mode_of("auto") == "online"
    entity = entity or (wr.Report(project=project).entity if online else "ENTITY")
    told = stories(runs_dir)
    blocks = report(told, entity, project)
    if online:
        return blocks.save().url
    write_text(out / "wandb-report.json", specification(blocks))
    write_text(out / "wandb-report.md", _markdown(told, out / "wandb-report.md"))
    return (
        f"not logged in to W&B: the report stands in {out / 'wandb-report.md'} and .json. To publish it: "
        f"wandb login; make wandb-replay WANDB_PROJECT={project}; make report WANDB_PROJECT={project}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the W&B report from the published records.")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--project", help="of W&B")
    choice.add_argument("--sample", nargs="?", type=Path, const=SAMPLE, help="write the report as Markdown to a file")
    parser.add_argument("--entity", help="team or user; without it, yours")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    parser.add_argument("--out", type=Path, default=ROOT / "report")
    options = parser.parse_args()
    try:
        if options.sample:
            write_text(options.sample, sample(options.runs_dir, options.sample))
            print(f"{short(options.sample)}: written")
        else:
            print(publish(options.runs_dir, options.out, options.project, options.entity))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
