"""Which figure belongs to an experiment: figures/NAME.py if there is one, else the plain one."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

from records import Study

from drawing.description import Figure
from drawing.plain import describe_plainly


def describe(study: Study, name: str) -> Figure:
    """What the figure of an experiment shows.

    Raises:
        Missing: when a part of its records is not there.
    """
    if find_spec(f"figures.{name}") is None:
        return describe_plainly(study, name)
    return importlib.import_module(f"figures.{name}").describe(study)


def title_of(name: str) -> str:
    """An experiment's name in words: figure_3 is `Figure 3`."""
    return name.replace("_", " ").capitalize()
