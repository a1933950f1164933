"""Figure 9: four dense sizes at constant learning rate, the last snapshot against PMA on four axes.

python analysis/draw.py --scale cpu figure_9
"""

from __future__ import annotations

import style
from figure_1 import draw_sizes
from matplotlib.figure import Figure


def draw(source: style.Source) -> Figure:
    """The dense ladder."""
    return draw_sizes(source, "figure_9", "Figure 9: dense models at constant learning rate, last snapshot against PMA")
