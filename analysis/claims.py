"""Decide the paper's claims from records, part by part, by the rules of claims.yaml; what it left open, by beyond.yaml.

python analysis/claims.py --scale cpu             your records: a table, and claims.csv and seeds.csv in OUT/SCALE
python analysis/claims.py --scale cpu --compare   the same, then your numbers beside the published seeds
python analysis/claims.py --readme                the numbers in README and docs, published claims.csv and seeds.csv
python analysis/claims.py --freeze                claims.sha256, beyond.sha256, before data: a later change then shows
"""

from __future__ import annotations

import argparse
from pathlib import Path

from documents import contents, written
from records import ROOT, Study
from verdicts.check import check
from verdicts.decide import decide, families, joined, of_scales, recorded
from verdicts.frozen import change_text, freeze
from verdicts.newcomer import closing_lines
from verdicts.rules import BEYOND, CLAIMS, all_rules
from verdicts.screen import screen
from verdicts.tables import published_seeds, published_table, result_table, seeds_csv

from pma.files import write_text
from pma.words import print_next, short


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Decide the paper's claims from records.")
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    parser.add_argument("--out-dir", type=Path, default=ROOT / "analysis" / "out")
    parser.add_argument("--compare", action="store_true", help="lay your numbers beside the published seeds")
    parser.add_argument(
        "--readme", action="store_true", help="write the numbers in README and docs from published records"
    )
    parser.add_argument("--readme-path", type=Path, default=ROOT / "README.md")
    parser.add_argument("--freeze", action="store_true", help="write the hash of the rules, before any data")
    options = parser.parse_args()
    try:
        if options.freeze:
            for rules in (CLAIMS, BEYOND):
                print(f"{short(rules.with_suffix('.sha256'))}: {freeze(rules)}")
        elif options.readme:
            write_documents(options.runs_dir, options.readme_path.parent)
        else:
            judge_fresh(options)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


def write_documents(runs_dir: Path, root: Path) -> None:
    """Write the blocks of README and docs, and claims.csv and seeds.csv of every published scale.

    Raises:
        ValueError: when nothing is published, records are of the first protocol, or a document lacks a marker. Then
            nothing is written.
    """
    decided = families(runs_dir)
    for family in decided:
        for scale in family.decided:
            check(Study(runs_dir / scale / "published"), family.rules)
    texts = written(root, contents(runs_dir, decided))
    for scale, decisions in of_scales(decided).items():
        write_text(published_table(runs_dir, scale), result_table(decisions, scale).to_csv(index=False))
        write_text(published_seeds(runs_dir, scale), seeds_csv(decisions))
    for path, text in texts.items():
        write_text(path, text)


def judge_fresh(options: argparse.Namespace) -> None:
    """Judge those claims that your own records are about: claims.csv, seeds.csv and the terminal."""
    study, (claims, beyond) = Study(options.runs_dir / options.scale), all_rules()
    published = Study(study.root / "published")
    relevant = [rules for rules in (claims, beyond) if recorded(study, rules)] or [claims]
    notes = [note for rules in relevant for note in check(study, rules)]
    decided = [decide(study.root, rules) for rules in relevant]
    out, together = options.out_dir / options.scale, joined(decided)
    write_text(out / "claims.csv", result_table(together, options.scale).to_csv(index=False))
    write_text(out / "seeds.csv", seeds_csv(together))
    pairs = zip(decided, relevant, strict=True)
    print("\n\n".join(screen(decisions, rules, study) for decisions, rules in pairs))
    if options.compare and published.root.is_dir():
        notes += [text for rules in relevant if (text := change_text(rules, published.root))]
    for note in notes:
        print(f"note: {note}")
    if options.compare:
        print(f"\n{closing_lines(study, published, published_seeds(options.runs_dir, options.scale), relevant)}")
    print(f"every number: {short(out / 'claims.csv')} (a row a part), {short(out / 'seeds.csv')} (a row a seed)")
    print_next("make report (the published claims, figures and numbers on one page)")


if __name__ == "__main__":
    main()
