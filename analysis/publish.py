"""Copy the records of your own runs to runs/SCALE/published: tables, configs, manifests and curves, no weights.

Beside them stands manifest.json: the hash of the rules that was fixed before data, the seeds, the revision of the code.

python analysis/publish.py --scale cpu      (then python analysis/claims.py --readme, which `make publish` does)
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from records import ROOT, Study
from verdicts.check import check
from verdicts.frozen import change_text, write_published_manifest
from verdicts.rules import load_rules

from pma.files import MANIFEST, publish_folder
from pma.words import short

SUFFIXES = (".csv", ".parquet", ".json", ".jsonl", ".yaml")


def publish(runs_dir: Path, scale: str) -> Path:
    """Replace the published records of a scale by those in RUNS/SCALE.

    Returns:
        The folder of the published records.

    Raises:
        ValueError: when there are no finished records, they are of the first protocol, or no rules were frozen.
    """
    study, rules = Study(runs_dir / scale), load_rules()
    source = study.root
    folders = [path.parent for path in sorted(source.glob(f"*/{MANIFEST}")) if path.parent.name != "published"]
    if not any((folder / "records.csv").exists() for folder in folders):
        raise ValueError(f"{source}: no records there; make reproduce SCALE={scale} makes them")
    for line in check(study, rules):
        print(f"note: {line}")
    with publish_folder(source / "published") as aside:
        for folder in folders:
            (aside / folder.name).mkdir()
            for path in sorted(folder.iterdir()):
                if path.is_file() and path.suffix in SUFFIXES:
                    shutil.copyfile(path, aside / folder.name / path.name)
        write_published_manifest(aside, study.recorded_seeds())
    if change := change_text(rules, source / "published"):
        print(f"note: {change}")
    return source / "published"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Publish the records of a scale.")
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    options = parser.parse_args()
    try:
        published = publish(options.runs_dir, options.scale)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    files = [path for path in published.rglob("*") if path.is_file()]
    print(f"{short(published)}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
