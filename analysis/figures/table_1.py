"""Table 1: supervised fine-tuning from the last snapshot and from merged ones, as .png, .pdf, .md and .csv."""

from __future__ import annotations

import pandas as pd
from drawing.captions import PAPER, items_text, model_text, pma_text, runs_text
from drawing.description import Figure, Table, figure
from drawing.scores import pick, scores
from formats import quantity, rate
from records import Study
from style import METRICS

TITLE = "Table 1: supervised fine-tuning from the last snapshot and from merged ones"
# Run: its start and the paper's learning rates.
RUNS = {
    "sft_baseline": ("baseline", "2e-5 → 2e-6"),
    "sft_pma": ("PMA", "2e-5 → 2e-6"),
    "sft_pma_half": ("PMA", "1e-5 → 2e-6"),
    "sft_pma_double": ("PMA", "4e-5 → 2e-6"),
}
# Our columns, those of claim C14: (suite, task), and the paper's column that each stands for.
COLUMNS = {
    ("instruct", "math"): "AMC-2023",
    ("instruct", "reasoning"): "Reasoning",
    ("instruct", "knowledge"): "MMLU",
    ("instruct", "dialogue"): "Instruction Following",
    ("instruct", "ood"): "OOD",
    ("proxy", "code"): "LiveCodeBench",
}
SHOWN = ("bits_per_byte", "acc")
MAPPING = (
    "Our columns and the paper's: " + ", ".join(f"{task} for {paper}" for (_, task), paper in COLUMNS.items()) + "; "
    "LiveBench and GPQA have no counterpart. All but code: held-out instruction pairs (ood: kinds of question trained "
    "on nowhere); code: the next line of a held-out file, as in the other figures. Dialogue picks the next turn."
)

SEE = "Compare the rows that start from PMA with the baseline above them; bold is the best of a column."


def _label(study: Study, run: str, tuned: bool) -> str:
    start, paper_rates = RUNS[run]
    if not tuned:
        return f"{start}, before tuning"
    schedule = study.config(run)["schedule"]
    return f"{start} {rate(schedule['peak_lr'])} → {rate(schedule['end_lr'])} (paper: {paper_rates})"


def tidy(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """One row a cell: init, tuned, column, metric, value, error; accuracy in per cent."""
    end, rows = table["tokens"].max(), []
    for run, tokens in [("sft_baseline", 0), ("sft_pma", 0), *((run, end) for run in RUNS)]:
        for (suite, task), paper in COLUMNS.items():
            for metric in SHOWN:
                cell = pick(table, run=run, tokens=tokens, suite=suite, task=task, metric=metric).iloc[0]
                init = _label(study, run, tokens > 0)
                rows.append((init, tokens > 0, task, paper, metric, cell["value"], cell["error"]))
    return pd.DataFrame(rows, columns=["init", "tuned", "column", "paper_column", "metric", "value", "error"])


def _table(title: str, texts: pd.DataFrame, best: pd.DataFrame, of_paper: bool = False) -> Table:
    rows = tuple((str(init), *row) for init, row in zip(texts.index, texts.to_numpy().tolist(), strict=True))
    bold = frozenset((i, j) for i, j in zip(*best.to_numpy().nonzero(), strict=True))
    return Table(title, tuple(texts.columns), rows, bold, of_paper, left=0.34, size=7.5)


def _ours(cells: pd.DataFrame, metric: str) -> Table:
    """Cells of one metric; the best of the tuned ones in each column stand out."""
    rows = cells[cells["metric"] == metric]
    number = METRICS[metric].number
    texts = rows.assign(text=[f"{r.value:{number}} ± {r.error:{number}}" for r in rows.itertuples()])
    text = texts.pivot(index="init", columns="column", values="text")
    value = rows[rows["tuned"]].pivot(index="init", columns="column", values="value") * METRICS[metric].sign
    order, tasks = rows["init"].unique(), [task for _, task in COLUMNS]
    best = (value == value.max()).reindex(order, fill_value=False)
    return _table(f"ours: {METRICS[metric].label}", text.loc[order, tasks], best[tasks])


def _papers() -> Table:
    paper = pd.read_csv(PAPER / "table_1.csv").drop(columns="source").set_index("init")
    return _table("the paper's own (15B/150B)", paper.map("{:.1f}".format), paper == paper.max(), of_paper=True)


def _notes(study: Study, table: pd.DataFrame) -> list[str]:
    parent = study.config("sft_pma")["init"]["parent"]
    tokens = quantity(study.config("sft_pma")["train"]["total_tokens"])
    columns = table[table["task"].isin(task for _, task in COLUMNS)]
    seeds = {seed for values in columns["values"] for seed in values}
    alone = "; ±: 95 % interval over items, 1.96 standard errors"
    return [
        model_text(study, "sft_baseline"),
        f"{tokens} tokens of fine-tuning from the main run's end: from its last snapshot (baseline), or from PMA.",
        pma_text([(parent["n"], parent["interval"])]),
        "Bits per byte: what the model needs for each byte of the right answer. Bold: best of the tuned rows.",
        f"{items_text(study, columns)} {runs_text(seeds, '±', dots=False, alone=alone)}",
        MAPPING,
    ]


def _markdown(tables: list[Table], notes: list[str]) -> str:
    parts = [f"# {TITLE}"]
    for table in tables:
        lines = [("init", *table.head), ("---",) * (1 + len(table.head))]
        for i, (init, *cells) in enumerate(table.rows):
            lines.append((init, *(f"**{c}**" if (i, j) in table.bold else c for j, c in enumerate(cells))))
        parts.append(f"{table.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts + notes) + "\n"


def describe(study: Study) -> Figure:
    """Three tables: ours in each metric, and the paper's."""
    table = scores(study, "table_1")
    cells, notes = tidy(study, table), _notes(study, table)
    tables = [*(_ours(cells, metric) for metric in SHOWN), _papers()]
    texts = {"table_1.md": _markdown(tables, notes), "table_1.csv": cells.to_csv(index=False)}
    return figure(TITLE, [[part] for part in tables], (9, 5.6), *notes, heights=(7, 7, 5), texts=texts, see=SEE)
