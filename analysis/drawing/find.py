"""Which figure belongs to an experiment: figures/NAME.py if there is one, else the plain one."""

from __future__ import annotations

import importlib

from records import ROOT, Study

from drawing.description import Figure
from drawing.plain import describe_plainly


def describe(study: Study, name: str) -> Figure:
    """What the figure of an experiment shows.

    Raises:
        Missing: when a part of its records is not there.
    """
    if not (ROOT / "analysis" / "figures" / f"{name}.py").is_file():
        return describe_plainly(study, name)
    return importlib.import_module(f"figures.{name}").describe(study)
