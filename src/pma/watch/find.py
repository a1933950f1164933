"""Find the checkpoints of a run, of any trainer, and tell which of them are written completely."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from pma.files import MANIFEST
from pma.merge.formats import DCP, open_source

_NAME = re.compile(r"(?:checkpoint|step|tokens|global_step|iter)[-_]?(\d+)")
_FOLDERS = ("snapshots", "checkpoints", ".")  # of a run; the first that holds checkpoints is taken
_QUIET = 10.0  # seconds without a change, for trainers that do not mark a checkpoint as finished


def positions(run_dir: Path) -> dict[int, Path]:
    """Checkpoint folders of a run by position, ascending, complete or not.

    A position is the number in the folder's name: steps or tokens, as the trainer counts. Known names are
    checkpoint-N (Hugging Face Trainer), step-N (torchtitan), iter_N and global_step_N (Megatron) and tokens-N (ours),
    in run_dir, run_dir/snapshots or run_dir/checkpoints.
    """
    for folder in _FOLDERS:
        by_position = {
            int(match[1]): path
            for path in (run_dir / folder).glob("*")
            if path.is_dir() and (match := _NAME.fullmatch(path.name))
        }
        if by_position:
            return dict(sorted(by_position.items()))
    return {}


def complete(checkpoint: Path) -> bool:
    """Whether the trainer has written all of a checkpoint.

    Our folders appear whole. A torch distributed checkpoint gets its .metadata last, a checkpoint of the Hugging Face
    Trainer its trainer_state.json. Of any other the weight files must be as long as their headers promise, and
    nothing may have changed for 10 seconds.
    """
    if (checkpoint / MANIFEST).is_file() or (checkpoint / DCP).is_file():
        return True
    state = checkpoint / "trainer_state.json"
    if state.is_file():
        try:
            json.loads(state.read_text(encoding="utf-8"))
        except ValueError:
            return False
        return _opens(checkpoint)
    newest = max((path.stat().st_mtime for path in checkpoint.glob("*")), default=time.time())
    return time.time() - newest > _QUIET and _opens(checkpoint)


def _opens(checkpoint: Path) -> bool:
    try:
        open_source(checkpoint).close()
    except (ValueError, OSError):
        return False
    return True
