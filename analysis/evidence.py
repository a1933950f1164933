"""What each claim is tested on: one function a kind of claim, named by claims.yaml, which also holds its settings.

Each returns tests whose statistic is oriented so that positive favours the claim. Scores are bits per byte of the right
answers, lower is better, so a gain of B over A is score(A) - score(B).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from resampling import Statistic, over_blocks, trend
from scipy.stats import binomtest
from study import ACCURACY, BITS, Column, Missing, Model, NotTestable, Study

BITS_UNIT, LOSS_UNIT = "bits per byte", "nats per token"


@dataclass
class Test:
    """One statistic and the rule it is judged by (see the head of claims.yaml)."""

    statistic: str
    rule: str  # above | at_least | level | bound | most | report
    values: Statistic  # 1 + draws; a single number for bound and most
    unit: str = BITS_UNIT
    margin: Statistic | float = 0.0  # of at_least and level; of bound, the bound
    smallest: float = 0.0  # above
    interval: tuple[float, float] | None = None  # where it is not the bootstrap's
    accuracy: Statistic | None = None  # the same in accuracy, positive favours the claim
    accuracy_margin: Statistic | float = 0.0  # of at_least, in accuracy
    items: int = 0
    seeds: int = 0  # of the run with the fewest
    snapshots: int = 0  # merged
    steps: int = 0
    control: bool = False
    undecidable: str = ""  # why the test stays open whatever its numbers
    note: str = ""


def _gain_tests(
    study: Study,
    statistic: str,
    rule: str,
    models: Sequence[Model],
    contrast: Callable[..., Statistic],
    columns: Sequence[Column] | None = None,
    **keywords: Any,
) -> Test:
    """A test on a contrast of scores of one trunk, in bits per byte and, with the sign turned, in accuracy."""
    columns = columns or study.axes("proxy")
    return Test(
        statistic,
        rule,
        contrast(*study.scores(models, BITS, columns)),
        accuracy=contrast(*(-accuracy for accuracy in study.scores(models, ACCURACY, columns))),
        items=study.items(columns),
        seeds=len(study.seeds(models, columns)),
        snapshots=max(model.n for model in models),
        **keywords,
    )


def _smallest(study: Study) -> float:
    return study.common["smallest_effect"]


def _single(models: Sequence[Model], what: str) -> Model:
    if len(models) != 1:
        raise Missing(f"{what}: {len(models)} models where one is expected")
    return models[0]


def _last_and_merged(study: Study, experiment: str, run: str, tokens: int | None = None) -> tuple[Model, Model]:
    """The last snapshot and the one merge of a run at its last point, or at `tokens`."""
    models = study.models(experiment, run)
    tokens = max(m.tokens for m in models) if tokens is None else tokens
    here = [m for m in models if m.tokens == tokens]
    merged = _single([m for m in here if m.method == "sma"], f"{experiment}: SMA of {run} at {tokens:,} tokens")
    return Model(run, tokens), merged


def _stacked(tests: Sequence[Test], combine: Callable[[list[Statistic]], Statistic], statistic: str) -> Test:
    """A statistic of statistics of runs that share nothing but the items."""
    return Test(
        statistic,
        "report",
        combine([test.values for test in tests]),
        accuracy=combine([test.accuracy for test in tests if test.accuracy is not None]),
        items=tests[0].items,
        seeds=min(test.seeds for test in tests),
        snapshots=max(test.snapshots for test in tests),
    )


# ---- sizes: C1, C2, C3, C9


def _gain(last: Statistic, merged: Statistic) -> Statistic:
    return last - merged


def _size_name(study: Study, run: str) -> str:
    return f"{run} ({study.parameters(run) / 1e6:.3g}M)"


def gain_by_size(study: Study, experiment: str, runs: list[str]) -> list[Test]:
    """C1, C2: the gain of SMA over the last snapshot, size by size."""
    tests = []
    for run in runs:
        models = _last_and_merged(study, experiment, run)
        name = f"gain, {_size_name(study, run)}"
        tests.append(_gain_tests(study, name, "above", models, _gain, smallest=_smallest(study)))
    return [_stacked(tests, lambda values: np.mean(values, axis=0), f"mean gain of {len(runs)} sizes"), *tests]


def trend_by_size(study: Study, families: dict[str, dict[str, Any]], margin_share: float) -> list[Test]:
    """C3: change of the gain from the smallest to the largest size."""
    tests = []
    for family, of in families.items():
        sizes = np.log([study.parameters(run) for run in of["runs"]])
        gains = gain_by_size(study, of["experiment"], of["runs"])[1:]
        mean = np.mean([gain.values for gain in gains], axis=0)
        test = _stacked(gains, lambda values, x=sizes: trend(x, values), f"change of the gain over the sizes, {family}")
        test.rule, test.margin = "at_least", margin_share * mean
        test.accuracy_margin = margin_share * np.mean([gain.accuracy for gain in gains], axis=0)
        tests.append(test)
    return tests


def best_interval(study: Study, experiment: str, families: dict[str, list[str]], smallest_effect: float) -> list[Test]:
    """C9: doublings of the best V from the smallest to the largest size."""
    tests = []
    for family, runs in families.items():
        bits, accuracy = [], []
        for run in runs:
            models = [m for m in study.models(experiment, run) if m.method == "sma"]
            if len(models) < 2:
                raise Missing(f"{experiment}: {len(models)} intervals of {run}")
            doublings = np.log2([m.interval for m in models])
            bits.append(doublings[np.argmin(study.scores(models, BITS), axis=0)])
            accuracy.append(doublings[np.argmax(study.scores(models, ACCURACY), axis=0)])
        sizes = np.log([study.parameters(run) for run in runs])
        unit = study.manifest(experiment)["merge_interval"]
        best = ", ".join(f"{2 ** of_run[0] / unit:g} V" for of_run in bits)
        tests.append(
            Test(
                f"doublings of the best V over the sizes, {family}",
                "above",
                trend(sizes, bits),
                "doublings",
                smallest=smallest_effect,
                accuracy=trend(sizes, accuracy),
                items=study.items(),
                seeds=min(len(study.seeds(study.models(experiment, run))) for run in runs),
                snapshots=max(m.n for m in study.models(experiment, runs[0])),
                note=f"Best V of the {family} sizes: {best}",
            )
        )
    return tests


# ---- annealing: C4, C5


def _annealing_gain(constant: Statistic, annealed: Statistic) -> Statistic:
    return constant - annealed


def pma_in_annealing(study: Study, experiment: str, runs: dict[str, str], early_share: float) -> list[Test]:
    """C4: PMA over annealing snapshots against the end of annealing, and against the snapshots themselves."""
    share = study.common["margin_share"]
    reaches, shrinks = [], []
    for annealed, constant in runs.items():
        points = sorted({m.tokens for m in study.models(experiment, annealed) if m.method == "sma"})
        config = study.config(annealed)
        fork, end = config["init"]["parent"]["tokens"], config["train"]["total_tokens"]
        early = [point for point in points if point - fork <= early_share * (end - fork)]
        if not early or points[-1] != end:
            raise Missing(f"{experiment}: {annealed} lacks an early point or its end")
        _, merged = _last_and_merged(study, experiment, annealed, early[-1])
        models = [Model(constant, end), Model(annealed, end), merged]
        test = _gain_tests(
            study, f"PMA early against the end of annealing, {annealed}", "at_least", models, lambda _, a, m: a - m
        )
        bits = study.scores(models)
        accuracy = study.scores(models, ACCURACY)
        test.margin = share * _annealing_gain(*bits[:2])
        test.accuracy_margin = -share * _annealing_gain(*accuracy[:2])
        test.note = f"Early: {(early[-1] - fork) / (end - fork):.0%} of annealing"
        reaches.append(test)
        first, last = (_last_and_merged(study, experiment, annealed, point) for point in (points[0], points[-1]))
        shrinks.append(
            _gain_tests(
                study,
                f"gain over the annealing snapshot, first minus last point, {annealed}",
                "above",
                [*first, *last],
                lambda a, b, c, d: (a - b) - (c - d),
                smallest=_smallest(study),
            )
        )
    return reaches + shrinks


def pma_against_annealing(study: Study, experiment: str, constant: str, annealed: str) -> list[Test]:
    """C5: PMA over the constant branch against the annealing branch, early and at the end."""
    points = [m.tokens for m in study.models(experiment, annealed) if m.method == "last"]
    first, end = min(points), max(points)

    def against(tokens: int, statistic: str, rule: str, **keywords: Any) -> Test:
        models = [*_last_and_merged(study, experiment, constant, tokens), Model(annealed, tokens)]
        return _gain_tests(study, statistic, rule, models, lambda _, m, a: a - m, **keywords)

    early = against(first, "PMA against annealing, first point", "above", smallest=_smallest(study))
    level = against(end, "PMA against annealing, last point", "level")
    bits = study.scores([Model(constant, end), Model(annealed, end)])
    level.margin = study.common["margin_share"] * _annealing_gain(*bits)
    level.accuracy = None  # a level, not a direction
    level.note = f"Annealing gains {bits[0][0] - bits[1][0]:.3f} bits per byte there"
    return [level, early]


# ---- methods, intervals, numbers: C6, C7, C8, C10

_METHODS = ("sma", "wma", "ema_0.1", "ema_0.2")


def _methods_at_points(study: Study, experiment: str, run: str) -> dict[int, dict[str, Model]]:
    """Merges by point and method."""
    found: dict[int, dict[str, Model]] = {}
    for m in study.models(experiment, run):
        if m.method != "last":
            found.setdefault(m.tokens, {})[m.method] = m
    if len(found) < 2 or any(set(at) != set(_METHODS) for at in found.values()):
        raise Missing(f"{experiment}: not every method at two points or more of {run}")
    return found


def methods(study: Study, experiment: str, run: str) -> list[Test]:
    """C6: every method against the last snapshot; their order at the first point."""
    tests = []
    at_points = _methods_at_points(study, experiment, run)
    smallest = _smallest(study)
    for tokens, at in at_points.items():
        for method in _METHODS:
            models, name = [Model(run, tokens), at[method]], f"gain of {method} at {tokens / 1e6:.2f}M tokens"
            tests.append(_gain_tests(study, name, "above", models, _gain, smallest=smallest))
    first = at_points[min(at_points)]
    others = [first["wma"], *(first[m] for m in _METHODS if m != "wma")]
    orders = {
        "WMA over the best other method, first point": (others, lambda wma, *o: np.min(o, axis=0) - wma),
        "EMA(0.2) over EMA(0.1), first point": ([first["ema_0.1"], first["ema_0.2"]], _gain),
    }
    ordered = [_gain_tests(study, n, "above", m, c, smallest=smallest) for n, (m, c) in orders.items()]
    mean = _stacked(tests, lambda values: np.mean(values, axis=0), f"mean gain of {len(tests)} methods and points")
    return [mean, *tests, *ordered]


def _spread(scores: Sequence[Statistic]) -> Statistic:
    return np.max(scores, axis=0) - np.min(scores, axis=0)


def _spread_shrinks(study: Study, what: str, first: list[Model], last: list[Model]) -> Test:
    # Accuracy is not asked: turned round, a spread has no better side, and noise alone gives it one.
    test = _gain_tests(
        study,
        f"spread over {what}, first minus last point",
        "above",
        [*first, *last],
        lambda *scores: _spread(scores[: len(first)]) - _spread(scores[len(first) :]),
        smallest=_smallest(study),
    )
    test.accuracy = None
    return test


def spread_of_methods(study: Study, experiment: str, run: str) -> list[Test]:
    """C7: the spread between methods at the first point minus that at the last."""
    at_points = _methods_at_points(study, experiment, run)
    first, last = (list(at_points[point].values()) for point in (min(at_points), max(at_points)))
    return [_spread_shrinks(study, "methods", first, last)]


def _sma_at(study: Study, experiment: str, run: str) -> tuple[int, int, list[Model]]:
    """First and last point of an experiment's SMA merges, and the merges."""
    merged = [m for m in study.models(experiment, run) if m.method == "sma"]
    points = sorted({m.tokens for m in merged})
    if len(points) < 2:
        raise Missing(f"{experiment}: SMA of {run} at {len(points)} points")
    return points[0], points[-1], merged


