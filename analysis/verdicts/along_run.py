"""Evidence from points along one run: annealing (C4, C5), methods (C6, C7), intervals (C8), numbers (C10).

claims.yaml names each function and its settings. A test's statistic is positive where it favours the claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from formats import millions
from records import Missing

from verdicts.gains import combined, gain, gain_test, last_and_merged, single
from verdicts.resampling import Statistic, trend
from verdicts.rules import Test
from verdicts.sample import ACCURACY, ModelKey, Sample


def pma_in_annealing(sample: Sample, experiment: str, runs: dict[str, str], early_share: float) -> list[Test]:
    """C4: PMA over annealing snapshots against the end of annealing, and against the snapshots themselves."""
    share = sample.common.margin_share
    reaches, shrinks = [], []
    for annealed, constant in runs.items():
        points = sorted({m.tokens for m in sample.models(experiment, annealed) if m.method == "sma"})
        config = sample.study.config(annealed)
        fork, end = config["init"]["parent"]["tokens"], config["train"]["total_tokens"]
        early = [point for point in points if point - fork <= early_share * (end - fork)]
        if not early or points[-1] != end:
            raise Missing(f"{experiment}: {annealed} lacks an early point or its end")
        _, merged = last_and_merged(sample, experiment, annealed, early[-1])
        models = [ModelKey(constant, end), ModelKey(annealed, end), merged]
        reaches.append(
            gain_test(
                sample,
                f"PMA early against the end of annealing, {annealed}",
                "at_least",
                models,
                lambda _, a, m: a - m,
                margin=share * gain(*sample.scores(models)[:2]),
                accuracy_margin=-share * gain(*sample.scores(models, ACCURACY)[:2]),
                note=f"Early: {(early[-1] - fork) / (end - fork):.0%} of annealing",
            )
        )
        first, last = (last_and_merged(sample, experiment, annealed, point) for point in (points[0], points[-1]))
        shrinks.append(
            gain_test(
                sample,
                f"gain over the annealing snapshot, first minus last point, {annealed}",
                "above",
                [*first, *last],
                lambda a, b, c, d: (a - b) - (c - d),
                smallest=sample.common.smallest_effect,
            )
        )
    return reaches + shrinks


def pma_against_annealing(sample: Sample, experiment: str, constant: str, annealed: str) -> list[Test]:
    """C5: PMA over the constant branch against the annealing branch, early and at the end."""
    points = [m.tokens for m in sample.models(experiment, annealed) if m.method == "last"]
    first, end = min(points), max(points)

    def against(tokens: int, statistic: str, rule: str, **options: Any) -> Test:
        models = [*last_and_merged(sample, experiment, constant, tokens), ModelKey(annealed, tokens)]
        return gain_test(sample, statistic, rule, models, lambda _, m, a: a - m, **options)

    early = against(first, "PMA against annealing, first point", "above", smallest=sample.common.smallest_effect)
    annealing = gain(*sample.scores([ModelKey(constant, end), ModelKey(annealed, end)]))
    level = against(
        end,
        "PMA against annealing, last point",
        "level",
        margin=sample.common.margin_share * annealing,
        note=f"Annealing gains {annealing[0]:.3f} bits per byte there",
    )
    return [replace(level, accuracy=None), early]  # accuracy has a direction, a level has none


_METHODS = ("sma", "wma", "ema_0.1", "ema_0.2")


def _methods_at_points(sample: Sample, experiment: str, run: str) -> dict[int, dict[str, ModelKey]]:
    """Merges by point and method."""
    merges: dict[int, dict[str, ModelKey]] = {}
    for m in sample.models(experiment, run):
        if m.method != "last":
            merges.setdefault(m.tokens, {})[m.method] = m
    if len(merges) < 2 or any(set(at) != set(_METHODS) for at in merges.values()):
        raise Missing(f"{experiment}: not every method at two points or more of {run}")
    return merges


def methods(sample: Sample, experiment: str, run: str) -> list[Test]:
    """C6: every method against the last snapshot; their order at the first point."""
    tests = []
    at_points = _methods_at_points(sample, experiment, run)
    smallest = sample.common.smallest_effect
    for tokens, at in at_points.items():
        for method in _METHODS:
            models, name = [ModelKey(run, tokens), at[method]], f"gain of {method} at {millions(tokens)}"
            tests.append(gain_test(sample, name, "above", models, gain, smallest=smallest))
    first = at_points[min(at_points)]
    others = [first["wma"], *(first[m] for m in _METHODS if m != "wma")]
    orders = {
        "WMA over the best other method, first point": (others, lambda wma, *o: np.min(o, axis=0) - wma),
        "EMA(0.2) over EMA(0.1), first point": ([first["ema_0.1"], first["ema_0.2"]], gain),
    }
    ordered = [gain_test(sample, n, "above", m, c, smallest=smallest) for n, (m, c) in orders.items()]
    mean = combined(tests, lambda values: np.mean(values, axis=0), f"mean gain of {len(tests)} methods and points")
    return [mean, *tests, *ordered]


def _spread(scores: Sequence[Statistic]) -> Statistic:
    return np.max(scores, axis=0) - np.min(scores, axis=0)


def _spread_shrinks(sample: Sample, what: str, first: list[ModelKey], last: list[ModelKey]) -> Test:
    test = gain_test(
        sample,
        f"spread over {what}, first minus last point",
        "above",
        [*first, *last],
        lambda *scores: _spread(scores[: len(first)]) - _spread(scores[len(first) :]),
        smallest=sample.common.smallest_effect,
    )
    # Accuracy is not asked: turned round, a spread has no better side, and noise alone gives it one.
    return replace(test, accuracy=None)


def spread_of_methods(sample: Sample, experiment: str, run: str) -> list[Test]:
    """C7: the spread between methods at the first point minus that at the last."""
    at_points = _methods_at_points(sample, experiment, run)
    first, last = (list(at_points[point].values()) for point in (min(at_points), max(at_points)))
    return [_spread_shrinks(sample, "methods", first, last)]


def _sma_at(sample: Sample, experiment: str, run: str) -> tuple[int, int, list[ModelKey]]:
    """First and last point of an experiment's SMA merges, and the merges."""
    merged = [m for m in sample.models(experiment, run) if m.method == "sma"]
    points = sorted({m.tokens for m in merged})
    if len(points) < 2:
        raise Missing(f"{experiment}: SMA of {run} at {len(points)} points")
    return points[0], points[-1], merged


