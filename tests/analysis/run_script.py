"""Calls a script of analysis/ as its command line does, and changes a table of records in place."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd


def call(monkeypatch, module, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()


def change_rows(path: Path, change) -> None:
    """Read a table, change it and write it back."""
    change(pd.read_csv(path)).to_csv(path, index=False)
