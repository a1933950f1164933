"""How far merges have lain from the score of a real decay of the learning rate: the published records, or a user's own.

A merge of a run at constant rate estimates what the run would score had it been annealed up to the same point. How good
the estimate is, only finished decays can say. Those published with this repository belong to claim C18. A file of your
own holds a line a decay.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pma.config import CONF_DIR
from pma.records import read_records

PUBLISHED = CONF_DIR.parent / "runs"  # of the clone, or inside the wheel
FEWEST = 3  # independent runs or decays; of fewer there is no interval
_SHARE = 0.9  # of decays that the interval is to hold, as in claim C18
_LIKE = 2.0  # a decay up to so many times as long, or as short, counts
_TRUNK = "moe_main"  # the run at constant rate that the published decays were forked off
_DECAY = re.compile(r"decay_(\d+)_at_\d+")  # their names; the length is in distances between snapshots
_LONGEST = {"annealed_moe_main": 32}  # of one with another name
_HELDOUT = ("heldout", "bits_per_byte")  # of the published scores, what stands for bits per byte of any text


@dataclass(frozen=True)
class Errors:
    """Annealed score minus the merge's, of decays like the one that is asked for.

    Attributes:
        independent: how many count: decays that share a run are one.
        words: where they come from, or why there are none.
    """

    values: Sequence[float]
    independent: int
    words: str


@dataclass(frozen=True)
class Estimate:
    """What a decay would have scored; the interval is None where too few decays are known, and `words` says why."""

    value: float
    interval: tuple[float, float] | None
    share: float  # of decays that the interval is to hold
    words: str


@dataclass(frozen=True)
class Merged:
    """The merge that an estimate is made from.

    Attributes:
        recipe: its name, as sma_10.
        method: sma | wma | ...
        span: length of its window, N times the distance, in the unit of the user's decay; None: a running EMA.
    """

    recipe: str
    method: str
    span: float | None


class Anneals(Protocol):
    """Finished decays to learn from."""

    def errors(self, score: str, merged: Merged, length: float) -> Errors:
        """Errors of decays of about `length` in a score, TASK/METRIC."""
        ...


def estimate(value: float, errors: Errors) -> Estimate:
    """Correct the score of a merge by the median error, and put the interval of the errors round it.

    The interval goes from the 5 % to the 95 % quantile (linear), as in claim C18. Fewer than 19 errors cannot tell
    these: then it goes from the smallest to the largest, which hold (n - 1) / (n + 1) of decays like them.
    """
    n = len(errors.values)
    if errors.independent < FEWEST:
        return Estimate(value, None, math.nan, errors.words)
    share = min(_SHARE, (n - 1) / (n + 1))
    outer = (1 - _SHARE) / 2 if share == _SHARE else 0.0
    low, middle, high = np.quantile(errors.values, [outer, 0.5, 1 - outer])
    return Estimate(value + middle, (value + low, value + high), share, errors.words)


def _alike(length: float, other: float) -> bool:
    return max(length, other) <= _LIKE * min(length, other) * (1 + 1e-9)


# ---- published with claim C18 ----


class Published:
    """The decays of claim C18, of the scale with most of them: fifteen a seed, of three lengths, beside SMA of ten.

    Lengths are in windows of the merge, for what is a long decay is another number of tokens for every run.

    Args:
        root: folder of runs, with SCALE/published/annealing_forecast.
        suite: proxy, or text: then the published held-out text stands for the user's. Of others nothing is published.
    """

    def __init__(self, root: Path, suite: str) -> None:
        self._suite = suite
        paths = sorted(root.glob("*/published/annealing_forecast/records.csv"))
        scales = [(path.parents[2].name, _published_rows(path)) for path in paths]
        self._scale, self._rows = max(scales, key=lambda scale: len(scale[1]), default=("", []))

    def errors(self, score: str, merged: Merged, length: float) -> Errors:
        task, _, metric = score.partition("/")
        key = _HELDOUT if (self._suite, metric) == ("text", _HELDOUT[1]) else (task, metric)
        rows = [row for row in self._rows if row["key"] == key and self._suite in ("proxy", "text")]
        if not self._rows:
            return Errors([], 0, "no finished decays were published with this installation")
        if merged.method != "sma":
            return Errors([], 0, "the published decays stand beside SMA alone")
        if not rows:
            return Errors([], 0, f"the published decays were not scored on {score} of suite={self._suite}")
        assert merged.span, "only the running EMA has no window"
        asked = length / merged.span
        like = [row for row in rows if _alike(row["length"], asked)]
        if not like:
            lengths = [row["length"] for row in rows]
            return Errors(
                [],
                0,
                f"the published decays took {min(lengths):.2g} to {max(lengths):.2g} times the length of the merged "
                f"window, and this one {asked:.2g}",
            )
        seeds = len({row["seed"] for row in like})
        words = f"{len(like)} decays of {seeds} {'run' if seeds == 1 else 'runs'} at scale {self._scale}"
        if seeds < FEWEST:
            words = f"there are {words} only, and it takes {FEWEST} runs"
        return Errors([row["error"] for row in like], seeds, words)


def _published_rows(path: Path) -> list[dict[str, Any]]:
    table = read_records(path)
    trunk = table[(table["run"] == _TRUNK) & (table["method"] == "sma")]
    where = ["seed", "tokens", "task", "metric"]
    merged = {tuple(row[:4]): (row[4], row[5]) for row in trunk[[*where, "value", "n"]].itertuples(index=False)}
    rows = []
    for end in table[table["run"] != _TRUNK].itertuples():
        match = _DECAY.fullmatch(end.run)
        if (key := (end.seed, end.tokens, end.task, end.metric)) not in merged:
            continue
        value, n = merged[key]
        length = (int(match[1]) if match else _LONGEST[end.run]) / n
        rows.append(
            {"key": (end.task, end.metric), "seed": end.seed, "length": length, "error": float(end.value - value)}
        )
    return rows


# ---- a user's own ----

_NEEDED = ("position", "score", "merge", "annealed")
_OPTIONAL = ("length", "recipe")


class Own:
    """Finished decays in a file: CSV with these columns, or JSON Lines with these keys.

    position: where the decay ended, as the names of checkpoints count.
    score: TASK/METRIC, as in the rows of the watch: text/bits_per_byte.
    merge: what the merge of the run at constant rate scored there.
    annealed: what the decay scored.
    length: of the decay, in the unit of `anneal`; left out, it counts for any length.
    recipe: of the merge, as sma_10; left out, it counts for every recipe.

    Raises:
        ValueError: for a file that is missing, empty, or has a line that says something else.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"anneals={path}: no such file; give JSON Lines or CSV with {', '.join(_NEEDED)}")
        self._rows: list[dict[str, Any]] = []
        seen = set()
        for place, given in _read(path):
            row = _checked(given, f"anneals={path}: line {place}")
            if (key := tuple(row[k] for k in ("position", "score", "length", "recipe"))) in seen:
                raise ValueError(f"anneals={path}: line {place}: this decay stands twice; leave one out")
            seen.add(key)
            self._rows.append(row)
        if not self._rows:
            raise ValueError(f"anneals={path}: no decays in it; give a line a decay, with {', '.join(_NEEDED)}")

    def errors(self, score: str, merged: Merged, length: float) -> Errors:
        rows = [
            row
            for row in self._rows
            if row["score"] == score
            and row["recipe"] in (None, merged.recipe)
            and (row["length"] is None or _alike(row["length"], length))
        ]
        words = f"{len(rows)} {'decay' if len(rows) == 1 else 'decays'} of yours"
        if len(rows) < FEWEST:
            like = f"like this one in {score}"
            words = f"there {'is' if len(rows) == 1 else 'are'} {words} {like} only, and it takes {FEWEST}"
        return Errors([row["annealed"] - row["merge"] for row in rows], len(rows), words)


