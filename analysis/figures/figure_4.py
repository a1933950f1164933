"""Figure 4: merging methods against the last snapshot at points along one run."""

from __future__ import annotations

import pandas as pd
import style
from drawing.captions import measure_text, model_text, scores_text, window_text
from drawing.description import Figure, figure
from drawing.parts import paper_table, value_and_gain_rows
from drawing.scores import pick, scores
from records import Study

from pma.merge.weights import ema, sma, wma

SETTINGS = {"last": style.GREY, "SMA": style.BLUE, "WMA": style.ORANGE, "EMA(0.1)": style.GREEN, "EMA(0.2)": style.PINK}
_METHODS = dict(zip(("last", "sma", "wma", "ema_0.1", "ema_0.2"), SETTINGS, strict=True))


def _ages(n: int) -> str:
    """How old the weights of each method are on average, in V."""
    weights = {"SMA": sma(n), "WMA": wma(n), "EMA(0.1)": ema(n, 0.1), "EMA(0.2)": ema(n, 0.2)}
    ages = {name: sum((n - 1 - i) * weight for i, weight in enumerate(of)) for name, of in weights.items()}
    return ", ".join(f"{name} {age:.1f} V" for name, age in ages.items())


def describe(study: Study) -> Figure:
    """Values and gains by method, and the paper's numbers."""
    table: pd.DataFrame = scores(study, "figure_4")
    merged = pick(table, method="sma")
    # Single snapshots elsewhere only serve the signal-to-noise ratio.
    table = table[table["tokens"].isin(merged["tokens"])].assign(setting=lambda t: t["method"].map(_METHODS))
    rows = value_and_gain_rows(study, table, SETTINGS)
    return figure(
        "Figure 4: merging methods along one run at constant learning rate",
        [*rows, [paper_table("figure_4", SETTINGS)]],
        (9, 6.6),
        model_text(study),
        window_text(table, "a mean"),
        "Last is the newest snapshot alone. SMA weighs the snapshots equally, WMA the newest most (1, 2, ..., N); "
        f"EMA(a) gives each newer snapshot weight a and what came before 1 - a. Mean age of the weights, counted from "
        f"the newest snapshot: {_ages(int(merged['n'].iloc[0]))}.",
        measure_text(study, ["average"]),
        scores_text(study, table),
        "Axes of values do not start at 0.",
        heights=(3, 2.4, 1.3),
        see="Each bar is what a method saves over the last snapshot: below zero, merging makes it worse. Compare "
        "how far the methods lie apart early and late.",
        lead=rows[1][:1],
    )
