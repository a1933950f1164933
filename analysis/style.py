"""What all pictures and charts share: colours, the look of matplotlib, how each metric is named."""

from __future__ import annotations

from dataclasses import dataclass

# Okabe-Ito, readable with colour-vision deficiency; grey is the last snapshot everywhere, blue the merge.
GREY, BLUE, ORANGE, GREEN, PINK, RED, SKY = COLORS = (
    "#8C8C8C", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9",
)  # fmt: skip
WIDTH = 9.0  # inches; readable at half a page
MATPLOTLIB = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "errorbar.capsize": 2,
}

# The proxy suite's axes, and the benchmark that each stands for.
AXES = {"code": "HumanEval", "reasoning": "BBH", "knowledge": "MMLU", "math": "GSM8K"}


@dataclass(frozen=True)
class Metric:
    """How a metric of the records is drawn."""

    label: str
    gain: str
    number: str  # format of a value
    factor: float  # from the records to what is drawn
    sign: int  # +1: higher is better


METRICS = {
    "acc": Metric("accuracy (%), higher is better", "gain (points)", ".1f", 100, 1),
    "bits_per_byte": Metric("bits per byte, lower is better", "gain (bits per byte saved)", ".3f", 1, -1),
    "choice": Metric(
        "bits of the right choice, lower is better", "gain (bits of the right choice saved)", ".3f", 1, -1
    ),
}


def color(index: int) -> str:
    """The colour of the series number `index`; they repeat after seven."""
    return COLORS[index % len(COLORS)]
