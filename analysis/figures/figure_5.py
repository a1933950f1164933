"""Figure 5: the interval V (N = 10) and the number N (V of the scale) of the merged snapshots."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import measure_text, model_text, pma_text, scores_text
from drawing.description import Block, Figure
from drawing.numbers import regret_panels
from drawing.parts import paper_table, value_and_gain_rows
from drawing.scores import pick, scores
from formats import quantity
from records import Study
from verdicts.evidence import regret_over_seeds

INTERVALS = {0.5: "V / 2", 1.0: "V", 2.0: "2 V", 4.0: "4 V"}
NUMBERS = {n: f"N = {n}" for n in (3, 6, 10, 15)}


def _block(study: Study, table: pd.DataFrame, names: list[str], heading: str, paper: str) -> Block:
    colors = dict(zip(["last", *names], style.COLORS, strict=False))
    rows = [*value_and_gain_rows(study, table, colors), [paper_table(paper, colors)]]
    return Block(tuple(map(tuple, rows)), (3, 2.4, 1), heading)


def describe(study: Study) -> Figure:
    """Two rows of panels for V, two for N, each with the paper's numbers."""
    table = scores(study, "figure_5")
    interval = pick(table, n=15)["interval"].iloc[0]
    multiple = table["interval"] / interval
    merged = table["method"] == "sma"
    last = ~merged & table["tokens"].isin(table.loc[merged, "tokens"])
    # N = 10 except at the first point, where 4 V leaves room for 6 (as in the paper).
    over_v = multiple.map(INTERVALS).where(merged & ((table["n"] == 10) | (multiple == 4)))
    over_n = table["n"].map(NUMBERS).where(merged & (multiple == 1))
    upper, lower = (table.assign(setting=setting.mask(last, "last")) for setting in (over_v, over_n))
    blocks = (
        _block(study, upper, list(INTERVALS.values()), "interval V, N = 10", "figure_5_top"),
        _block(study, lower, list(NUMBERS.values()), "number N, interval V", "figure_5_bottom"),
    )
    lead = tuple(block.rows[1][0] for block in blocks)
    if regret := regret_panels(study, "figure_5", regret_over_seeds, "what the choice scores above the best of seven"):
        heading = "N and V chosen on the other seeds, at the end of the run"
        blocks += (Block((tuple(regret),), heading=heading, legend=False),)
    caption = (
        model_text(study),
        pma_text([]),
        "Last is the newest snapshot alone.",
        f"V is {quantity(interval)} tokens in the lower half, and from half to four times that in the upper one, where "
        "N = 10 (for 4 V at the first point N = 6: there are no more snapshots yet).",
        measure_text(study, ["average"]),
        scores_text(study, table),
        "Axes of values do not start at 0.",
    )
    return Figure(
        "Figure 5: interval and number of the merged snapshots",
        blocks,
        (9, 12),
        " ".join(caption),
        see="Compare the first point with the last: a wide window, which a large V or a large N makes, reaches back "
        "farther, to worse snapshots early in training.",
        lead=lead,
    )