def intervals(study: Study, experiment: str, run: str, large: list[float], n: int) -> list[Test]:
    """C8: large V against the last snapshot at the first point; the spread over V, first and last."""
    first, last, merged = _sma_at(study, experiment, run)
    unit = study.manifest(experiment)["merge_interval"]

    def over_v(tokens: int) -> list[Model]:
        # N = n, but the largest V may have had room for fewer at the first point.
        here = [m for m in merged if m.tokens == tokens and (m.n == n or m.interval == max(large) * unit)]
        return sorted(here, key=lambda m: m.interval)

    tests = []
    for multiple in large:
        of_v = [m for m in over_v(first) if m.interval == multiple * unit]
        model = _single(of_v, f"{experiment}: {multiple:g} V at {first:,} tokens")
        name = f"loss by merging with {multiple:g} V (N = {model.n}), first point"
        models = [Model(run, first), model]
        tests.append(_gain_tests(study, name, "above", models, lambda a, m: m - a, smallest=_smallest(study)))
    return [*tests, _spread_shrinks(study, "V", over_v(first), over_v(last))]


def numbers(study: Study, experiment: str, run: str) -> list[Test]:
    """C10: change of the score from the smallest to the largest N, at the first and the last point."""
    first, last, merged = _sma_at(study, experiment, run)
    unit = study.manifest(experiment)["merge_interval"]
    tests = []
    for tokens, sign, name in (
        (first, 1, "loss by more models, first point"),
        (last, -1, "gain by more models, last point"),
    ):
        models = [m for m in merged if m.tokens == tokens and m.interval == unit]
        x = np.log([m.n for m in models])
        if len(models) < 2:
            raise Missing(f"{experiment}: fewer than two N at {tokens:,} tokens")
        tests.append(
            _gain_tests(
                study, name, "above", models, lambda *s, x=x, k=sign: k * trend(x, s), smallest=_smallest(study)
            )
        )
    return tests


