"""What training curves say of a start from a merge: loss of continued training (C11), gradient norms (C12).

Every function returns a row a seed; positive favours the claim. Curves are metrics.jsonl of the runs, a line a step;
the measure of a score plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from records import Missing, Study

from verdicts.evidence.scores import by_seed

_START, _END = 0.05, 0.1  # of all steps: 6 and 12 of 120
_MEDIAN_STEPS = 21
_SPIKE = 1.5  # times the running median


def _paired(study: Study, baseline: str, run: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves of two runs of one seed, by tokens, step by step the same batches.

    Raises:
        Missing: when they have logged different steps.
    """
    first, second = (study.curve(name, seed).set_index("tokens") for name in (baseline, run))
    if not first.index.equals(second.index):
        raise Missing(
            f"{baseline} and {run}, seed {seed}: {len(first)} and {len(second)} logged steps that are not the same ones"
        )
    return first, second


def loss_saved(study: Study, measure: str, seeds: Sequence[int], run: str, baseline: str, steps: str) -> pd.DataFrame:
    """Mean training loss of the baseline minus that of the run, on the same batches, nats a token. Figure 6.

    Args:
        steps: start, the first 5 % of all steps after the warm-up of the rate (of the run's config); or end, the last
            10 %.
    """
    if steps not in ("start", "end"):
        raise ValueError(f"steps={steps}: choose start or end")

    def of(seed: int) -> dict[str, float]:
        reference, ours = _paired(study, baseline, run, seed)
        saved = reference["loss"] - ours["loss"]
        if steps == "end":
            return {"loss saved": float(saved.iloc[-max(1, round(_END * len(saved))) :].mean())}
        warmup = study.config(run, seed)["schedule"]["warmup_tokens"]
        return {"loss saved": float(saved[saved.index > warmup].iloc[: max(1, round(_START * len(saved)))].mean())}

    return by_seed(seeds, of)


def running_median(norms: pd.Series) -> pd.Series:
    """Median of the 21 steps about each; of fewer at the two ends."""
    return norms.rolling(_MEDIAN_STEPS, center=True, min_periods=1).median()


def _mean(norms: pd.Series) -> float:
    return float(norms.mean())


def _scatter(norms: pd.Series) -> float:
    return float((norms - running_median(norms)).abs().median())


def spikes(norms: pd.Series) -> pd.Series:
    """Which steps are spikes: a norm above 1.5 times the running median."""
    return norms > _SPIKE * running_median(norms)


def norm_ratio(
    study: Study, measure: str, seeds: Sequence[int], of: str, run: str = "sft_pma", baseline: str = "sft_baseline"
) -> pd.DataFrame:
    """Gradient norms of fine-tuning, baseline against run. Figure 7, left, all steps.

    Args:
        of: mean: log(mean norm of the baseline / of the run), natural. scatter: the same of the median absolute
            deviation from a running median of 21 steps. spikes: difference in the number of steps whose norm is above
            1.5 times that running median.
    """
    if of not in ("mean", "scatter", "spikes"):
        raise ValueError(f"of={of}: choose mean, scatter or spikes")

    def at(seed: int) -> dict[str, float]:
        norms = [curve["gradient_norm"] for curve in _paired(study, baseline, run, seed)]
        if of == "spikes":
            first, second = (float(spikes(norm).sum()) for norm in norms)
            return {"spikes fewer": first - second}
        first, second = map(_mean if of == "mean" else _scatter, norms)
        return {f"{of}, log ratio": float(np.log(first / second))}

    return by_seed(seeds, at)
