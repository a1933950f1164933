"""The numbers of verdicts.evidence in figures: of every seed, with the mean and the interval of those that count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import style
from records import Missing, Study
from verdicts.decide import trained_seeds
from verdicts.evidence.scores import smallest_effect

from drawing.description import INK, Dots, Level, Line, Panel
from drawing.parts import dots_of
from drawing.scores import counted_seeds, mean_and_half, rules

MEASURES = {"text": "held-out text", "tasks": "four axes"}
_ROW_SPREAD = 0.4  # of the dots of a row, in rows


def settings_of(claim: str, part: str) -> Mapping[str, Any]:
    """Settings of a part of claims.yaml: what its evidence is asked for."""
    of_claim = next(entry for entry in rules().claims if entry.name == claim)
    return next(entry for entry in of_claim.parts if entry.name == part).settings


def of_every_seed(
    study: Study, experiment: str, evidence: Callable[..., pd.DataFrame], measure: str = "text", **settings: Any
) -> pd.DataFrame:
    """Numbers that evidence gives, a row a seed of an experiment.

    What is chosen or forecast from other seeds comes from those that count alone, but for an exploratory seed.

    Raises:
        Missing: when the evidence has none.
    """
    trained = trained_seeds(study, [experiment])
    counted = counted_seeds(trained)
    numbers = evidence(study, measure, counted, **settings)
    if others := sorted(trained - set(counted)):
        more = evidence(study, measure, [*others, *counted], **settings).loc[others]
        numbers = pd.concat([more, numbers])
    return numbers


def mean_points(
    numbers: pd.DataFrame, x: Sequence[float], label: str, color: str, width: float, log: bool = False, **look: Any
) -> Line:
    """Means and intervals of columns, at the places `x`, with a dot a seed.

    Args:
        width, log: of the dots, as in `dots_of`.
    """
    means = mean_and_half(numbers.loc[counted_seeds(numbers.index)])
    dots = dots_of(numbers.to_dict().values(), x, width, log)
    places = np.array(x, dtype=float)
    return Line(label, color, places, means["mean"].to_numpy(), _error(means), dots=dots, **{"marker": "o", **look})


def _error(means: pd.DataFrame) -> np.ndarray | None:
    return means["half"].to_numpy() if means["half"].notna().any() else None


def strip_row(values: pd.Series, hollow: Sequence[bool], at: float, mean: float, half: float, color: str) -> Line:
    """A row of a strip: numbers by seed as dots, one above the other, their mean and its interval."""
    y = at + _ROW_SPREAD * (np.arange(len(values)) / max(1, len(values) - 1) - 0.5) * (len(values) > 1)
    dots = Dots(values.to_numpy(dtype=float), y, np.array(hollow, dtype=bool))
    row = np.array([mean]), np.array([at]), np.array([half])
    return Line("", color, *row, dash="", marker="D", size=5.0, across=True, dots=dots)


def regret_panels(study: Study, experiment: str, evidence: Callable[..., pd.DataFrame], title: str) -> list[Panel]:
    """A strip of what it costs to choose N and V elsewhere, on text and on tasks; none with one seed alone.

    Args:
        evidence: gives the smallest effect minus the regret.
    """
    rows, names = [], {}
    for i, (measure, words) in enumerate(MEASURES.items()):
        try:
            regrets = smallest_effect(measure) - of_every_seed(study, experiment, evidence, measure).iloc[:, 0]
        except Missing:
            return []
        counted = counted_seeds(regrets.index)
        mean, half = mean_and_half(regrets.loc[counted].to_frame()).iloc[0]
        rows.append(strip_row(regrets, ~regrets.index.isin(counted), -float(i), mean, half, style.BLUE))
        names[-float(i)] = words
    levels = (Level(0.0, upright=True), Level(smallest_effect("text"), "", INK, "--", upright=True))
    xlabel = "regret (bits per byte); dashed: the smallest effect worth naming"
    return [Panel(title, xlabel, "", tuple(rows), levels, yticks=names, ylim=(-len(rows) + 0.4, 0.6))]