def intervals(sample: Sample, experiment: str, run: str, large: list[float], n: int) -> list[Test]:
    """C8: large V against the last snapshot at the first point; the spread over V, first and last."""
    first, last, merged = _sma_at(sample, experiment, run)
    unit = sample.study.manifest(experiment)["merge_interval"]

    def over_v(tokens: int) -> list[ModelKey]:
        # N = n, but the largest V may have had room for fewer at the first point.
        here = [m for m in merged if m.tokens == tokens and (m.n == n or m.interval == max(large) * unit)]
        return sorted(here, key=lambda m: m.interval)

    tests = []
    for multiple in large:
        of_v = [m for m in over_v(first) if m.interval == multiple * unit]
        model = single(of_v, f"{experiment}: {multiple:g} V at {first:,} tokens")
        name = f"loss by merging with {multiple:g} V (N = {model.n}), first point"
        models = [ModelKey(run, first), model]
        smallest = sample.common.smallest_effect
        tests.append(gain_test(sample, name, "above", models, lambda a, m: m - a, smallest=smallest))
    return [*tests, _spread_shrinks(sample, "V", over_v(first), over_v(last))]


def numbers(sample: Sample, experiment: str, run: str) -> list[Test]:
    """C10: change of the score from the smallest to the largest N, at the first and the last point."""
    first, last, merged = _sma_at(sample, experiment, run)
    unit = sample.study.manifest(experiment)["merge_interval"]
    tests = []
    for tokens, sign, name in (
        (first, 1, "loss by more models, first point"),
        (last, -1, "gain by more models, last point"),
    ):
        models = [m for m in merged if m.tokens == tokens and m.interval == unit]
        x = np.log([m.n for m in models])
        if len(models) < 2:
            raise Missing(f"{experiment}: fewer than two N at {tokens:,} tokens")
        smallest = sample.common.smallest_effect
        tests.append(
            gain_test(sample, name, "above", models, lambda *s, x=x, k=sign: k * trend(x, s), smallest=smallest)
        )
    return tests
