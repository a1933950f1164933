"""Files of records read with an eye on damage: what is cut short or says something else is named, never drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pma.records import MEND, read_table

# The same in C, eight times as fast, where PyYAML was built with it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = ["suite", "run", "seed", "tokens", "method", "n", "interval"]
# Columns of measurements by name of their file. Those of the first protocol have no seed, which claims.py says.
_COLUMNS = {
    "landscape": ("run", "role", "tokens", "x", "y", "along", "metric", "value", "share"),
    "curvature_terms": ("run", "term", "i", "j", "value"),
    "curvature_losses": ("run", "what", "n", "interval", "tokens", "value"),
}
# Those that name something; all others are numbers.
_NAMES = ("run", "reference", "role", "metric", "what", "term")
_KINDS: dict[str, type | tuple[type, ...]] = {
    "experiment": dict,
    "runs": dict,
    "parameters": dict,
    "versions": dict,
    "seconds": (int, float),
    "tokens": int,
    "items": list,
}


class Whole(dict):
    """What a file says, by key; a key that it lacks is an error that names the file.

    Args:
        path: of the file.
    """

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        super().__init__({key: _whole(value, path) for key, value in values.items()})
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise ValueError(f"{self.path}: has no {key}; {MEND}")

    def __deepcopy__(self, memo: dict) -> Whole:
        return Whole(self, self.path)


def _whole(value: Any, path: Path) -> Any:
    if isinstance(value, list):
        return [_whole(entry, path) for entry in value]
    return Whole(value, path) if isinstance(value, dict) else value


def whole_mapping(values: Mapping[str, Any], path: Path) -> Whole:
    """What a manifest says.

    Raises:
        ValueError: when a value is of another kind than it was written.
    """
    for key, kind in _KINDS.items():
        if key in values and (not isinstance(values[key], kind) or isinstance(values[key], bool)):
            raise ValueError(f"{path}: {key} is {str(values[key])[:40]!r}; {MEND}")
    return Whole(values, path)


def read_config(path: Path) -> Whole:
    """The resolved config of a run.

    Raises:
        ValueError: when it is no YAML, or no mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not readable as YAML ({' '.join(str(error).split())[:200]}); {MEND}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a mapping should stand there, not {str(values)[:40]!r}; {MEND}")
    return Whole(values, path)


def read_items(path: Path) -> pd.DataFrame:
    """Values of single items.

    Raises:
        ValueError: naming the file, when it is damaged.
    """
    try:
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:  # pyarrow's own
        raise ValueError(f"{path}: not readable as parquet ({' '.join(str(error).split())[:200]}); {MEND}") from None


def read_measurement(path: Path) -> pd.DataFrame:
    """A measurement's table.

    Raises:
        ValueError: naming the file, when it is damaged or a column of numbers holds something else.
    """
    table = read_table(path)
    for column in table.columns.difference(_NAMES):
        if len(table) and not pd.api.types.is_numeric_dtype(table[column]):
            raise ValueError(f"{path}: column {column} holds something else than numbers; {MEND}")
    return table


def whole_measurement(table: pd.DataFrame, manifest: Mapping[str, Any], path: Path) -> pd.DataFrame:
    """A measurement, if every seed of the experiment has what the others have; a grid's size is its own.

    Args:
        manifest: of the experiment; empty where there is none, and then nothing is known.

    Raises:
        ValueError: naming the column that is missing, or the seed that lacks rows.
    """
    if not manifest:
        return table
    if lacking := [column for column in _COLUMNS.get(path.stem, ()) if column not in table]:
        raise ValueError(f"{path}: has no column {lacking[0]}; {MEND}")
    kind = next((column for column in ("role", "what", "term") if column in table), None)
    if kind is None or "seed" not in table:
        return table
    sizes = table.groupby(["run", kind, "seed"]).size().unstack(fill_value=0)
    runs = [folder.rpartition("-seed") for folder in manifest.get("runs", {})]
    every = {int(seed) for run, _, seed in runs if run in set(table["run"]) and seed.isdecimal()}
    lacking = sorted(every - set(sizes.columns))
    lacking += [seed for name, row in sizes.iterrows() for seed in row.index[row < _due(name[1], row)]]
    if lacking:
        raise ValueError(f"{path}: not whole, rows of seed {lacking[0]} are missing; {MEND}")
    return table


def _due(kind: str, row: pd.Series) -> int:
    return 1 if kind == "grid" else int(row.max())


def whole_records(table: pd.DataFrame, manifest: Mapping[str, Any], path: Path) -> pd.DataFrame:
    """Records, if they are all that was written: every merge on every task, every run for every seed.

    Args:
        manifest: of the experiment; empty where there is none, and then nothing is known.

    Raises:
        ValueError: naming the run that lacks rows.
    """
    parts = manifest.get("experiment", {}).get("parts")
    if not isinstance(parts, list):
        return table
    once = table.drop_duplicates([*_MERGE, "task", "metric"])  # a seed that stands twice is not for here to say
    sizes = once.groupby(_MERGE).size()
    uneven = sizes[sizes != sizes.groupby("suite").transform("max")]
    rows = once.groupby(["run", "seed"]).size()
    short = rows[rows != rows.groupby("run").transform("max")]
    scored, of_manifest = set(table["run"]), [folder.rpartition("-seed") for folder in manifest.get("runs", {})]
    seeds = [(run, int(seed)) for run, _, seed in of_manifest if run in scored and seed.isdecimal()]
    lacking = [f"{run} seed {seed}" for run, seed in seeds if (run, seed) not in rows.index]
    lacking += [str(run) for part in parts for run in part["runs"] if run not in scored]
    lacking += [f"{run} seed {seed}" for run, seed in short.index]
    lacking += [f"{row[1]} seed {row[2]} at {row[3]} tokens" for row in uneven.index]
    if lacking:
        raise ValueError(f"{path}: not whole, rows of {lacking[0]} are missing; {MEND}")
    return table


def whole_curve(rows: pd.DataFrame, end: int, path: Path) -> pd.DataFrame:
    """Logged steps of a run, if they are all.

    Args:
        end: position up to which the run was trained.

    Raises:
        ValueError: when they end before, or hold something else than numbers.
    """
    newest = int(rows["tokens"].max()) if len(rows) else 0
    if newest < end:
        raise ValueError(f"{path}: ends at {newest:,} tokens, and the run at {end:,}; {MEND}")
    for column in rows.columns:
        if not pd.api.types.is_numeric_dtype(rows[column]):
            raise ValueError(f"{path}: {column} is no number in every line; {MEND}")
    return rows
