"""Corpus: documents with a domain label from pinned sources, split, tokenised, with evaluation items.

Nothing heavy is imported before a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "TokenDataset": "tokens",
    "batches": "tokens",
    "mixing_weights": "mix",
    "order_seed": "tokens",
    "prepare": "build",
    "prepare_part": "build",
    "require_intact": "intact",
    "reward_questions": "rewarded",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
