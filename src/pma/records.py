"""Records: the tidy table of scores that src/ writes and analysis/ reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from pma.files import write_bytes, write_text


@dataclass(frozen=True)
class Record:
    """One score of one merge."""

    scale: str
    experiment: str
    run: str
    seed: int
    tokens: int  # of the newest snapshot in the merge
    method: str  # last | sma | wma | ema_ALPHA
    n: int  # snapshots merged
    interval: int  # tokens between them
    suite: str
    task: str
    metric: str
    value: float
    stderr: float
    config_hash: str  # of the run


@dataclass(frozen=True)
class Items:
    """The values of a suite's single items for one merge, in the suite's order: what paired comparisons need."""

    run: str
    seed: int
    tokens: int
    method: str
    n: int
    interval: int
    suite: str
    task: str
    metric: str
    values: list[float]  # their mean is the record's value


MEND = "put back the file that was written, or make the records again"
COLUMNS = [field.name for field in fields(Record)]


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Publish records as CSV, in the order given."""
    write_text(path, pd.DataFrame([asdict(record) for record in records], columns=COLUMNS).to_csv(index=False))


def write_items(path: Path, items: Sequence[Items]) -> None:
    """Publish values of single items as compressed parquet, in the order given."""
    rows = [{**vars(entry), "values": np.asarray(entry.values, dtype=np.float32)} for entry in items]
    write_bytes(path, pd.DataFrame(rows).to_parquet(index=False, compression="zstd"))


def read_records(path: Path) -> pd.DataFrame:
    """Records as a table.

    Raises:
        ValueError: when the file is missing, is no table, or has other columns or no numbers in them.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no records there; make them with python -m pma.reproduce experiment=NAME")
    table = read_table(path)
    if list(table.columns) != COLUMNS:
        raise ValueError(f"{path}: columns {list(table.columns)}, expected {COLUMNS}; {MEND}")
    for field in fields(Record):
        own = table[field.name]
        whole, number = pd.api.types.is_integer_dtype(own), pd.api.types.is_numeric_dtype(own)
        if len(table) and not {"int": whole, "float": number}.get(str(field.type), True):
            raise ValueError(f"{path}: column {field.name} holds something else than numbers in each row; {MEND}")
    return table


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file as a table.

    Raises:
        ValueError: naming the file, when it is no table.
    """
    try:
        return pd.read_csv(path)
    except ValueError as error:  # pandas' own errors, and bytes that are no text
        raise ValueError(f"{path}: not readable as a table ({' '.join(str(error).split())}); {MEND}") from None


# Below this, the rise of a metric over training cannot be distinguished from its scatter between neighbouring
# snapshots. The standard error of a difference of two scores is about 1.4 times the scatter, so 3 is about two of them.
SIGNAL_TO_NOISE_MINIMUM = 3.0
TAIL = 5  # last snapshots, one merge interval apart


def signal_to_noise(scores: Sequence[float], tail: int = TAIL) -> float:
    """Rise over training against scatter over the last snapshots: |mean(tail) - first| / std(tail).

    `scores` of single snapshots in the order of training; after arXiv 2508.13144. NaN with too few scores.
    """
    if len(scores) <= tail:
        return float("nan")
    last = np.asarray(scores[-tail:])
    scatter = last.std(ddof=1)
    return float(abs(last.mean() - scores[0]) / scatter) if scatter > 0 else float("nan")


def signal_to_noise_table(records: pd.DataFrame) -> pd.DataFrame:
    """Signal to noise of each (task, metric) from the single snapshots among the records, mean over runs and seeds."""
    single = records[records["method"] == "last"].sort_values("tokens")
    per_run = single.groupby(["task", "metric", "run", "seed"])["value"].agg(lambda v: signal_to_noise(list(v)))
    return per_run.groupby(["task", "metric"]).mean().rename("signal_to_noise").reset_index()
