"""The figure of an experiment that has no drawing of its own: scores against tokens, a line for each recipe."""

from __future__ import annotations

import pandas as pd
import style
from formats import quantity
from records import Missing, Study

from drawing.captions import scores_text
from drawing.curves import curve_panels
from drawing.description import Figure, Line, Panel, figure
from drawing.parts import line
from drawing.scores import measure, scores

_DASHES, _MARKERS = ("-", "--"), ("o", "s", "^", "v", "X", "*")


def describe_plainly(study: Study, name: str) -> Figure:
    """Held-out text and the tasks' average over tokens, a line for each run and recipe.

    Where nothing was scored, the runs' curves stand instead.

    Raises:
        Missing: when the experiment left neither records nor curves.
    """
    manifest = study.manifest(name)
    title = f"{name}: {manifest['experiment']['title']}"
    if not study.has(name, "records.csv"):
        panels = curve_panels(study, sorted(manifest["runs"]))[:2]
        return figure(title, [panels], (9, 3.5), f"Scale {study.scale}; training curves: nothing was scored.")
    table = scores(study, name)
    panels = [_panel(table[table["task"] == "heldout"], "bits_per_byte", "held-out text")]
    for suite, rows in table[table["task"] == "average"].groupby("suite"):
        panels.append(_panel(rows, measure(study), f"average of the tasks, suite {suite}"))
    panels = [panel for panel in panels if panel.series]
    if not panels:
        raise Missing(
            f"{name}: its records have neither held-out text nor an average of tasks; add a figures/{name}.py"
        )
    text = "last: the newest snapshot; the others: means of N snapshots, V training tokens apart."
    return figure(title, [panels], (9, 3.7), text, scores_text(study, table), "Axes do not start at 0.")


def raw_and_merged(study: Study, name: str) -> list[Panel]:
    """Scores of single snapshots and of their merges over tokens, means over seeds, of runs that have several of both.

    On held-out text if there is any, else on the tasks' average. Empty where no run has both.
    """
    if not study.has(name, "records.csv"):
        return []
    table = scores(study, name)
    for task, heading in (("heldout", "held-out text"), ("average", "four axes")):
        part = table[(table["task"] == task) & (table["metric"] == "bits_per_byte")]
        lines: list[Line] = []
        for i, (run, rows) in enumerate(part.groupby("run")):
            raw = rows[rows["method"] == "last"].drop_duplicates("tokens").sort_values("tokens")
            sma = rows[rows["method"] == "sma"].sort_values(["tokens", "n"]).drop_duplicates("tokens", keep="last")
            if len(raw) > 1 and len(sma) > 1:
                look = {"marker": "s", "dash": "--"}
                lines.append(line(raw, "tokens", "value", f"{run}, raw", style.color(i), errors=False))
                lines.append(line(sma, "tokens", "value", f"{run}, merged", style.color(i), errors=False, **look))
        if lines:
            title = f"raw (solid) and merged (dashed), {heading}"
            return [Panel(title, "training tokens", style.METRICS["bits_per_byte"].label, tuple(lines), tokens=True)]
    return []


def _panel(table: pd.DataFrame, metric: str, title: str) -> Panel:
    """A line for each run and recipe of a table of scores of one task."""
    rows = table[table["metric"] == metric]
    recipes = rows[["method", "n", "interval"]].assign(last=rows["method"] == "last").drop_duplicates()
    recipes.loc[recipes["last"], ["n", "interval"]] = 1, 0  # a single snapshot has neither
    order = recipes.drop_duplicates().sort_values(
        ["last", "method", "n", "interval"], ascending=[False, True, True, True]
    )
    runs = sorted(rows["run"].unique())
    lines = []
    for i, (method, n, interval, last) in enumerate(order.itertuples(index=False)):
        here = rows[rows["method"] == method]
        here = here if last else here[(here["n"] == n) & (here["interval"] == interval)]
        recipe = "last" if last else f"{method}, N = {n}, V = {quantity(interval)}"
        for j, run in enumerate(runs):
            of_run = here[here["run"] == run].drop_duplicates("tokens").sort_values("tokens")
            if len(of_run):
                label = recipe if len(runs) == 1 else f"{run}, {recipe}"
                color = style.GREY if last else style.COLORS[1 + (i - 1) % (len(style.COLORS) - 1)]
                look = {"marker": _MARKERS[j % len(_MARKERS)], "dash": _DASHES[j % len(_DASHES)]}
                lines.append(line(of_run, "tokens", "value", label, color, **look))
    return Panel(title, "training tokens", style.METRICS[metric].label, tuple(lines), tokens=True)
