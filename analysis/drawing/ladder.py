"""A ladder of model sizes (Figures 1 and 9): the last snapshot against PMA."""

from __future__ import annotations

import style
from formats import quantity
from records import Study

from drawing.captions import measure_text, paper_text, scores_text, sizes
from drawing.description import Figure, figure
from drawing.parts import grouped_bars
from drawing.scores import measure, pick, scores

SETTINGS = {"last snapshot": style.GREY, "PMA (SMA)": style.BLUE}


def describe_sizes(study: Study, name: str, title: str) -> Figure:
    """Four panels for the axes; under them their average and held-out text, each with the gain."""
    table = scores(study, name)
    table["setting"] = table["method"].map(dict(zip(("last", "sma"), SETTINGS, strict=True)))
    labels = {run: size.replace("/", "/\n") for run, size in sizes(study, table["run"].unique()).items()}
    metric = measure(study)
    upper = [(task, metric, "value", f"{task} (for {paper})") for task, paper in style.AXES.items()]
    lower = [("average", metric, column, f"four axes: {column}") for column in ("value", "gain")]
    lower += [("heldout", "bits_per_byte", column, f"held-out text: {column}") for column in ("value", "gain")]
    rows = [
        [
            grouped_bars(pick(table, task=task, metric=metric), "run", labels, SETTINGS, metric, column, heading)
            for task, metric, column, heading in row
        ]
        for row in (upper, lower)
    ]
    merged = pick(table, method="sma").drop_duplicates("run").set_index("run").loc[list(labels)]
    windows = ", ".join(
        f"{n} and {quantity(interval)} ({labels[run].split()[0]})"
        for run, n, interval in merged[["n", "interval"]].itertuples(name=None)
    )
    tokens = " and ".join(quantity(position) for position in sorted(table["tokens"].unique()))
    return figure(
        title,
        rows,
        (9, 5.8),
        f"After {tokens} tokens. PMA: unweighted mean of N snapshots V tokens apart; N and V by size: {windows}.",
        scores_text(study, table),
        measure_text(study),
        "Axes of values do not start at 0.",
        paper_text(name),
        xlabel="total parameters (the paper's size it stands for)",
        see="Each bar is what merging saves at one model size: above zero it beats the last snapshot.",
        lead=rows[1][1:2],
    )
