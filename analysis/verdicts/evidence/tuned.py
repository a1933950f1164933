"""Fine-tuning from a merge against fine-tuning from the last snapshot, column by column of Table 1: C14, B4.

Every function returns a row a seed; positive favours the claim. Columns: the five axes of suite instruct and the code
axis of suite proxy, at the end of fine-tuning (67.5 V).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from records import Study

from verdicts.evidence.scores import Scores, by_seed

_COLUMNS = [
    *(("instruct", axis) for axis in ("math", "reasoning", "knowledge", "dialogue", "ood")),
    ("proxy", "code"),
]
_BASELINE, _END = "sft_baseline", 67.5  # V


def _columns(study: Study, measure: str, experiment: str = "table_1") -> list[Scores]:
    if measure == "text":
        raise ValueError("measure=text: the columns of Table 1 are of questions; choose tasks, choice or accuracy")
    return [Scores(study, experiment, measure, suite, task) for suite, task in _COLUMNS]


def _better(columns: Sequence[Scores], run: str, seed: int, baseline: str = _BASELINE) -> list[float]:
    """score(baseline) - score(run), column by column."""
    return [scores.last(baseline, seed, _END) - scores.last(run, seed, _END) for scores in columns]


def tuned_over_baseline(study: Study, measure: str, seeds: Sequence[int], runs: Sequence[str]) -> pd.DataFrame:
    """Mean over six columns of score(baseline) - score(run), in the unit of the measure; a column a run."""
    columns = _columns(study, measure)
    return by_seed(seeds, lambda seed: {run: float(np.mean(_better(columns, run, seed))) for run in runs})


def columns_better(study: Study, measure: str, seeds: Sequence[int], run: str) -> pd.DataFrame:
    """Share of the six columns on which the run scores better than the baseline, minus one half: -0.5 to 0.5."""
    columns = _columns(study, measure)
    return by_seed(
        seeds, lambda seed: {"share minus half": float(np.mean(np.greater(_better(columns, run, seed), 0)) - 0.5)}
    )


def tuned_over_annealed(study: Study, measure: str, seeds: Sequence[int], runs: Sequence[str]) -> pd.DataFrame:
    """Mean over six columns of score(fine-tuned from the annealed end) - score(run); a column a run."""
    columns = _columns(study, measure, "tuned_after_annealing")
    return by_seed(
        seeds, lambda seed: {run: float(np.mean(_better(columns, run, seed, "sft_annealed"))) for run in runs}
    )
