"""Add the records of your own runs to runs/SCALE/published: tables, configs, manifests and curves, no weights.

Seeds that are published already stay, unless yours have the same numbers: seeds can be trained one after the other, or
on several machines. A run keeps its published curve where published records rest on it that are not made again now.
Values of single items are left out: no verdict and no figure of several seeds reads them. Beside the records stands
manifest.json: the hash of the rules that was fixed before data, the seeds, the code.

python analysis/publish.py --scale cpu      (then python analysis/claims.py --readme, which `make publish` does)
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from records import ROOT, Study, seed_of
from verdicts.check import check
from verdicts.frozen import change_text, frozen_hash, published_hash, write_published_manifest
from verdicts.rules import all_rules

from pma.config import hash_json
from pma.files import publish_folder, write_json, write_text
from pma.json_files import MANIFEST
from pma.run import scientific
from pma.words import short

_OF_RUN = ("config.yaml", "metrics.jsonl", MANIFEST)
_TABLES = ("records", "landscape", "curvature_terms", "curvature_losses")


def publish(runs_dir: Path, scale: str) -> Path:
    """Add the records in RUNS/SCALE to the published ones of that scale. Nothing is changed where it fails.

    Returns:
        The folder of the published records.

    Raises:
        ValueError: when there are no finished records, they are of the first protocol, or no rules were frozen; when
            runs of one name were trained with different configs.
    """
    fresh, families = Study(runs_dir / scale), all_rules()
    place = fresh.root / "published"
    if not any(fresh.has(name, "records.csv") for name in fresh.experiments()):
        raise ValueError(f"{fresh.root}: no records there; make reproduce SCALE={scale} makes them")
    for line in (line for rules in families for line in check(fresh, rules)):
        print(f"note: {line}")
    _, beyond = families
    before, nothing = Study(place), Study(fresh.root / "nothing")
    if published_hash(place) != frozen_hash():  # of other rules, or of the first protocol
        before = nothing
    old = before.experiments()
    if published_hash(place, beyond.path) != frozen_hash(beyond.path):
        old = [name for name in old if name not in beyond.experiments]
    _check_configs(fresh, before)
    with publish_folder(place) as aside:
        for name in dict.fromkeys([*old, *fresh.experiments()]):
            _add_experiment(fresh, before if name in old else nothing, name, aside / name)
        published = Study(aside)
        again = set(fresh.experiments())
        kept = {run for name in old if name not in again for run in before.manifest(name)["runs"]}
        for folder in {run for name in published.experiments() for run in published.manifest(name)["runs"]}:
            source = before if folder in kept or not fresh.has(folder, MANIFEST) else fresh
            (aside / folder).mkdir()
            for file in _OF_RUN:
                shutil.copyfile(source.file(folder, file), aside / folder / file)
        write_published_manifest(aside, published.recorded_seeds())
    for rules in families:
        if change := change_text(rules, place):
            print(f"note: {change}")
    return place


def _check_configs(fresh: Study, before: Study) -> None:
    """Refuse runs that differ in more than the seed from those of their name that are published."""
    known: dict[str, Any] = {}
    for study in (before, fresh):
        for folder in study.run_folders():
            run = folder.rpartition("-seed")[0]
            config = OmegaConf.load(study.file(folder, "config.yaml"))
            config.seed = config.init.parent.seed = 0
            now = scientific(config)
            if known.setdefault(run, now) != now:
                raise ValueError(
                    f"{study.root / folder}: trained with another config than the published {run}; remove "
                    f"{before.root} to publish yours alone"
                )


def _add_experiment(fresh: Study, before: Study, name: str, out: Path) -> None:
    """Write the tables and the manifest of an experiment: its published seeds, and the fresh ones in their place."""
    manifests = [_manifest(study, name) for study in (before, fresh)]
    old, new = manifests
    if new and old and _decides(old) != _decides(new):
        old = {}  # the experiment is another one now
    seeds = {seed_of(run) for run in new.get("runs", {})}
    kept = {run: of_run for run, of_run in old.get("runs", {}).items() if seed_of(run) not in seeds}
    out.mkdir()
    for table in _TABLES:
        parts = []
        if kept and before.has(name, f"{table}.csv"):
            rows = _text_table(before, name, table)
            parts.append(rows[~rows["seed"].astype(int).isin(seeds)])
        if new and fresh.has(name, f"{table}.csv"):
            parts.append(_text_table(fresh, name, table))
        if parts:
            rows = pd.concat(parts)
            rows = rows.iloc[rows["seed"].astype(int).argsort(kind="stable")]
            write_text(out / f"{table}.csv", rows.to_csv(index=False))
    share = len({seed_of(run) for run in kept}) / max(1, len({seed_of(run) for run in old.get("runs", {})}))
    seconds = new.get("seconds", 0.0) + share * old.get("seconds", 0.0)
    shared = dict(new or old)
    runs = dict(sorted((kept | new.get("runs", {})).items(), key=lambda item: seed_of(item[0])))
    shared["stamp"] = hash_json([_decides(shared), runs])  # a call's own stamp is of its seeds alone
    if fresh.has(name, "items.parquet"):
        shared["items"] = fresh.item_counts(name).to_numpy().tolist()
    write_json(out / MANIFEST, {**shared, "runs": runs, "seconds": round(seconds, 1)})


def _manifest(study: Study, name: str) -> Mapping[str, Any]:
    return study.manifest(name) if study.has(name, MANIFEST) else {}


def _decides(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What of an experiment decides its records."""
    return {key: manifest["experiment"].get(key) for key in ("parts", "measurements")}


def _text_table(study: Study, name: str, table: str) -> pd.DataFrame:
    """A table as text, so that every number stays as it was written."""
    return pd.read_csv(study.file(name, f"{table}.csv"), dtype=str, keep_default_na=False)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Add records to the published ones of a scale.")
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
