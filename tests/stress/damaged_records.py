"""Damaged records: figures, claims and the report are drawn from whole tables, or one line names the file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pandas as pd
from campaign import Outcome, command, names, refusal
from damage import BYTES, JSON, LINES, Damage, damaged
from prepared import own

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "runs/cpu/published"
_TEXT = ("text", "0.3x", "", "nan", "inf", "[1]", "0.5 0.5")


def _rows(change: Callable[[pd.DataFrame, Random], pd.DataFrame]) -> Damage:
    def damage(path: Path, random: Random) -> None:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        change(table, random).to_csv(path, index=False)

    damage.__name__ = change.__name__.strip("_")
    return damage


def _half(table: pd.DataFrame, random: Random) -> pd.DataFrame:
    kept = random.randrange(len(table))
    return random.choice([table[:kept], table[kept:]])


def _value(table: pd.DataFrame, random: Random) -> pd.DataFrame:
    table.iloc[random.randrange(len(table)), random.randrange(len(table.columns))] = random.choice(_TEXT)
    return table


def _column(table: pd.DataFrame, random: Random) -> pd.DataFrame:
    name = random.choice(list(table.columns))
    return random.choice([table.drop(columns=name), table.rename(columns={name: "other"}), table.assign(**{name: "x"})])


TABLE: tuple[Damage, ...] = (_rows(_half), _rows(_half), _rows(_value), _rows(_value), _rows(_column), *BYTES, LINES[0])


def _copy(folder: Path, experiment: str) -> list[str]:
    """An experiment and its runs below folder/runs/cpu; returns the names of the runs."""
    root = folder / "runs/cpu"
    runs = list(json.loads((PUBLISHED / experiment / "manifest.json").read_bytes())["runs"])
    for name in (experiment, *runs):
        shutil.copytree(PUBLISHED / name, root / name, copy_function=os.symlink)
    return runs


def _victim(random: Random, folder: Path, experiment: str, runs: list[str]) -> tuple[Path, str]:
    root = folder / "runs/cpu"
    tables = [path.name for path in (root / experiment).glob("*.csv")]
    run = random.choice(runs)
    places = [f"{experiment}/{name}" for name in tables] * 3
    places += [f"{experiment}/manifest.json", f"{run}/manifest.json", f"{run}/config.yaml", f"{run}/metrics.jsonl"]
    path = root / random.choice(places)
    if not path.exists():
        path = root / experiment / "manifest.json"
    kinds = {".csv": TABLE, ".json": JSON, ".jsonl": LINES, ".yaml": BYTES}[path.suffix]
    damage = damaged(own(path), random, kinds)
    return path, damage


def _drawn(random: Random, folder: Path, script: str, experiment: str) -> Outcome:
    runs = _copy(folder, experiment)
    path, damage = _victim(random, folder, experiment, runs)
    places = [f"--runs-dir={folder / 'runs'}", f"--out-dir={folder / 'out'}", "--scale=cpu"]
    more = [experiment] if script == "draw" else []
    before = names(folder)
    (folder / "out/cpu").mkdir(parents=True)
    ended = command(str(ROOT / f"analysis/{script}.py"), *places, *more, folder=folder, seconds=240)
    outcome = refusal(ended, folder, before | {"out", "out/cpu"}, subject=path.parent.name)
    where = f"{path.parent.name}/{path.name} {damage}"
    if outcome is not None:
        return Outcome(outcome.verdict if damage else "wrong", f"{where}: {outcome.note}")
    return Outcome("right", where)


def damaged_figures(random: Random, folder: Path) -> Outcome:
    """A figure is drawn from damaged records."""
    experiments = sorted(
        path.parent.name for path in PUBLISHED.glob("*/manifest.json") if "-seed" not in path.parent.name
    )
    return _drawn(random, folder, "draw", random.choice(experiments))


def damaged_claims(random: Random, folder: Path) -> Outcome:
    """Claims are judged from damaged records."""
    return _drawn(random, folder, "claims", random.choice(["figure_1", "figure_3", "figure_8", "table_1"]))
