"""Recompute what README, docs, claims, pictures and report say from the published records; exit 1 where they differ.

python analysis/verify.py
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from documents import contents, differences
from pictures import FIGURES, stale
from records import ROOT, Study
from verdicts.check import check
from verdicts.decide import families, of_scales
from verdicts.frozen import change_text
from verdicts.tables import interim_text, published_seeds, published_table, result_table
from wandb_report import SAMPLE, stale_sample

_TOLERANCE = 2e-5  # relative: tables hold six significant digits, and the last may round either way
_NAMED = ("claim", "part", "column", "seed")  # what names a row


def table_differences(published: Path, fresh: pd.DataFrame) -> list[str]:
    """Cells of a published table that the published records do not give."""
    if not published.exists():
        return [f"{published}: missing; write it with python analysis/claims.py --readme"]
    old, fresh = pd.read_csv(published), pd.read_csv(io.StringIO(fresh.to_csv(index=False)))
    if list(old.columns) != list(fresh.columns) or len(old) != len(fresh):
        return [f"{published}: other rows or columns than the claims have; write it anew if that is meant"]
    differences = []
    for column in fresh:
        new, was = fresh[column], old[column]
        if pd.api.types.is_numeric_dtype(new) and pd.api.types.is_numeric_dtype(was):
            same = np.isclose(new.astype(float), was.astype(float), rtol=_TOLERANCE, atol=1e-9, equal_nan=True)
        else:
            same = new.fillna("").astype(str) == was.fillna("").astype(str)
        for row in np.flatnonzero(~np.asarray(same)):
            name = " ".join(str(fresh[key].iloc[row]) for key in _NAMED if key in fresh and key != column)
            differences.append(f"{published}: {name}: {column} {was.iloc[row]} published, {new.iloc[row]} recomputed")
    return differences


def verify(runs_dir: Path, root: Path) -> list[str]:
    """Every difference, one line each.

    Raises:
        ValueError: when nothing is published, records are of the first protocol, or a document lacks a marker.
    """
    drift, decided = [], families(runs_dir)
    for family in decided:
        for scale, decisions in family.decided.items():
            published = runs_dir / scale / "published"
            if not interim_text(decisions):  # while seeds are still to come, every document says so
                drift += [f"{published}: {line}" for line in check(Study(published), family.rules)]
            if not family.rules.changed_after_data and (change := change_text(family.rules, published)):
                drift.append(change)
    drift += differences(root, contents(runs_dir, decided))
    for scale, decisions in of_scales(decided).items():
        drift += table_differences(published_table(runs_dir, scale), result_table(decisions, scale))
        drift += table_differences(published_seeds(runs_dir, scale), decisions.seeds_table())
    return drift


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Check README, docs and the published claims against the records.")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    parser.add_argument("--readme-path", type=Path, default=ROOT / "README.md")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the published pictures")
    parser.add_argument("--report", type=Path, default=SAMPLE, help="the published words of the W&B report")
    options = parser.parse_args()
    try:
        drift = verify(options.runs_dir, options.readme_path.parent)
        drift += stale(options.runs_dir, options.figures) + stale_sample(options.runs_dir, options.report)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    agreed = "README, docs, claims, pictures and report agree with the published records"
    print("\n".join(drift) if drift else agreed)
    sys.exit(bool(drift))


if __name__ == "__main__":
    main()
