"""What the evidence on scores shares: tests on contrasts of scores, and on several runs together.

Scores are bits per byte of the right answers, lower is better, so a gain of B over A is score(A) - score(B).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from records import Missing

from verdicts.resampling import Statistic
from verdicts.rules import Test
from verdicts.sample import ACCURACY, BITS, Column, ModelKey, Sample


def gain_test(
    sample: Sample,
    statistic: str,
    rule: str,
    models: Sequence[ModelKey],
    contrast: Callable[..., Statistic],
    columns: Sequence[Column] | None = None,
    **options: Any,
) -> Test:
    """A test on a contrast of scores of one trunk, in bits per byte and, with the sign turned, in accuracy.

    Args:
        contrast: takes the score of each model, in their order; positive favours the claim.
        options: of `Test`.
    """
    columns = columns or sample.axes("proxy")
    return Test(
        statistic,
        rule,
        contrast(*sample.scores(models, BITS, columns)),
        accuracy=contrast(*(-accuracy for accuracy in sample.scores(models, ACCURACY, columns))),
        items=sample.item_count(columns),
        seeds=len(sample.seeds(models, columns)),
        snapshots=max(model.n for model in models),
        **options,
    )


def gain(last: Statistic, merged: Statistic) -> Statistic:
    """Bits per byte that the second model saves."""
    return last - merged


def single(models: Sequence[ModelKey], what: str) -> ModelKey:
    """The only one of `models`.

    Raises:
        Missing: when there are none or several.
    """
    if len(models) != 1:
        raise Missing(f"{what}: {len(models)} models where one is expected")
    return models[0]


def last_and_merged(sample: Sample, experiment: str, run: str, tokens: int | None = None) -> tuple[ModelKey, ModelKey]:
    """The last snapshot and the one merge of a run at its last point, or at `tokens`.

    Raises:
        Missing: when there is no such merge.
    """
    models = sample.models(experiment, run)
    tokens = max(m.tokens for m in models) if tokens is None else tokens
    here = [m for m in models if m.tokens == tokens]
    merged = single([m for m in here if m.method == "sma"], f"{experiment}: SMA of {run} at {tokens:,} tokens")
    return ModelKey(run, tokens), merged


def combined(
    tests: Sequence[Test],
    combine: Callable[[list[Statistic]], Statistic],
    statistic: str,
    rule: str = "report",
    **options: Any,
) -> Test:
    """A test on a statistic of statistics of runs that share nothing but the items.

    Args:
        combine: takes the statistic of each test, in their order.
        options: of `Test`.
    """
    return Test(
        statistic,
        rule,
        combine([test.values for test in tests]),
        accuracy=combine([test.accuracy for test in tests if test.accuracy is not None]),
        items=tests[0].items,
        seeds=min(test.seeds for test in tests),
        snapshots=max(test.snapshots for test in tests),
        **options,
    )
