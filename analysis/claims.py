"""Decide the paper's claims C1-C17 from records, by the rules of claims.yaml.

python analysis/claims.py --scale cpu             fresh records: a table, and claims.md and claims.csv in OUT/SCALE
python analysis/claims.py --scale cpu --compare   the same, then where the verdicts differ from the published ones
python analysis/claims.py --readme                the numbers in README and docs and published claims.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

from documents import contents, written
from records import ROOT, Study
from verdicts.decide import decide, decide_published
from verdicts.rules import load_rules
from verdicts.tables import claims_markdown, compare, published_table, result_table, screen

from pma.files import write_text
from pma.words import print_next, short


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Decide the paper's claims from records.")
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    parser.add_argument("--out-dir", type=Path, default=ROOT / "analysis" / "out")
    parser.add_argument(
        "--compare", action="store_true", help="print where the verdicts differ from the published ones"
    )
    parser.add_argument(
        "--readme", action="store_true", help="write the numbers in README and docs from published records"
    )
    parser.add_argument("--readme-path", type=Path, default=ROOT / "README.md")
    options = parser.parse_args()
    try:
        if options.readme:
            write_documents(options.runs_dir, options.readme_path.parent)
        else:
            judge_fresh(options)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


def write_documents(runs_dir: Path, root: Path) -> None:
    """Write the blocks of README and docs, and claims.csv of every published scale.

    Raises:
        ValueError: when nothing is published, or a document lacks a marker. Nothing is written then.
    """
    decided = decide_published(runs_dir, load_rules())
    texts = written(root, contents(runs_dir, decided))
    for scale, decisions in decided.items():
        write_text(published_table(runs_dir, scale), result_table(decisions, scale).to_csv(index=False))
    for path, text in texts.items():
        write_text(path, text)


def judge_fresh(options: argparse.Namespace) -> None:
    """Judge the claims from one's own records: claims.csv, claims.md and the terminal."""
    study = Study(options.runs_dir / options.scale)
    decisions = decide(study.root, load_rules())
    out = options.out_dir / options.scale
    write_text(out / "claims.csv", result_table(decisions, options.scale).to_csv(index=False))
    write_text(out / "claims.md", claims_markdown(decisions, options.scale))
    print(screen(decisions, study))
    if options.compare:
        print(compare(decisions, published_table(options.runs_dir, options.scale)))
    print(f"every test with its numbers: {short(out / 'claims.md')}")
    print_next("make report (the published claims, figures and numbers on one page)")


if __name__ == "__main__":
    main()
