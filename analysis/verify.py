"""Recompute every number of the README's block and the published claims from the published records; exit 1 on drift.

python analysis/verify.py
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from claims import HERE, decide_published, load_claims, published_table, readme_block, readme_text, result_table

_TOLERANCE = 2e-6  # claims.csv holds six digits


def table_differences(published: Path, fresh: pd.DataFrame) -> list[str]:
    """Cells of the published claims that the published records do not give."""
    if not published.exists():
        return [f"{published}: missing; write it with python analysis/claims.py --readme"]
    old = pd.read_csv(published)
    if list(old.columns) != list(fresh.columns) or len(old) != len(fresh):
        return [f"{published}: other rows or columns than the claims have; write it anew if that is meant"]
    found = []
    for column in fresh:
        new, was = fresh[column], old[column]
        if pd.api.types.is_numeric_dtype(new) and pd.api.types.is_numeric_dtype(was):
            same = np.isclose(new.astype(float), was.astype(float), rtol=0, atol=_TOLERANCE, equal_nan=True)
        else:
            same = new.fillna("").astype(str) == was.fillna("").astype(str)
        for row in np.flatnonzero(~np.asarray(same)):
            name = f"{fresh['claim'].iloc[row]} {fresh['statistic'].iloc[row]}"
            found.append(f"{published}: {name}: {column} {was.iloc[row]} published, {new.iloc[row]} recomputed")
    return found


def readme_differences(readme: Path, block: str) -> list[str]:
    """Lines of the README's block that the published records do not give."""
    stands = readme_text(readme)[1].strip("\n").splitlines()
    lines = difflib.unified_diff(stands, block.splitlines(), lineterm="", n=0)
    return [f"{readme}: {line}" for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]


def verify(runs_dir: Path, readme: Path) -> list[str]:
    """Every difference; nothing published is an error of the caller.

    Raises:
        ValueError: when nothing is published, or the README has no markers.
    """
    decided = decide_published(runs_dir, load_claims())
    differences = readme_differences(readme, readme_block(decided))
    for scale, decisions in decided.items():
        differences += table_differences(published_table(runs_dir, scale), result_table(decisions, scale))
    return differences


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Check the README and the published claims against the records.")
    parser.add_argument("--runs-dir", type=Path, default=HERE.parent / "runs")
    parser.add_argument("--readme-path", type=Path, default=HERE.parent / "README.md")
    options = parser.parse_args()
    try:
        differences = verify(options.runs_dir, options.readme_path)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    print("\n".join(differences) if differences else "README and claims agree with the published records")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
