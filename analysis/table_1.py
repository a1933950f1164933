"""Table 1: supervised fine-tuning from the last snapshot and from merged ones, as .png, .pdf, .md and .csv.

python analysis/draw.py --scale cpu table_1
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pma.files import write_text

# Run: its start and the paper's learning rates.
RUNS = {
    "sft_baseline": ("baseline", "2e-5 → 2e-6"),
    "sft_pma": ("PMA", "2e-5 → 2e-6"),
    "sft_pma_half": ("PMA", "1e-5 → 2e-6"),
    "sft_pma_double": ("PMA", "4e-5 → 2e-6"),
}
# Our columns: (suite, task), and the paper's column whose place each takes.
COLUMNS = {
    ("instruct", "knowledge"): "MMLU",
    ("instruct", "math"): "AMC-2023",
    ("instruct", "reasoning"): "Reasoning",
    ("instruct", "dialogue"): "Instruction Following",
    ("instruct", "ood"): "OOD",
    ("proxy", "code"): "LiveCodeBench",
}
MAPPING = (
    "Our columns and the paper's: " + ", ".join(f"{task} for {paper}" for (_, task), paper in COLUMNS.items()) + "; "
    "LiveBench and GPQA have no counterpart. All but code: held-out instruction pairs (ood: kinds of question trained "
    "on nowhere); code: the next line of a held-out file, as in the other figures. Dialogue picks the next turn."
)


def _label(source: style.Source, run: str, tuned: bool) -> str:
    start, theirs = RUNS[run]
    if not tuned:
        return f"{start}, before tuning"
    schedule = source.config(run)["schedule"]
    return f"{start} {style.rate(schedule['peak_lr'])} → {style.rate(schedule['end_lr'])} (paper: {theirs})"


def tidy(source: style.Source) -> pd.DataFrame:
    """One row a cell: init, tuned, column, metric, value, error; accuracy in per cent."""
    table = style.scores(source, "table_1")
    end, rows = table["tokens"].max(), []
    for run, tokens in [("sft_baseline", 0), ("sft_pma", 0), *((run, end) for run in RUNS)]:
        for (suite, task), paper in COLUMNS.items():
            for metric in style.METRICS:
                cell = style.pick(table, run=run, tokens=tokens, suite=suite, task=task, metric=metric).iloc[0]
                init = _label(source, run, tokens > 0)
                rows.append((init, tokens > 0, task, paper, metric, cell["value"], cell["error"]))
    return pd.DataFrame(rows, columns=["init", "tuned", "column", "paper_column", "metric", "value", "error"])


def cells(rows: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Texts of one metric, and which are the best of the tuned ones in their column."""
    rows = rows[rows["metric"] == metric]
    number = style.METRICS[metric].number
    texts = rows.assign(text=[f"{r.value:{number}} ± {r.error:{number}}" for r in rows.itertuples()])
    text = texts.pivot(index="init", columns="column", values="text")
    value = rows[rows["tuned"]].pivot(index="init", columns="column", values="value") * style.METRICS[metric].sign
    order, tasks = rows["init"].unique(), [task for _, task in COLUMNS]
    best = (value == value.max()).reindex(order, fill_value=False)
    return text.loc[order, tasks], best[tasks]


def paper_cells() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The paper's table, and its best."""
    paper = pd.read_csv(style.HERE / "paper" / "table_1.csv").drop(columns="source").set_index("init")
    return paper.map("{:.1f}".format), paper == paper.max()


def blocks(source: style.Source) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Title and cells of the three tables."""
    rows = tidy(source)
    ours = {metric.label: cells(rows, name) for name, metric in style.METRICS.items()}
    return {**{f"ours: {title}": block for title, block in ours.items()}, "the paper's own (15B/150B)": paper_cells()}


def _notes(source: style.Source) -> list[str]:
    parent = source.config("sft_pma")["init"]["parent"]
    tokens = style.quantity(source.config("sft_pma")["train"]["total_tokens"])
    table = style.scores(source, "table_1")
    return [
        f"{tokens} tokens of fine-tuning from the main run's end; PMA: mean of {parent['n']} snapshots, V = "
        f"{style.quantity(parent['interval'])} tokens. ± standard error over items. Bold: best of the tuned rows.",
        style.items_text(source, table[table["task"].isin(task for _, task in COLUMNS)]),
        MAPPING,
    ]


def _draw_block(ax: Axes, title: str, text: pd.DataFrame, best: pd.DataFrame) -> None:
    ax.axis("off")
    ax.set_title(title)
    table = ax.table(text.to_numpy(), rowLabels=list(text.index), colLabels=list(text.columns), bbox=(0.34, 0, 0.66, 1))
    table.auto_set_font_size(False)
    for (row, column), cell in table.get_celld().items():
        cell.set(linewidth=0.4, fontsize=7.5 if row or text.shape[1] < 8 else 6.3)
        if row > 0 and column >= 0 and best.iloc[row - 1, column]:
            cell.set_text_props(fontweight="bold")


def draw(source: style.Source) -> Figure:
    """Three tables as a picture."""
    figure, axes = plt.subplots(3, 1, figsize=(9, 5.6), height_ratios=[7, 7, 5])
    for ax, (title, block) in zip(axes, blocks(source).items(), strict=True):
        _draw_block(ax, title, *block)
    style.title(figure, "Table 1: supervised fine-tuning from the last snapshot and from merged ones")
    style.caption(figure, *_notes(source))
    return figure


def save_text(source: style.Source, out: Path) -> None:
    """The same as table_1.md, and the tidy cells as table_1.csv."""
    parts = ["# Table 1: supervised fine-tuning from the last snapshot and from merged ones"]
    for title, (text, best) in blocks(source).items():
        marked = text.where(~best, "**" + text + "**")
        head = ["init", *marked.columns]
        lines = [head, ["---"] * len(head), *marked.reset_index().to_numpy().tolist()]
        parts.append(f"{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    write_text(out / "table_1.md", "\n\n".join(parts + _notes(source)) + "\n")
    write_text(out / "table_1.csv", tidy(source).to_csv(index=False))
