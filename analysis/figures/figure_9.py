"""Figure 9: four dense sizes at constant learning rate, the last snapshot against PMA on four axes."""

from __future__ import annotations

from drawing.description import Figure
from drawing.ladder import describe_sizes
from records import Study


def describe(study: Study) -> Figure:
    """The dense ladder."""
    title = "Figure 9: dense models at constant learning rate, last snapshot against PMA"
    return describe_sizes(study, "figure_9", title)
