"""The scores of candidates on disk, a line each, so that a search that was stopped goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pma.choose.candidates import Candidate
from pma.choose.halves import Values
from pma.config import hash_json
from pma.files import append_line, write_text
from pma.json_files import read_rows


@dataclass(frozen=True)
class Scored:
    """What is known of a candidate on one half.

    Attributes:
        values: of each document, by axis; empty where the candidate is refused.
        cosine: mean cosine between successive updates of its window; None where it has fewer than three checkpoints.
        refused: why it cannot be merged, or empty.
    """

    values: Values
    cosine: float | None = None
    refused: str = ""


class Kept:
    """Candidates by what decides their scores: the documents, the checkpoints and the weights.

    Args:
        decides: whatever else decides a score, JSON-ready: the metric, which tensors are the model.
        assets: folder of config and tokenizer, where it is not that of the checkpoints.
    """

    def __init__(self, folder: Path, decides: Any, checkpoints: Mapping[int, Path], assets: str | None) -> None:
        self._path = folder / "candidates.jsonl"
        self._decides = [decides, assets and stamp(Path(assets))]
        self._stamps = {at: hash_json(stamp(path)) for at, path in checkpoints.items()}
        rows = read_rows(self._path, "key", "values", "cosine")
        self._rows = {row["key"]: Scored(row["values"], row["cosine"]) for row in rows}
        self._refused: dict[str, Scored] = {}  # not written: another policy may take them
        if self._path.exists():
            write_text(self._path, "".join(f"{_line(row)}\n" for row in rows))  # a kill can have left half a line

    def known(self, candidates: Iterable[Candidate], half: str) -> dict[Candidate, Scored]:
        """Those of the candidates that are scored, or refused, on the half named so (its suite's version)."""
        keys = {candidate: self._key(candidate, half) for candidate in candidates}
        both = self._refused | self._rows
        return {candidate: both[key] for candidate, key in keys.items() if key in both}

    def add(self, candidate: Candidate, half: str, scored: Scored) -> None:
        """Write down what is known of a candidate."""
        key = self._key(candidate, half)
        if scored.refused:
            self._refused[key] = scored
            return
        assert all(math.isfinite(value) for axis in scored.values for value in axis)
        self._rows[key] = scored
        row = {"key": key, "half": half, **asdict(candidate), "cosine": scored.cosine, "values": scored.values}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self._path, _line(row))

    def _key(self, candidate: Candidate, half: str) -> str:
        weights = [[self._stamps[at], weight] for at, weight in candidate.weights.items()]
        return hash_json([self._decides, half, weights])


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":"))


def stamp(checkpoint: Path) -> list[Any]:
    """What a checkpoint is known by: where it lies, and the size and time of its files."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file()) if checkpoint.is_dir() else [checkpoint]
    return [str(checkpoint.resolve()), [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]]
