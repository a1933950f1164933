"""Make the report in W&B: for each figure the claims, our picture, panels over the runs' own metrics, the verdicts.

python analysis/wandb_report.py --project NAME [--entity TEAM]      after `make wandb-replay` has sent the runs

Without a login the same content goes to report/wandb-report.json (what W&B would be sent) and report/wandb-report.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import wandb_workspaces.reports.v2 as wr
from page.wandb_blocks import build, markdown, specification
from records import ROOT

from pma.files import write_text
from pma.tracking import mode_of


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the W&B report from the published records.")
    parser.add_argument("--project", required=True)
    parser.add_argument("--entity", help="team or user; without it, yours")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    parser.add_argument("--out", type=Path, default=ROOT / "report")
    options = parser.parse_args()
    online = mode_of("auto") == "online"
    entity = options.entity or (wr.Report(project=options.project).entity if online else "ENTITY")
    try:
        report = build(options.runs_dir, entity, options.project)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    if online:
        print(report.save().url)
        return
    write_text(options.out / "wandb-report.json", specification(report))
    write_text(options.out / "wandb-report.md", markdown(report))
    print(
        f"not logged in to W&B: the report stands in {options.out / 'wandb-report.md'} and .json. To publish it: "
        f"wandb login; make wandb-replay WANDB_PROJECT={options.project}; make report WANDB_PROJECT={options.project}"
    )


if __name__ == "__main__":
    main()
