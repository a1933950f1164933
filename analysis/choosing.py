"""What docs/choosing.md says in numbers: the gain by N and V, by method, and by learning rate, and what follows.

Sentences that depend on results are written here, so that no record can contradict them. Gains are means over training
runs on held-out text; the other half of each number is half its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from drawing.scores import HELDOUT_BITS, pick, scores
from finding import finding
from formats import millions, quantity, rate, with_interval
from records import Study
from verdicts.decide import Decision, Decisions
from verdicts.evidence.scores import smallest_effect
from verdicts.judge import NOT_REACHED, NOT_RUN, Judged
from verdicts.student import Student
from verdicts.tables import markdown_table, parts_text

_METHODS = {"sma": "SMA (all alike)", "wma": "WMA (linear)", "ema_0.2": "EMA(0.2)", "ema_0.1": "EMA(0.1)"}


def choosing_blocks(study: Study, decisions: Decisions) -> dict[str, str]:
    """The blocks of docs/choosing.md by name.

    Raises:
        Missing: when records of Figures 3, 4, 5, of the lengths of windows or of the learning rates are not there.
    """
    return {
        "short": in_short(study),
        "windows": windows(study),
        "duration": duration(study, decisions["C21"]),
        "transfer": transfer(decisions["C20"]),
        "methods": methods(study, decisions["C7"]),
        "rates": rates(study, decisions["C17"]),
        "sizes": "\n".join(f"- {_verdict(decisions[name])}" for name in ("C1", "C2", "C3", "C9")),
        "expect": f"{finding(study).sentence} {finding(study).second} {_verdict(decisions['C18'])}",
        "limits": limits(study, decisions),
    }


def _merges(study: Study, experiment: str) -> pd.DataFrame:
    """Gains of equal weights on held-out text."""
    return pick(scores(study, experiment), method="sma", **HELDOUT_BITS)


def _gain(row: Any) -> str:
    return f"{row.gain:+z.3f} ± {row.gain_error:.3f}"


def _points(table: pd.DataFrame) -> list[int]:
    return sorted(int(tokens) for tokens in table["tokens"].unique())


def _runs(table: pd.DataFrame) -> str:
    """How many training runs the numbers of a table are means of."""
    few, many = table["seeds"].min(), table["seeds"].max()
    if many == 1:
        return "Each number is of one training run, ± over held-out documents."
    return f"Each number is the mean of {many if few == many else f'{few} to {many}'} training runs, ± over runs."


def _verdict(decision: Decision) -> str:
    """A claim with its verdict and its parts, and a link to all of it."""
    claim = decision.claim
    found = parts_text(decision)
    if decision.parts and decision.verdict != NOT_RUN:
        found = "; ".join(f"{judged.said}: {judged.part.says}" for judged in decision.counted)
    return f"[{claim.name}](claims.md#{claim.name.lower()}), {claim.text}: **{decision.verdict}** ({found})."


def _grid(table: pd.DataFrame, rows: Sequence[tuple[list[str], dict[str, Any]]]) -> list[list[str]]:
    """A row of cells for each setting: gains at every point, the best of a point in bold, none where not scored."""
    best = table.groupby("tokens")["gain"].max()
    cells = []
    for heads, setting in rows:
        of_setting = table
        for column, value in setting.items():
            of_setting = of_setting[of_setting[column] == value]
        gains = {row.tokens: row for row in of_setting.itertuples()}
        texts = []
        for point in _points(table):
            text = _gain(gains[point]) if point in gains else ""
            texts.append(f"**{text}**" if point in gains and gains[point].gain == best[point] else text)
        cells.append([*heads, *texts])
    return cells


def _behind(table: pd.DataFrame) -> str:
    """How many merges of a table are worse than the last snapshot: 3 of 8."""
    return f"{int((table['gain'] < 0).sum())} of {len(table)}"


def _unit(study: Study) -> int:
    """V in tokens."""
    return study.config("moe_main")["scale"]["merge_interval"]


def _best_windows(table: pd.DataFrame, unit: int) -> list[str]:
    """A sentence for each point of training: the best window, and how many are worse than the last snapshot."""
    sentences = []
    for tokens in _points(table):
        here = pick(table, tokens=tokens)
        best = here.loc[here["gain"].idxmax()]
        span = (best["n"] - 1) * best["interval"]
        sentences.append(
            f"At {millions(tokens)} the best window is N = {best['n']}, {best['interval'] / unit:g} V apart: "
            f"{quantity(span)} tokens, {100 * span / tokens:.0f} % of those seen. {_behind(here)} windows are worse "
            "than the last snapshot."
        )
    return sentences


def in_short(study: Study) -> str:
    """How wide, and with which weights, at the first and the last point."""
    first, *_, last = _best_windows(_merges(study, "figure_5"), _unit(study))
    ways = _best_ways(study)
    return "\n".join([f"- **How wide.** {last} {first}", f"- **Which weights.** {ways[-1]} {ways[0]}"])


def windows(study: Study) -> str:
    """Figure 5: the gain for every N and V at four points of training."""
    table, unit = _merges(study, "figure_5"), _unit(study)
    settings = sorted({(int(n), int(v)) for n, v in zip(table["n"], table["interval"], strict=True)})
    settings.sort(key=lambda setting: ((setting[0] - 1) * setting[1], setting))
    rows = [([str(n), f"{v / unit:g} V", quantity((n - 1) * v)], {"n": n, "interval": v}) for n, v in settings]
    header = ["N", "apart", "window, tokens", *(f"at {millions(tokens)}" for tokens in _points(table))]
    read = [f"- {sentence}" for sentence in _best_windows(table, unit)]
    return "\n".join([*markdown_table(header, _grid(table, rows)), "", _runs(table), "", *read])


def duration(study: Study, decision: Decision) -> str:
    """The gain by length N x V of the window and by V, at the end of the main run."""
    table, unit = _merges(study, "duration"), _unit(study)
    table = pick(table, tokens=table["tokens"].max())
    table = table.assign(apart=table["interval"] / unit, length=table["n"] * table["interval"] / unit)
    columns = sorted(table["apart"].unique())
    rows = []
    for length, here in table.groupby("length"):
        of_v = {row.apart: f"{_gain(row)} (N = {row.n})" for row in here.itertuples()}
        rows.append([f"{length:g} V", *(of_v.get(v, "") for v in columns)])
    header = ["length N x V", *(f"{v:g} V apart" for v in columns)]
    return "\n".join([*markdown_table(header, rows), "", _runs(table), "", _verdict(decision)])


def transfer(decision: Decision) -> str:
    """C20 as a cost: how much worse a choice made elsewhere is than the best one."""
    lines = [f"- {_regret(judged)}" for judged in decision.counted if judged.seeds]
    return "\n".join([*lines, *[""] * bool(lines), _verdict(decision)])


def _regret(judged: Judged) -> str:
    # the numbers of C20 are the smallest effect minus the regret
    regret = Student.of(smallest_effect(judged.part.measure) - judged.evidence.numbers.values.iloc[:, 0])
    cost = with_interval(regret.mean, *regret.interval(), "z.3f")
    says = judged.part.says[0].upper() + judged.part.says[1:]
    return f"{says}: {cost} {judged.part.unit} worse than the best choice there."


def _ways(study: Study) -> pd.DataFrame:
    """Gains of the four ways to weight snapshots on held-out text."""
    table = pick(scores(study, "figure_4"), **HELDOUT_BITS)
    return table[table["method"].isin(_METHODS)]


def _best_ways(study: Study) -> list[str]:
    """A sentence for each point of training: the best way to weight, and how far the ways lie apart."""
    table, sentences = _ways(study), []
    for tokens in _points(table):
        here = pick(table, tokens=tokens).sort_values("gain")
        best, spread = _METHODS[here["method"].iloc[-1]], here["gain"].iloc[-1] - here["gain"].iloc[0]
        sentences.append(
            f"At {millions(tokens)} {best} is best, and the best and the worst way lie {spread:.3f} apart; "
            f"{_behind(here)} are worse than the last snapshot."
        )
    return sentences


def methods(study: Study, decision: Decision) -> str:
    """Figure 4: the gain of every method at four points of training."""
    table = _ways(study)
    rows = [([words], {"method": method}) for method, words in _METHODS.items()]
    header = ["weights", *(f"at {millions(tokens)}" for tokens in _points(table))]
    read = [f"- {sentence}" for sentence in _best_ways(study)]
    return "\n".join([*markdown_table(header, _grid(table, rows)), "", _runs(table), "", *read, "", _verdict(decision)])


def rates(study: Study, decision: Decision) -> str:
    """The learning-rate study: gain and score at the end, for every peak rate."""
    table = pick(scores(study, "learning_rate"), **HELDOUT_BITS)
    table = pick(table, tokens=table["tokens"].max())
    peak = {run: study.config(run)["schedule"]["peak_lr"] for run in table["run"].unique()}
    merged, last = (pick(table, method=method).set_index("run") for method in ("sma", "last"))
    rows = []
    for run in sorted(peak, key=peak.__getitem__):
        values = (f"{end.loc[run, 'value']:.3f}" for end in (last, merged))
        rows.append([rate(peak[run]), _gain(merged.loc[run]), *values])
    header = ["peak learning rate", "gain", "last snapshot", "merge"]
    best_merge, best_last = (rate(peak[end["value"].idxmin()]) for end in (merged, last))
    ahead = int((merged["gain"] > 0).sum())
    read = (
        f"The merge is ahead of the last snapshot at {ahead} of {len(peak)} rates. The best merge comes from rate "
        f"{best_merge}, the best last snapshot from {best_last}."
    )
    return "\n".join([*markdown_table(header, rows), "", f"{read} {_runs(table)}", "", _verdict(decision)])


def limits(study: Study, decisions: Decisions) -> str:
    """Where our records say that merging does not pay, and where they had no answer."""
    table = _merges(study, "figure_5")
    points = (f"{_behind(pick(table, tokens=tokens))} at {millions(tokens)}" for tokens in _points(table))
    lines = [
        f"- **A window that reaches too far back.** Windows of the first table that lose: {', '.join(points)}.",
        f"- **A falling learning rate.** {_verdict(decisions['C4'])}",
    ]
    for rescue in (decision for decision in decisions if decision.claim.name == "C13"):
        how = "found no such collapse to try it on" if rescue.verdict == NOT_REACHED else "tried it"
        lines.append(f"- **To rescue a collapsed run.** We {how}: {_verdict(rescue)}")
    return "\n".join(lines)
