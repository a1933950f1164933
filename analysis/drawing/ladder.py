"""A ladder of model sizes (Figures 1 and 9): the last snapshot against PMA."""

from __future__ import annotations

import style
from formats import quantity
from records import Study
from sizes import by_size

from drawing.captions import measure_text, paper_text, pma_text, scores_text
from drawing.description import Figure, figure
from drawing.parts import gain_title, grouped_bars, main_scores
from drawing.scores import measure, pick, scores

SETTINGS = {"last snapshot": style.GREY, "PMA": style.BLUE}


def describe_sizes(study: Study, name: str, title: str) -> Figure:
    """Held-out text and the average of the axes, each with the gain; under them the four axes."""
    table = scores(study, name)
    table["setting"] = table["method"].map(dict(zip(("last", "sma"), SETTINGS, strict=True)))
    models = by_size(study, table["run"].unique())
    labels = {run: size.tick for run, size in models.items()}
    names = {run: quantity(size.total) for run, size in models.items()}
    upper = [
        (task, metric, column, heading if column == "value" else gain_title(heading))
        for task, metric, heading in main_scores(study)
        for column in ("value", "gain")
    ]
    lower = [(task, measure(study), "value", f"{task} (for {paper})") for task, paper in style.AXES.items()]
    rows = [
        [
            grouped_bars(pick(table, task=task, metric=metric), "run", labels, SETTINGS, metric, column, heading)
            for task, metric, column, heading in row
        ]
        for row in (upper, lower)
    ]
    merged = pick(table, method="sma").drop_duplicates("run").set_index("run").loc[list(labels)]
    windows = "; ".join(
        f"{names[run]}: N = {n}, V = {quantity(interval)}"
        for run, n, interval in merged[["n", "interval"]].itertuples(name=None)
    )
    tokens = " and ".join(quantity(position) for position in sorted(table["tokens"].unique()))
    return figure(
        title,
        rows,
        (9, 6.2),
        f"{len(models)} models after {tokens} training tokens, each by its own size and the paper's it stands for.",
        f"{pma_text([])} {windows}.",
        measure_text(study),
        scores_text(study, table),
        "Axes of values do not start at 0.",
        paper_text(name),
        xlabel="total parameters, and the paper's size that the model stands for",
        see="Each bar is what merging saves at one model size: above zero it beats the last snapshot.",
        lead=rows[0][1:2],
    )
