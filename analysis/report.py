"""Write the report: report/index.html from the published records, one page that needs no server and no network.

python analysis/report.py                      every published scale, into report/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from page.build import build
from records import ROOT

from pma.files import write_text
from pma.words import short


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write the static report from the published records.")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    parser.add_argument("--out", type=Path, default=ROOT / "report")
    options = parser.parse_args()
    try:
        page = build(options.runs_dir)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    write_text(options.out / "index.html", page)
    print(f"{short(options.out / 'index.html')}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    main()
