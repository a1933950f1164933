"""The table of trials in docs/beyond.md: what each setting of each arm scored on seed 100, from dev/trials.csv."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from records import ROOT
from verdicts.tables import markdown_table

TRIALS = ROOT / "dev" / "trials.csv"  # arm, setting, budget (V), measure, value; dev/trials.py writes it
_HIGHER = ("reward",)  # measures of which more is better; of the others less is


def trials_table(path: Path = TRIALS) -> str:
    """A row an arm and setting, a column a budget, the best of each arm and budget in bold.

    Raises:
        ValueError: when the file is not there.
    """
    if not path.is_file():
        raise ValueError(f"{path}: not there; python dev/trials.py writes it")
    table = pd.read_csv(path)
    budgets = sorted(table["budget"].unique())
    rows = []
    for (arm, measure), of_arm in table.groupby(["arm", "measure"], sort=False):
        wide = of_arm.pivot(index="setting", columns="budget", values="value").reindex(columns=budgets)
        best = wide.max() if measure in _HIGHER else wide.min()
        for setting in of_arm["setting"].unique():
            cells = []
            for budget, value in wide.loc[setting].items():
                text = "" if pd.isna(value) else f"{value:.3f}"
                cells.append(f"**{text}**" if len(wide) > 1 and value == best[budget] else text)
            rows.append([arm if measure == "text" else f"{arm} ({measure})", setting, *cells])
    return "\n".join(markdown_table(["arm", "setting", *(f"{budget:g} V" for budget in budgets)], rows))
