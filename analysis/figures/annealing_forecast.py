"""The abstract's two promises: merges of the constant run forecast annealing, and reach its score for little more."""

from __future__ import annotations

import numpy as np
import pandas as pd
import style
from drawing.captions import BITS, HELDOUT, model_text, scores_text, window_text
from drawing.description import INK, Bars, Figure, Level, Panel, figure
from drawing.numbers import MEASURES, mean_points, of_every_seed, settings_of
from drawing.parts import ZERO, dots_of, line
from drawing.scores import HELDOUT_BITS, counted_seeds, mean_and_half, pick, saved_over, scores
from formats import quantity
from records import Missing, Study
from verdicts.evidence.forecast import forecast_errors, token_ratios

_CONSTANT = "moe_main"
_MARKERS = ("^", "D", "v")
_FORECASTS = {"merge": ("the merge", style.BLUE), "last": ("last snapshot", style.GREY)}
_FORECASTS |= {"last plus gain": ("last snapshot and the other seeds' gain", style.ORANGE)}
_SPREAD = 2  # V, of the dots of a fork
_TEXT = style.METRICS["bits_per_byte"]


def _annealed(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """The annealed ends, with the length of their annealing and where it began, in tokens."""
    ends = pick(table, method="last", **HELDOUT_BITS)
    ends = ends[ends["run"] != _CONSTANT]
    length = np.array([study.config(run)["schedule"]["decay_tokens"] for run in ends["run"]])
    return ends.assign(length=length, start=ends["tokens"] - length)


def _trajectory(table: pd.DataFrame, annealed: pd.DataFrame, spread: float) -> Panel:
    last, merged = (pick(table, run=_CONSTANT, method=method, **HELDOUT_BITS) for method in ("last", "sma"))
    lines = [
        line(last, "tokens", "value", "constant run, last snapshot", style.GREY, band=True, size=2.5),
        line(merged, "tokens", "value", "constant run, merge", style.BLUE, band=True, marker="s", size=2.5),
    ]
    for marker, (length, ends) in zip(_MARKERS, annealed.groupby("length"), strict=False):
        label = f"annealed over {quantity(length)} tokens"
        look = {"dash": "", "marker": marker, "edge": INK, "spread": spread}
        lines.append(line(ends, "tokens", "value", label, style.ORANGE, **look))
    return Panel("held-out text", "training tokens", _TEXT.label, tuple(lines), tokens=True, legend="best")


def _errors_by_fork(table: pd.DataFrame, annealed: pd.DataFrame, spread: float) -> Panel:
    """What the annealed score lies below each forecast."""
    lines = []
    for method, forecast, marker in (("sma", "merge", "s"), ("last", "last", "o")):
        forecasts = pick(table, run=_CONSTANT, method=method, **HELDOUT_BITS)
        label, color = _FORECASTS[forecast]
        rows = saved_over(annealed, forecasts)
        lines.append(line(rows, "tokens", "gain", label, color, dash="", marker=marker, spread=spread))
    ylabel = "forecast minus annealed score\n(bits per byte)"
    look = {"levels": (ZERO,), "tokens": True, "legend": "best"}
    return Panel("error of each fork's forecast", "training tokens", ylabel, tuple(lines), **look)


def _mean_errors(study: Study) -> Panel:
    """Mean absolute errors by measure, a bar a forecast."""
    by_measure = [of_every_seed(study, "annealing_forecast", forecast_errors, measure) for measure in MEASURES]
    bars, highest = [], 0.0
    for i, (name, (label, color)) in enumerate(_FORECASTS.items()):
        numbers = pd.DataFrame({measure: errors[name] for measure, errors in enumerate(by_measure)})
        means = mean_and_half(numbers.loc[counted_seeds(numbers.index)])
        x = means.index.to_numpy(dtype=float) + 0.28 * (i - 1)
        dots = dots_of(numbers.to_dict().values(), x, 0.2)
        error = means["half"].to_numpy()
        highest = max(highest, float(numbers.to_numpy().max()))
        bars.append(Bars(label, color, x, means["mean"].to_numpy(), error, 0.26, ".3f", upright=False, dots=dots))
    ticks = dict(enumerate(MEASURES.values()))
    title = "mean absolute error over fifteen forks"
    look = {"xticks": ticks, "ylim": (0.0, 1.5 * highest), "legend": "upper right"}
    return Panel(title, "", "bits per byte", tuple(bars), **look)


def _tokens(study: Study) -> Panel:
    """Tokens that the merge needs for each annealed score, over those that annealing took."""
    most = settings_of("C19", "a")["most"]
    ratios = of_every_seed(study, "annealing_forecast", token_ratios, most=most)
    unit = study.config(_CONSTANT)["scale"]["merge_interval"]
    ends = [float(column.split()[0]) * unit for column in ratios]
    points = mean_points(ratios, ends, "", style.BLUE, _SPREAD * unit, dash="", marker="s")
    ylabel = "tokens that the merge needs\nover those of annealing"
    levels = (Level(1.0), Level(most, "", INK, "--"))
    return Panel("tokens for the annealed score", "training tokens", ylabel, (points,), levels, tokens=True)


def describe(study: Study) -> Figure:
    """Scores along training, the errors of forecasts, and the tokens that the merge needs."""
    table = scores(study, "annealing_forecast")
    annealed = _annealed(study, table)
    unit = study.config(_CONSTANT)["scale"]["merge_interval"]
    upper = [_trajectory(table, annealed, _SPREAD * unit), _errors_by_fork(table, annealed, _SPREAD * unit)]
    lower = [_tokens(study)]
    try:
        lower.insert(0, _mean_errors(study))
    except Missing:  # a single seed has no others to forecast from
        pass
    return figure(
        "Merges of a run at constant learning rate as a forecast of annealing",
        [upper, lower],
        (9, 7),
        model_text(study),
        f"Annealing begins at {annealed['start'].nunique()} points of the run and takes the learning rate to 0 along a "
        f"cosine over {' or '.join(quantity(length) for length in sorted(annealed['length'].unique()))} tokens.",
        window_text(table),
        "Forecasts of the annealed score, at the same tokens: the merge of the constant run; its last snapshot; and "
        "that, less what annealing saved there in the mean over the other runs. Tokens: where the merge first reaches "
        "the annealed score, linear between its points; dashed: what is claimed, at most.",
        f"{HELDOUT} Axes: {BITS}.",
        scores_text(study, table),
        "Axes of scores do not start at 0. The paper promises both in its abstract and measures neither.",
        legend=False,
        see="The nearer the blue points lie to zero, the better the merge foretells what annealing would give.",
        lead=[upper[1], *lower],
    )