# ---- learning rate: C17


def gain_by_learning_rate(study: Study, experiment: str, runs: list[str]) -> list[Test]:
    """C17: change of the gain from the lowest to the highest peak rate, at each point."""
    rates = np.log([study.config(run)["schedule"]["peak_lr"] for run in runs])
    points = sorted({m.tokens for m in study.models(experiment, runs[0])})
    tests = []
    for tokens in reversed(points):
        gains = [
            _gain_tests(study, run, "above", _last_and_merged(study, experiment, run, tokens), _gain) for run in runs
        ]
        name = f"change of the gain over the rates at {tokens / 1e6:.2f}M tokens"
        test = _stacked(gains, lambda values: trend(rates, values), name)
        test.rule, test.smallest = "above", _smallest(study)
        test.note = f"Gains from the lowest rate to the highest at {tokens / 1e6:.2f}M tokens: " + ", ".join(
            f"{g.values[0]:+.3f}" for g in gains
        )
        tests.append(test)
    return tests


# ---- fine-tuning: C14


def fine_tuning(study: Study, experiment: str, baseline: str, runs: list[str], extra: list[list[str]]) -> list[Test]:
    """C14: PMA-init against the baseline after fine-tuning, mean over the table's columns."""
    columns: list[Column] = [*study.axes("instruct"), *((suite, task) for suite, task in extra)]
    if len(columns) == len(extra):
        raise Missing(f"{experiment}: no records of suite instruct")
    end = max(m.tokens for m in study.models(experiment, baseline))
    tests = []
    for run in runs:
        models = [Model(baseline, end), Model(run, end)]
        name = f"baseline minus {run} after fine-tuning"
        tests.append(_gain_tests(study, name, "at_least", models, _gain, columns, margin=_smallest(study)))
    return tests


