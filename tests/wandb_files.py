"""Reading the .wandb files of offline runs back: records of protocol buffers in LevelDB's log format."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _HEADER = 32768, 7  # both formats' headers are 7 bytes long


def _chunks(data: bytes) -> Iterator[bytes]:
    at, parts = _HEADER, []  # the file's own header: a magic word and a version
    while at + _HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if kind == 0:
            return
        parts.append(data[at + _HEADER : at + _HEADER + length])
        at += _HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


def read(path: Path) -> dict[str, Any]:
    """Contents of one .wandb file: id, group, job_type, tags, config, inputs and outputs by name, history."""
    run: dict[str, Any] = {"config": {}, "inputs": {}, "outputs": {}, "history": []}
    for chunk in _chunks(path.read_bytes()):
        record = Record.FromString(chunk)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run |= {"id": record.run.run_id, "group": record.run.run_group, "job_type": record.run.job_type}
            run["tags"] = list(record.run.tags)
            run["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "artifact":
            artifact = record.artifact
            run["inputs" if artifact.use_after_commit else "outputs"][artifact.name] = {
                "type": artifact.type,
                "metadata": json.loads(artifact.metadata or "{}"),
                "entries": [(e.path, e.ref, e.digest, e.local_path) for e in artifact.manifest.contents],
            }
        elif kind == "history":
            items = record.history.item
            run["history"].append({".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    return run


def read_all(place: Path) -> dict[str, dict[str, Any]]:
    """All offline runs in folders wandb below PLACE, by id."""
    until = time.monotonic() + 20
    while True:
        runs = [read(path) for path in sorted(place.glob("**/wandb/offline-run-*/*.wandb"))]
        # W&B's own process writes; on a busy machine it is still at it when a run has ended.
        if all("id" in run for run in runs) or time.monotonic() > until:
            return {run["id"]: run for run in runs}
        time.sleep(0.1)
