"""Pre-trained Model Averaging: a replication of arXiv 2505.12082. Importing it imports nothing else."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["merge"]


def __getattr__(name: str) -> Any:
    """Import `pma.merge`, the package that can be called, when it is first used."""
    if name == "merge":
        import importlib

        return importlib.import_module("pma.merge")
    raise AttributeError(f"module 'pma' has no attribute {name!r}")