def _read(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".csv":
            reader = csv.DictReader(text.splitlines())
            return [(reader.line_num, row) for row in reader]
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        return [(number, json.loads(line)) for number, line in lines]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"anneals={path}: not readable as JSON Lines, or as CSV where so named ({error})") from None


def _checked(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f'{where}: no object; write {{"position": 1000, "score": "text/bits_per_byte", ...}}')
    row = {key: value for key, value in given.items() if value not in (None, "")}
    if unknown := [str(key) for key in row if key not in (*_NEEDED, *_OPTIONAL)]:
        raise ValueError(f"{where}: {unknown[0]} is none of {', '.join((*_NEEDED, *_OPTIONAL))}")
    if missing := [key for key in _NEEDED if key not in row]:
        raise ValueError(f"{where}: {missing[0]} is missing; give {', '.join(_NEEDED)}")
    numbers: dict[str, float | None] = {"length": None}
    for key in ("position", "merge", "annealed", "length"):
        if key not in row:
            continue
        try:
            numbers[key] = float(row[key])
        except (TypeError, ValueError):
            numbers[key] = math.nan
        if not math.isfinite(numbers[key]) or (key == "length" and numbers[key] <= 0):
            raise ValueError(f"{where}: {key}={row[key]}: give a number{' above 0' if key == 'length' else ''}")
    return numbers | {"score": str(row["score"]), "recipe": row.get("recipe")}
