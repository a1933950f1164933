"""Evaluation through lm-eval: suites, scores and their cache. Nothing heavy is imported before a name is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "Score": "scorer",
    "Scorer": "scorer",
    "Suite": "suites",
    "VllmScorer": "vllm",
    "load_suite": "suites",
    "load_tasks": "named",
    "load_text": "suites",
    "read_scores": "scorer",
    "vllm_class": "vllm",
    "write_tasks": "tasks",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
