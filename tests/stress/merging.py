"""What the campaigns over merges share: tiny sources, the command, and the judgement of what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
from campaign import Ended, Outcome, command, names, refusal
from oracle import Tensors, differs, read, weighted_sum
from safetensors.numpy import save_file

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}


def values(
    random: Random, scale: float = 1.0, count: int = 4, shape: tuple[int, int] = (4, 3)
) -> dict[str, np.ndarray]:
    """A few tensors."""
    numbers = np.random.default_rng(random.getrandbits(32))
    return {f"layer.{k}.weight": (scale * numbers.standard_normal(shape)).astype("float32") for k in range(count)}


def save_model(tensors: dict[str, np.ndarray], folder: Path) -> Path:
    """Write a folder with tensors, as Hugging Face lays a model out."""
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def model(random: Random, folder: Path, scale: float = 1.0) -> Path:
    """Write a folder with a few tensors, as Hugging Face lays a model out."""
    return save_model(values(random, scale), folder)


def models(random: Random, folder: Path, count: int = 3) -> list[Path]:
    """Sources of a merge."""
    return [model(random, folder / f"checkpoint-{step}") for step in range(10, 10 * count + 1, 10)]


def merge(folder: Path, sources: Sequence[Path], *more: str, method: str = "method=sma") -> Ended:
    """Merge sources into folder/merged, by the command that a user types."""
    given = f"sources=[{','.join(map(str, sources))}]"
    return command("pma.merge", given, method, "output=merged", *more, folder=folder)


def judge(
    folder: Path,
    ended: Ended,
    before: set[str],
    subject: str,
    damage: str,
    expected: Tensors | None,
    *,
    tolerance: float = 1e-5,
    scale: float = 1.0,
) -> Outcome:
    """What came of a merge.

    Args:
        before: `names` of the folder before the merge.
        subject: what a refusal has to name.
        damage: what was done; empty: nothing, so that a refusal is wrong.
        expected: the average, or None: nothing can be averaged there.
    """
    outcome = refusal(ended, folder, before, subject)
    if outcome is None:
        difference = differs(read(folder / "merged"), expected, tolerance, scale) or _half(folder / "merged")
        over = {name for name in names(folder) - before if name.split("/")[0] != "merged"}
        outcome = Outcome("left over", f"{sorted(over)[:5]}") if over else Outcome("right")
        outcome = Outcome("wrong", difference) if difference else outcome
    elif not damage:
        return Outcome("wrong", f"sources that nothing happened to: {outcome}")
    return replace(outcome, note=f"{damage}: {outcome.note}" if damage else outcome.note)


def _half(merged: Path) -> str:
    """What a published merge lacks: each JSON file of it can be read, by a reader that knows no NaN."""
    for path in [merged / "manifest.json", *merged.glob("*.json")]:
        try:
            if not isinstance(json.loads(path.read_bytes(), parse_constant=lambda word: 1 / 0), dict):
                return f"{path.name} holds no object"
        except (OSError, ValueError, ZeroDivisionError) as error:
            return f"{path.name}: {error!r}"
    return ""


def mean(sources: Sequence[Path]) -> Tensors | None:
    """What SMA of model folders should give."""
    return weighted_sum([read(source) for source in sources], [1 / len(sources)] * len(sources))
