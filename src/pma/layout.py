"""What lies where on disk: snapshots and checkpoints of any trainer by position, and windows over them.

A position is a number of tokens or of steps, as the trainer counts. A window is the N snapshots that end at a position
and stand V apart (V is the interval of a merge), or simply the last N that are there.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from pma.json_files import MANIFEST, read_manifest

_NAME = re.compile(r"tokens-(\d+)")  # parsed as a number: tokens-10 must not match tokens-100
# checkpoint-N of the Hugging Face Trainer, step-N of torchtitan, stepN of OLMo-core (on the hub stepN-tokensMB),
# iter_N of Megatron, global_stepN of DeepSpeed, tokens-N of ours.
_NUMBERED = re.compile(r"(?:checkpoint|ckpt|tokens|global[-_]?step|step|iter)[-_]?(\d+)(?:-tokens\d+[BMT])?")
_KEYED = {key: re.compile(rf"(?:.*[-_])?{key}=(\d+)(?:[-_].*)?") for key in ("step", "epoch")}  # of Lightning and NeMo
_FILES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")  # a checkpoint in one file
_FOLDERS = ("snapshots", "checkpoints", "checkpoint", ".")  # of a run; the first that holds checkpoints is taken
_FEW = 8  # positions that a message names
_GAP = 1.5  # times the usual distance: a checkpoint is missing in between


def snapshot_dir(run_dir: Path, tokens: int) -> Path:
    """Folder of the snapshot after `tokens` tokens."""
    return run_dir / "snapshots" / f"tokens-{tokens:015d}"


def average_dir(run_dir: Path, alpha: float, tokens: int) -> Path:
    """Folder of the snapshot of a running average (train.online_ema) after `tokens` tokens."""
    return run_dir / f"ema-{alpha:g}" / f"tokens-{tokens:015d}"


def list_by_tokens(folder: Path) -> dict[int, Path]:
    """Published tokens-N folders below `folder`, by token count, ascending."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("tokens-*"))
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def snapshots(run_dir: Path) -> dict[int, Path]:
    """Snapshots of a run by token count, ascending."""
    return list_by_tokens(run_dir / "snapshots")


def trajectory(run_dir: Path) -> dict[int, Path]:
    """Snapshots by token count, ascending: those of a run, and before them those of the run it was forked off."""
    own = snapshots(run_dir)
    if not (run_dir / MANIFEST).exists() or "continues" not in (manifest := read_manifest(run_dir)):
        return own
    fork = manifest["continues"]
    parent, tokens = (fork.get(key) if isinstance(fork, dict) else None for key in ("run", "tokens"))
    if not isinstance(parent, str) or Path(parent).name != parent or parent == run_dir.name or type(tokens) is not int:
        raise ValueError(
            f"{run_dir / MANIFEST}: continues is {str(fork)[:80]!r}, not the run and tokens of a fork; put back the "
            f"file that was written"
        )
    before = trajectory(run_dir.with_name(parent))
    return {at: path for at, path in before.items() if at < tokens} | own


def checkpoint_dir(run_dir: Path, tokens: int) -> Path:
    """Folder of the checkpoint after `tokens` tokens."""
    return run_dir / "checkpoints" / f"tokens-{tokens:015d}"


def checkpoints(run_dir: Path) -> dict[int, Path]:
    """Checkpoints of a run by token count, ascending."""
    return list_by_tokens(run_dir / "checkpoints")


def position_of(name: str) -> int | None:
    """The position in a checkpoint's name, as a number: of a folder, a file, or a revision of the hub; None without.

    `epoch=3-step=400.ckpt` stands at step 400, `epoch=3.ckpt` at 3. A copy such as `step=400-last` has no position.
    """
    suffix = next((suffix for suffix in _FILES if name.endswith(suffix)), "")
    stem = re.split(r"[/@]", name.rstrip("/").removesuffix(suffix))[-1]
    if match := _NUMBERED.fullmatch(stem):
        return int(match[1])
    if stem.endswith("-last"):
        return None
    matches = (pattern.fullmatch(stem) for pattern in _KEYED.values())
    return next((int(match[1]) for match in matches if match), None)


def positions(run_dir: Path) -> dict[int, Path]:
    """Checkpoints of a run of any trainer by position, ascending, complete or not.

    They lie in run_dir, or in its folder snapshots, checkpoints or checkpoint; see `position_of` for their names.

    Raises:
        ValueError: when two of them have one position.
    """
    for folder in _FOLDERS:
        by_position: dict[int, Path] = {}
        for path in sorted((run_dir / folder).glob("*")):
            at = position_of(path.name)
            if at is None or not (path.is_dir() or path.name.endswith(_FILES)):
                continue
            if at in by_position:
                raise ValueError(
                    f"{run_dir / folder}: {by_position[at].name} and {path.name} both stand at {at:,}; move one away, "
                    f"or name those you mean by sources=[...]"
                )
            by_position[at] = path
        if by_position:
            return dict(sorted(by_position.items()))
    return {}