# ---- curves: C11, C12, C13


def _paired(study: Study, baseline: str, run: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two curves at the tokens both have logged."""
    sides = [study.curve(of).set_index("tokens") for of in (baseline, run)]
    shared = sides[0].index.intersection(sides[1].index)
    if len(shared) < 10:
        raise Missing(f"{baseline} and {run} share {len(shared)} logged steps")
    return sides[0].loc[shared], sides[1].loc[shared]


def _over_blocks(study: Study, of: Callable[[np.ndarray], Statistic], steps: int, key: str) -> Statistic:
    return over_blocks(of, steps, study.common["draws"], study.common["seed"], f"steps {key}")


def _mean(study: Study, curve: np.ndarray, key: str) -> Statistic:
    return _over_blocks(study, lambda index: curve[index].mean(axis=1), len(curve), key)


def continued_training(
    study: Study,
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
        ours, theirs = (side["loss"].to_numpy() for side in _paired(study, run, baseline))
        steps = len(ours)
        head, tail = max(2, round(start_share * steps)), max(2, round(end_share * steps))
        lower = _mean(study, (theirs - ours)[:head], f"{run} start")
        level = _mean(study, (theirs - ours)[-tail:], f"{run} end")
        common = {"unit": LOSS_UNIT, "seeds": 1}
        starts.append(
            Test(f"loss saved at the start, {run}", "above", lower, smallest=smallest_effect, steps=head, **common)
        )
        margin = margin_share * float(theirs[-tail:].mean())
        ends.append(Test(f"loss saved at the end, {run}", "level", level, margin=margin, steps=tail, **common))
    return starts + ends


_MEDIAN_STEPS = 21


def gradient_norms(study: Study, baseline: str, run: str, smallest_effect: float) -> list[Test]:
    """C12: log ratios of the gradient norms and of their scatter around a running median."""
    theirs, ours = (side["gradient_norm"] for side in _paired(study, baseline, run))
    lower = _mean(study, np.log(theirs.to_numpy() / ours.to_numpy()), f"{run} norms")
    around = [
        (norms - norms.rolling(_MEDIAN_STEPS, center=True, min_periods=1).median()).to_numpy()
        for norms in (theirs, ours)
    ]
    steadier = _over_blocks(
        study,
        lambda index: np.log(around[0][index].std(axis=1) / around[1][index].std(axis=1)),
        len(ours),
        f"{run} norms",
    )
    common = {"unit": "log ratio", "smallest": smallest_effect, "steps": len(ours), "seeds": 1}
    return [
        Test("gradient norm, baseline over PMA-init", "above", lower, **common),
        Test(
            "scatter of the gradient norm, baseline over PMA-init",
            "above",
            steadier,
            **common,
        ),
    ]


def collapse(
    study: Study,
    run: str,
    resumed: str,
    control: str,
    jump: float,
    margin: float,
    tail_share: float,
    window_share: float,
) -> list[Test]:
    """C13: whether the resumed run passes the point of collapse and returns to the level before it."""
    collapsed = study.curve(run)
    window = max(5, round(window_share * len(collapsed)))
    median = collapsed["loss"].rolling(window).median()
    level = median.min()
    low = np.flatnonzero(median <= level + jump)
    if len(collapsed) - 1 - low[-1] < tail_share * len(collapsed):
        raise NotTestable(f"{run} did not collapse: its loss ends within {jump:g} nats of its lowest running median")
    point = int(collapsed["tokens"].iloc[low[-1]])
    tests = []
    for name in (resumed, control):
        curve = study.curve(name)
        after = curve[curve["tokens"] > point]
        if curve["tokens"].max() < collapsed["tokens"].max() or after.empty:
            raise Missing(f"{name} does not reach the end of {run}")
        highest = curve["loss"].rolling(window, min_periods=1).median()[after.index].max() - level
        tail = curve["loss"].to_numpy()[-max(2, round(tail_share * len(curve))) :]
        back = level - _mean(study, tail, f"{name} tail")
        common = {"unit": LOSS_UNIT, "seeds": 1, "control": name == control}
        tests += [
            Test(
                f"end of {name}, below the level before the collapse",
                "at_least",
                back,
                margin=margin,
                steps=len(tail),
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
    stuck = float(collapsed["loss"].iloc[-round(tail_share * len(collapsed)) :].mean() - level)
    tests[0].note = f"{run} collapses at {point / 1e6:.2f}M tokens and ends {stuck:.2f} nats above its lowest level"
    return tests


# ---- weight space: C15, C16


def planes(study: Study, experiment: str, run: str) -> list[Test]:
    """C15: share of the snapshots farther from the grid's optimum than the merged model, plane by plane."""
    table = study.table(experiment, "landscape")
    table = table[(table["run"] == run) & (table["metric"] == BITS)]
    tests = []
    for plane, points in table.groupby("plane", sort=True):
        grid = points[points["role"] == "grid"]
        dots = points[points["role"] == "snapshot"]
        best = grid.loc[grid["value"].idxmin()]
        # Two weights differ in scale; principal directions are lengths in one space.
        scale = dots[["x", "y"]].std().to_numpy() if plane == "weights" else 1.0

        def distance(of: pd.DataFrame, best: pd.Series = best, scale: Any = scale) -> np.ndarray:
            offsets = (of[["x", "y"]].to_numpy() - best[["x", "y"]].to_numpy(dtype=float)) / scale
            return np.linalg.norm(offsets, axis=1)

        merged = points[points["role"] == "merged"]
        farther = int((distance(dots) > distance(merged)[0]).sum())
        worse = int((dots["value"] > merged["value"].iloc[0]).sum())
        low, high = binomtest(farther, len(dots)).proportion_ci(method="wilson")
        border = any(best[axis] in (grid[axis].min(), grid[axis].max()) for axis in ("x", "y"))
        note = f"{worse} of {len(dots)} snapshots score worse than the merged model" if plane == "principal" else ""
        tests.append(
            Test(
                f"share of snapshots farther from the optimum, plane of {plane}",
                "most",
                np.array([farther / len(dots)]),
                "share",
                interval=(float(low), float(high)),
                snapshots=len(dots),
                seeds=1,
                note=note,
                undecidable="the optimum lies on the grid's border" if border else "",
            )
        )
    if not tests:
        raise Missing(f"{experiment}: no landscape of {run}")
    return tests


def _inequality(matrix: np.ndarray) -> float:
    # Cross terms over the bound; written so that it stays below 1 just where the inequality holds, whatever the sign of
    # the bound (dividing by a negative one would turn the inequality round).
    bound, cross = (len(matrix) - 1) * matrix.trace(), matrix.sum() - matrix.trace()
    return float(1 - (bound - cross) / abs(bound))


def cross_terms(study: Study, experiment: str, run: str, reference: str) -> list[Test]:
    """C16: cross terms over (k - 1) times diagonal terms, for each window and reference measured."""
    table = study.table(experiment, "curvature_terms")
    table = table[table["term"] == "hessian"] if "term" in table else table
    losses = study.table(experiment, "curvature_losses")
    tests = []
    for (of, at), terms in table.groupby(["run", "reference"], sort=True):
        matrix = terms.pivot(index="i", columns="j", values="value").to_numpy()
        k = len(matrix)
        ratio = _inequality(matrix)
        left_out = [_inequality(np.delete(np.delete(matrix, i, 0), i, 1)) for i in range(k)]
        error = float(np.sqrt((k - 1) * np.var(left_out)))  # jackknife, Efron and Tibshirani 1993, 11.5
        loss = losses[(losses["run"] == of) & (losses["reference"] == at)].set_index("name")["value"]
        singles = loss[loss.index.str.startswith("snapshot_")]
        measured = singles.mean() - loss.get("merged", np.nan)
        predicted = matrix.trace() / (2 * k) - matrix.sum() / (2 * k**2)
        tests.append(
            Test(
                f"cross over diagonal terms, {of}, Hessian at {at}",
                "bound",
                np.array([ratio]),
                "ratio",
                margin=1.0,
                interval=(ratio - 1.96 * error, ratio + 1.96 * error),
                snapshots=k,
                seeds=1,
                control=(of, at) != (run, reference),
                note=f"Predicted gain {predicted:.4f}, measured {measured:.4f} nats per token",
            )
        )
    if not any(not test.control for test in tests):
        raise Missing(f"{experiment}: no terms of {run} at {reference}")
    return sorted(tests, key=lambda test: test.control)
