"""What is refused: sources that are not one architecture, weights that are no numbers, and what a pass shows."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from pma.json_files import MANIFEST, read_json, read_manifest
from pma.merge import diagnose
from pma.merge.formats import Source, open_source, stack
from pma.merge.options import Options, Part, Policy
from pma.merge.summary import Seen

_HEAD = "lm_head.weight"


@contextmanager
def open_sources(
    names: Sequence[str | Path], options: Options | None = None, parts: Sequence[Part] | None = None
) -> Iterator[list[Source]]:
    """Open sources by name, oldest first, and check that they are one architecture.

    Args:
        options: which part of each source is merged, and how adapters are.
        parts: which part of each, where that differs: a merge of ours has only the model in it.

    Raises:
        ValueError: naming the source and the first tensor that does not fit.
    """
    if not names:
        raise ValueError("no sources; give at least one checkpoint, oldest first")
    options = options or Options()
    with ExitStack() as opened:
        sources: list[Source] = []
        for name, part in zip(names, parts or [options] * len(names), strict=True):
            sources.append(open_source(name, part.prefix, part.state, part.key))
            opened.callback(sources[-1].close)
        sources = stack(sources, options.lora)
        if not options.resumable:  # the copy would keep the head that is left out, and a trainer reads it
            _drop_tied_heads(sources)
        for source in sources[1:]:
            _require_same(sources[0], source)
        yield sources


def _drop_tied_heads(sources: Sequence[Source]) -> None:
    holders = [source for source in sources if _HEAD in source.tensors]
    if not holders or len(holders) == len(sources):
        return
    for source in sources:
        config = source.folder / "config.json"
        if not config.is_file() or not read_json(config).get("tie_word_embeddings"):
            return
    for source in holders:
        del source.tensors[_HEAD]


def _require_same(first: Source, other: Source) -> None:
    for name in sorted(first.tensors.keys() ^ other.tensors.keys()):
        holder, missing = (first, other) if name in first.tensors else (other, first)
        kinds = "" if holder.format == missing.format else f" (one is {missing.format}, the other {holder.format})"
        raise ValueError(
            f"{missing.name}: tensor {name} is missing, {holder.name} has it{kinds}; merge one architecture only, "
            f"saved by the same code (prefix=... names the part of a checkpoint that is the model)"
        )
    for name, info in first.tensors.items():
        also = other.tensors[name]
        if also.shape != info.shape:
            raise ValueError(
                f"{other.name}: tensor {name} has shape {also.shape}, in {first.name} {info.shape}; merge one "
                f"architecture"
            )
        if also.floating != info.floating or (not info.floating and also.dtype != info.dtype):
            raise ValueError(
                f"{other.name}: tensor {name} is {also.dtype}, in {first.name} {info.dtype}; an integer is no float: "
                f"save both alike"
            )


def check_weights(weights: Sequence[float], n: int, accumulate: str) -> tuple[float, ...]:
    """Return the weights of a sum as floats.

    Args:
        n: sources.
        accumulate: the type that sums are taken in, float32 | float64.

    Raises:
        ValueError: when they are not `n` finite numbers which that type holds.
    """
    if len(weights) != n:
        raise ValueError(f"weights: {len(weights)} given for {n} snapshots; give one for each, oldest first")
    numbers = tuple(float(weight) for weight in weights)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"weights {list(numbers)}: not all are finite; give a number for each snapshot")
    largest = float(np.finfo(accumulate).max)
    if max(map(abs, numbers), default=0) > largest or not math.isfinite(sum(numbers)):
        raise ValueError(
            f"weights {list(numbers)}: too large for {accumulate}, in which sums are taken; give smaller ones (those "
            f"of a mean sum to 1)"
        )
    return numbers


def judge(seen: Seen, sources: Sequence[Source], sums: Sequence[str], policy: Policy, quiet: bool = False) -> list[str]:
    """Refuse what the policy refuses; print the rest as warnings and return them.

    Args:
        sums: what to call each merge in a message.
        quiet: print nothing.

    Raises:
        ValueError: naming the source or the merge, and the tensor.
    """
    for source, content in zip(sources, seen.hashes, strict=True):
        manifest = read_manifest(source.folder) if source.whole and (source.folder / MANIFEST).exists() else {}
        if manifest.get("content", content) != content:
            raise ValueError(
                f"{source.name}: not what its {MANIFEST} says ({content} instead of {manifest['content']}): damaged, "
                f"or changed since; put the files back, or remove {MANIFEST} if you changed them on purpose"
            )
    for i, name in seen.unequal:
        if policy.integers == "refuse":
            raise ValueError(
                f"{sources[i].name}: integer tensor {name} differs from {sources[-1].name}; integers cannot be "
                f"averaged (integers=newest takes the newest's)"
            )
    suspicions = [f"{sources[i].name}: tensor {name} holds NaN or infinity" for i, name in seen.not_finite]
    if seen.grams and not suspicions:
        for i, times in diagnose.outliers(sum(seen.grams.values())).items():
            suspicions.append(
                f"{sources[i].name}: {times:.1f} times as far from the mean of the others as these usually are; a "
                f"spike, or another run"
            )
    if suspicions and policy.suspicious == "refuse":
        raise ValueError(f"{suspicions[0]}; leave that snapshot out, or merge all the same with suspicious=warn")
    for i, name in seen.overflown:
        raise ValueError(
            f"{sums[i]}: tensor {name} overflows: its weighted sum is larger than its storage type holds, though every "
            f"snapshot is finite; store it wider (dtype=float32), or give weights that sum to 1"
        )
    for line in [] if quiet else suspicions:
        print(f"warning: {line}", file=sys.stderr, flush=True)
    return suspicions