def last(available: Iterable[int], n: int | None, every: int = 1, end: int | None = None) -> list[int]:
    """Return the last `n` positions up to `end`, of which each `every`-th is taken, oldest first.

    Args:
        available: positions that there are checkpoints at.
        n: checkpoints; None: as many as there are.
        every: 2 takes every second one, counted back from `end`.
        end: None: the newest.

    Raises:
        ValueError: when there is no checkpoint at `end`, or there are fewer than `n`.
    """
    have = sorted(available)
    if (n is not None and n < 1) or every < 1:
        raise ValueError(f"last={n} every={every}: give numbers of at least 1")
    if end is not None and end not in have:
        near = ", ".join(f"end={at}" for at in sorted(sorted(have, key=lambda at: abs(at - end))[:2]))
        raise ValueError(f"end={end}: no checkpoint stands there; the nearest: {near}")
    upto = [at for at in have if end is None or at <= end]
    taken = upto[::-1][::every][:n][::-1]
    if n is not None and len(taken) < n:
        raise ValueError(
            f"last={n} every={every}: {len(upto)} checkpoints stand up to {upto[-1] if upto else end}, enough for "
            f"last={len(taken)}"
        )
    return taken


def gaps(window: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours in a window that stand much further apart than the others usually do."""
    pairs = list(zip(window, window[1:], strict=False))
    usual = statistics.median([b - a for a, b in pairs]) if pairs else 0
    return [(a, b) for a, b in pairs if b - a > _GAP * usual]


def window(available: Iterable[int], n: int, interval: int, end: int) -> list[int]:
    """Return the `n` positions end - (n - 1) interval, ..., end - interval, end, oldest first.

    Args:
        available: positions that there are snapshots at.
        n: snapshots.
        interval, end: in tokens, or in steps where positions are steps.

    Raises:
        ValueError: when one of them is not available, naming it and the nearest window that can be filled.
    """
    have = set(available)
    if n < 1 or interval < 1:
        raise ValueError(f"n={n} interval={interval}: give at least 1 snapshot and an interval of at least 1")
    positions = range(end - (n - 1) * interval, end + 1, interval)
    missing = list(islice((tokens for tokens in positions if tokens not in have), _FEW + 1))  # n may be a billion
    if not missing:
        return list(positions)
    few = ", ".join(f"{tokens:,}" for tokens in missing[:_FEW]) + (", ..." if len(missing) > _FEW else "")
    raise ValueError(f"n={n} interval={interval} end={end}: no snapshot at {few}; " + _nearest(have, n, interval, end))


def _nearest(have: set[int], n: int, interval: int, end: int) -> str:
    ends = [t for t in have if all(t - i * interval in have for i in range(n))]
    if ends:
        nearest = min(ends, key=lambda tokens: (abs(tokens - end), tokens))
        return f"the nearest end that n={n} interval={interval} can fill is end={nearest}"
    longest = 0
    while end - longest * interval in have:
        longest += 1
    if longest:
        return f"with interval={interval} and end={end} at most n={longest} can be filled"
    spans = ", ".join(f"{t:,}" for t in sorted(have)[:3])
    return f"no such window fits anywhere among the {len(have)} snapshots" + (f" ({spans}, ...)" if have else "")


def tokens_of(folder: Path) -> int:
    """Token count of a snapshot or checkpoint folder, `tokens-N`.

    Raises:
        ValueError: for a folder of another name.
    """
    match = _NAME.fullmatch(folder.name)
    if match is None:
        raise ValueError(f"{folder}: its name is no tokens-N; give a snapshot that pma wrote")
    return int(match[1])


def run_window(run_dir: Path, n: int, interval: int, end: int) -> list[Path]:
    """Return the snapshot folders of a window, oldest first.

    The window may reach back into the run that this one was forked off. n, interval and end as in `window`.

    Raises:
        ValueError: when the run has no snapshots, or the window cannot be filled.
    """
    by_tokens = trajectory(run_dir)
    if not by_tokens:
        raise ValueError(f"{run_dir}: no snapshots there; give the folder of a trained run, runs/SCALE/RUN")
    return [by_tokens[tokens] for tokens in window(by_tokens, n, interval, end)]
