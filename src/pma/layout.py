"""What lies where on disk: snapshots and checkpoints of a run by token count, and windows over them.

A window is the N snapshots that end at a token count and stand V tokens apart (V is the interval of a merge).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pma.files import MANIFEST, read_manifest

_NAME = re.compile(r"tokens-(\d+)")  # parsed as a number: tokens-10 must not match tokens-100


def snapshot_dir(run_dir: Path, tokens: int) -> Path:
    """Folder of the snapshot after `tokens` tokens."""
    return run_dir / "snapshots" / f"tokens-{tokens:015d}"


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
    before = trajectory(run_dir.with_name(fork["run"]))
    return {tokens: path for tokens, path in before.items() if tokens < fork["tokens"]} | own


def checkpoint_dir(run_dir: Path, tokens: int) -> Path:
    """Folder of the checkpoint after `tokens` tokens."""
    return run_dir / "checkpoints" / f"tokens-{tokens:015d}"


def checkpoints(run_dir: Path) -> dict[int, Path]:
    """Checkpoints of a run by token count, ascending."""
    return list_by_tokens(run_dir / "checkpoints")


def window(available: Iterable[int], n: int, interval: int, end: int) -> list[int]:
    """Return the `n` token counts end - (n - 1) interval, ..., end - interval, end, oldest first.

    Args:
        available: token counts that there are snapshots of.
        n: snapshots.
        interval, end: in tokens.

    Raises:
        ValueError: when one of them is not available, naming it and the nearest window that can be filled.
    """
    have = set(available)
    if n < 1 or interval < 1:
        raise ValueError(f"n={n} interval={interval}: give at least 1 snapshot and an interval of at least 1 token")
    positions = [end - i * interval for i in range(n - 1, -1, -1)]
    missing = [tokens for tokens in positions if tokens not in have]
    if not missing:
        return positions
    raise ValueError(
        f"n={n} interval={interval} end={end}: no snapshot at {', '.join(f'{tokens:,}' for tokens in missing)} tokens; "
        + _nearest(have, n, interval, end)
    )


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
