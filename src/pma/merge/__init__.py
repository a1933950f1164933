"""Merging checkpoints: weights, selection, and one streaming pass for any number of merges.

The package is also the function that most people want:

    import pma

    pma.merge(["step-1000", "step-2000", "step-3000"], output="merged", method="wma", dtype="bfloat16")
    pma.merge("checkpoints", last=10, output="merged")

Importing it is cheap; numba and torch are imported when a merge begins.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pma.layout import window
    from pma.merge.disk import merge_all
    from pma.merge.memory import InMemory, average, averages
    from pma.merge.options import Merge, Options, Policy
    from pma.merge.weights import decay, ema, equivalent_decay, explicit, method_weights, sma, wma

_HOMES = {
    "pma.layout": ("window",),
    "pma.merge.disk": ("merge_all",),
    "pma.merge.memory": ("InMemory", "average", "averages"),
    "pma.merge.options": ("Merge", "Options", "Policy"),
    "pma.merge.weights": ("decay", "ema", "equivalent_decay", "explicit", "method_weights", "sma", "wma"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "InMemory",
    "Merge",
    "Options",
    "Policy",
    "average",
    "averages",
    "decay",
    "ema",
    "equivalent_decay",
    "explicit",
    "merge",
    "merge_all",
    "method_weights",
    "sma",
    "window",
    "wma",
]


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__


def merge(
    sources: str | Path | Sequence[str | Path],
    output: str | Path,
    method: str = "sma",
    *,
    weights: Sequence[float] | None = None,
    alpha: float | None = None,
    positions: Sequence[float] | None = None,
    last: int | None = None,
    every: int = 1,
    interval: int | None = None,
    end: int | None = None,
    tokens_per_step: int = 1,
    policy: Policy | None = None,
    push_to_hub: str | None = None,
    revision: str | None = None,
    **options: Any,
) -> Path:
    """Merge checkpoints into a model folder; `pma.merge` itself.

    Args:
        sources: folders (safetensors, pytorch_model.bin, torch distributed checkpoint) or `repo@revision` of the
            Hugging Face hub, oldest first. Tensors of one name must have one shape. Or the one folder that a trainer
            writes its checkpoints into; then `last` says how many of them.
        output: folder to make; it must not exist.
        method: sma | wma | ema | linear | cosine | 1-sqrt; the last three are the weights a decay amounts to.
        weights: instead of a method: one for each source, of any sign; they are taken as they are, whatever their sum.
        alpha: of ema, in (0, 1].
        positions: of the sources in training (tokens or steps, ascending), for a decay over uneven spacing.
        last: of a trainer's folder: the newest checkpoints, so many; those not written completely are left out.
        every: 2 takes every second checkpoint, counted back from the newest.
        interval: exact distance between the checkpoints, instead of `every`.
        end: position of the newest checkpoint to take; null: the newest there is.
        tokens_per_step: turns the steps in names into tokens, for `interval` and `end`.
        policy: what is refused; see `Policy`.
        push_to_hub: NAME/REPOSITORY of the Hugging Face hub, which the merge is pushed to when it is whole.
        revision: branch of the repository; null: main.
        options: fields of `Options`: dtype, accumulate, format, shard_size, assets, prefix, state, key, memory,
            threads, diagnose; resumable=True with optimizer, for a checkpoint that your trainer goes on from.

    Returns:
        `output`, with the weights, config, tokenizer, and manifest.json that says what was merged and how.

    Raises:
        ValueError: for sources that cannot be averaged, weights that are not finite, or what the policy refuses;
            nothing is left behind then. Also when the hub refuses a push: then the merge stays.
        OSError: when the disk is full.
    """
    from pma.merge.checkpoints import warn
    from pma.merge.disk import merge_all
    from pma.merge.hub import check_target, push
    from pma.merge.options import Options
    from pma.merge.ranks import is_first
    from pma.merge.recipes import of_call

    recipe = {"method": method, "alpha": alpha, "positions": positions} if weights is None else {"weights": weights}
    window = {"last": last, "every": every, "interval": interval, "end": end}
    check_target(push_to_hub, revision)
    chosen = of_call(sources, tokens_per_step, recipe | window | {"output": output})
    warn(chosen.warnings)
    merge_all(chosen.sources, chosen.merges, Options(**options), policy)
    if push_to_hub is not None and is_first():
        push(Path(output), push_to_hub, revision)
    return Path(output)


class _CallableModule(ModuleType):
    """pma.merge is a package, `python -m pma.merge` a command and `pma.merge(...)` a call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Path:
        return merge(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
