"""Evidence from training curves: continued training (C11), gradient norms (C12), a collapse (C13).

claims.yaml names each function and its settings. A test's statistic is positive where it favours the claim.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from formats import millions
from records import Missing

from verdicts.resampling import Statistic, over_blocks
from verdicts.rules import LOSS_UNIT, Test
from verdicts.sample import Sample

_SHARED_STEPS = 10  # that a comparison needs, at least
_MEDIAN_STEPS = 21  # of the running median of a gradient norm


class NotTestable(Exception):
    """The records are there, but what the claim speaks of did not happen in them."""


def _paired(sample: Sample, baseline: str, run: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves of two runs at the tokens that both have logged."""
    first, second = (sample.study.curve(name).set_index("tokens") for name in (baseline, run))
    shared = first.index.intersection(second.index)
    if len(shared) < _SHARED_STEPS:
        raise Missing(f"{baseline} and {run} share {len(shared)} logged steps")
    return first.loc[shared], second.loc[shared]


def _over_blocks(sample: Sample, of: Callable[[np.ndarray], Statistic], steps: int, key: str) -> Statistic:
    return over_blocks(of, steps, sample.common.draws, sample.common.seed, f"steps {key}")


def _mean(sample: Sample, curve: np.ndarray, key: str) -> Statistic:
    return _over_blocks(sample, lambda index: curve[index].mean(axis=1), len(curve), key)


def continued_training(
    sample: Sample,
    baseline: str,
    runs: list[str],
    start_share: float,
    end_share: float,
    margin_share: float,
    smallest_effect: float,
) -> list[Test]:
    """C11: training loss of the baseline minus that of PMA-init, at the start and at the end."""
    starts, ends = [], []
    for run in runs:
        reference, loss = (curve["loss"].to_numpy() for curve in _paired(sample, baseline, run))
        saved, steps = reference - loss, len(loss)
        head, tail = max(2, round(start_share * steps)), max(2, round(end_share * steps))
        lower = _mean(sample, saved[:head], f"{run} start")
        level = _mean(sample, saved[-tail:], f"{run} end")
        common = {"unit": LOSS_UNIT, "seeds": 1}
        starts.append(
            Test(f"loss saved at the start, {run}", "above", lower, smallest=smallest_effect, steps=head, **common)
        )
        margin = margin_share * float(reference[-tail:].mean())
        ends.append(Test(f"loss saved at the end, {run}", "level", level, margin=margin, steps=tail, **common))
    return starts + ends


def gradient_norms(sample: Sample, baseline: str, run: str, smallest_effect: float) -> list[Test]:
    """C12: log ratios of the gradient norms and of their scatter around a running median."""
    norms = [curve["gradient_norm"] for curve in _paired(sample, baseline, run)]
    reference, norm = (series.to_numpy() for series in norms)
    lower = _mean(sample, np.log(reference / norm), f"{run} norms")
    reference_scatter, scatter = (
        (series - series.rolling(_MEDIAN_STEPS, center=True, min_periods=1).median()).to_numpy() for series in norms
    )
    steadier = _over_blocks(
        sample,
        lambda index: np.log(reference_scatter[index].std(axis=1) / scatter[index].std(axis=1)),
        len(norm),
        f"{run} norms",
    )
    common = {"unit": "log ratio", "smallest": smallest_effect, "steps": len(norm), "seeds": 1}
    return [
        Test("gradient norm, baseline over PMA-init", "above", lower, **common),
        Test("scatter of the gradient norm, baseline over PMA-init", "above", steadier, **common),
    ]


def collapse(
    sample: Sample,
    run: str,
    resumed: str,
    control: str,
    jump: float,
    margin: float,
    tail_share: float,
    window_share: float,
) -> list[Test]:
    """C13: whether the resumed run passes the point of collapse and returns to the level before it."""
    collapsed = sample.study.curve(run)
    window = max(5, round(window_share * len(collapsed)))
    median = collapsed["loss"].rolling(window).median()
    level = median.min()
    low = np.flatnonzero(median <= level + jump)
    if len(collapsed) - 1 - low[-1] < tail_share * len(collapsed):
        raise NotTestable(f"{run} did not collapse: its loss ends within {jump:g} nats of its lowest running median")
    point = int(collapsed["tokens"].iloc[low[-1]])
    stuck = float(collapsed["loss"].iloc[-round(tail_share * len(collapsed)) :].mean() - level)
    note = f"{run} collapses at {millions(point)} and ends {stuck:.2f} nats above its lowest level"
    tests = []
    for name in (resumed, control):
        curve = sample.study.curve(name)
        after = curve[curve["tokens"] > point]
        if curve["tokens"].max() < collapsed["tokens"].max() or after.empty:
            raise Missing(f"{name} does not reach the end of {run}")
        highest = curve["loss"].rolling(window, min_periods=1).median()[after.index].max() - level
        tail = curve["loss"].to_numpy()[-max(2, round(tail_share * len(curve))) :]
        back = level - _mean(sample, tail, f"{name} tail")
        common = {"unit": LOSS_UNIT, "seeds": 1, "control": name == control}
        tests += [
            Test(
                f"end of {name}, below the level before the collapse",
                "at_least",
                back,
                margin=margin,
                steps=len(tail),
                note="" if name == control else note,
                **common,
            ),
            Test(
                f"highest loss of {name} after the point of collapse, above the level",
                "bound",
                np.array([highest]),
                margin=jump,
                steps=len(after),
                **common,
            ),
        ]
    return tests
