"""Evidence from several runs: model sizes (C1, C2, C3, C9), learning rates (C17), fine-tuning (C14).

claims.yaml names each function and its settings. A test's statistic is positive where it favours the claim.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from formats import millions
from records import Missing

from verdicts.gains import combined, gain, gain_test, last_and_merged
from verdicts.resampling import trend
from verdicts.rules import Test
from verdicts.sample import ACCURACY, BITS, Column, ModelKey, Sample


def _size_name(sample: Sample, run: str) -> str:
    return f"{run} ({sample.study.parameters(run) / 1e6:.3g}M)"


def gain_by_size(sample: Sample, experiment: str, runs: list[str]) -> list[Test]:
    """C1, C2: the gain of SMA over the last snapshot, size by size."""
    tests = []
    for run in runs:
        models = last_and_merged(sample, experiment, run)
        name = f"gain, {_size_name(sample, run)}"
        tests.append(gain_test(sample, name, "above", models, gain, smallest=sample.common.smallest_effect))
    return [combined(tests, lambda values: np.mean(values, axis=0), f"mean gain of {len(runs)} sizes"), *tests]


def trend_by_size(sample: Sample, families: dict[str, dict[str, Any]], margin_share: float) -> list[Test]:
    """C3: change of the gain from the smallest to the largest size."""
    tests = []
    for family, entry in families.items():
        sizes = np.log([sample.study.parameters(run) for run in entry["runs"]])
        gains = gain_by_size(sample, entry["experiment"], entry["runs"])[1:]
        test = combined(
            gains,
            lambda values, x=sizes: trend(x, values),
            f"change of the gain over the sizes, {family}",
            "at_least",
            margin=margin_share * np.mean([test.values for test in gains], axis=0),
            accuracy_margin=margin_share * np.mean([test.accuracy for test in gains], axis=0),
        )
        tests.append(test)
    return tests


def best_interval(
    sample: Sample, experiment: str, families: dict[str, list[str]], smallest_effect: float
) -> list[Test]:
    """C9: doublings of the best V from the smallest to the largest size."""
    tests = []
    for family, runs in families.items():
        bits, accuracy = [], []
        for run in runs:
            models = [m for m in sample.models(experiment, run) if m.method == "sma"]
            if len(models) < 2:
                raise Missing(f"{experiment}: {len(models)} intervals of {run}")
            doublings = np.log2([m.interval for m in models])
            bits.append(doublings[np.argmin(sample.scores(models, BITS), axis=0)])
            accuracy.append(doublings[np.argmax(sample.scores(models, ACCURACY), axis=0)])
        sizes = np.log([sample.study.parameters(run) for run in runs])
        unit = sample.study.manifest(experiment)["merge_interval"]
        best = ", ".join(f"{2 ** of_run[0] / unit:g} V" for of_run in bits)
        tests.append(
            Test(
                f"doublings of the best V over the sizes, {family}",
                "above",
                trend(sizes, bits),
                "doublings",
                smallest=smallest_effect,
                accuracy=trend(sizes, accuracy),
                items=sample.item_count(),
                seeds=min(len(sample.seeds(sample.models(experiment, run))) for run in runs),
                snapshots=max(m.n for m in sample.models(experiment, runs[0])),
                note=f"Best V of the {family} sizes: {best}",
            )
        )
    return tests


def gain_by_learning_rate(sample: Sample, experiment: str, runs: list[str]) -> list[Test]:
    """C17: change of the gain from the lowest to the highest peak rate, at each point, the last first."""
    rates = np.log([sample.study.config(run)["schedule"]["peak_lr"] for run in runs])
    points = sorted({m.tokens for m in sample.models(experiment, runs[0])})
    tests = []
    for tokens in reversed(points):
        pairs = [last_and_merged(sample, experiment, run, tokens) for run in runs]
        gains = [gain_test(sample, run, "above", pair, gain) for run, pair in zip(runs, pairs, strict=True)]
        values = ", ".join(f"{test.estimate:+.3f}" for test in gains)
        tests.append(
            combined(
                gains,
                lambda values: trend(rates, values),
                f"change of the gain over the rates at {millions(tokens)}",
                "above",
                smallest=sample.common.smallest_effect,
                note=f"Gains from the lowest rate to the highest at {millions(tokens)}: {values}",
            )
        )
    return tests


def fine_tuning(sample: Sample, experiment: str, baseline: str, runs: list[str], extra: list[list[str]]) -> list[Test]:
    """C14: PMA-init against the baseline after fine-tuning, mean over the table's columns."""
    columns: list[Column] = [*sample.axes("instruct"), *((suite, task) for suite, task in extra)]
    if len(columns) == len(extra):
        raise Missing(f"{experiment}: no records of suite instruct")
    end = max(m.tokens for m in sample.models(experiment, baseline))
    tests = []
    for run in runs:
        models = [ModelKey(baseline, end), ModelKey(run, end)]
        name, margin = f"baseline minus {run} after fine-tuning", sample.common.smallest_effect
        tests.append(gain_test(sample, name, "at_least", models, gain, columns, margin=margin))
    return tests
