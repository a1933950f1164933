"""Figure 1: four MoE sizes at constant learning rate, the last snapshot against PMA on four axes."""

from __future__ import annotations

from drawing.description import Figure
from drawing.ladder import describe_sizes
from records import Study


def describe(study: Study) -> Figure:
    """The MoE ladder."""
    return describe_sizes(
        study, "figure_1", "Figure 1: MoE models at constant learning rate, last snapshot against PMA"
    )
