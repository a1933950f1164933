"""The report: report/index.html from the published records, one page that needs no server and no network.

python analysis/report.py                      every published scale, into report/
"""

from __future__ import annotations

import argparse
import base64
import gzip
import importlib
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bokeh
import interactive
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import style
from bokeh.resources import Resources
from claims import VERDICTS, Decision, decide_published, load_claims, minutes, ours
from draw import NAMES
from interactive import Panel, Series
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from study import Study

from pma.files import MANIFEST, read_manifest, write_text

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CURVES = {
    "loss": "training loss (nats a token)",
    "lr": "learning rate",
    "gradient_norm": "gradient norm (L2, before clipping)",
    "tokens_per_second": "tokens a second",
}
_DOWNLOADS = ("*.csv",)


def title_of(name: str) -> str:
    """figure_3 as `Figure 3`."""
    return name.replace("_", " ").capitalize()


def command_of(name: str) -> str:
    """The command that makes a figure."""
    return f"make reproduce-{name.replace('_', '-')}"


# ---- the paper's side ------------------------------------------------------------------------------------------------


def _bar_panel(title: str, groups: Sequence[str], bars: dict[str, Sequence[float]], label: str) -> Panel:
    """Grouped bars from numbers, one group a name."""
    width = 0.8 / len(bars)
    panel = Panel(title, ("", label), ((-0.6, len(groups) - 0.4), (0.0, 1.0)), ({}, {}), (False, False))
    for i, (name, values) in enumerate(bars.items()):
        color = style.COLORS[i % len(style.COLORS)]
        x = np.arange(len(groups)) + (i - (len(bars) - 1) / 2) * width
        panel.series.append(Series("bar", name, color, x, np.asarray(values, dtype=float), 0.92 * width))
    every = np.concatenate([one.y for one in panel.series])
    low, high = np.nanmin(every), np.nanmax(every)
    room = 0.15 * (high - low) or 1.0
    ticks = [float(f"{value:.3g}") for value in np.linspace(low, high, 4)]
    panel.limits = panel.limits[0], (low - 2 * room, high + room)
    panel.ticks = dict(enumerate(map(str, groups))), {tick: f"{tick:g}" for tick in ticks}
    return panel


def paper_panels(name: str) -> list[Panel]:
    """The paper's own numbers of a figure (analysis/paper), as far as it prints any."""
    found = []
    for path in sorted((HERE / "paper").glob(f"{name}*.csv")):
        table = pd.read_csv(path)
        if {"last", "pma"} <= set(table):
            groups = [f"{b}\n{s}" for b, s in zip(table["benchmark"], table["stands_for"], strict=True)]
            bars = {"last snapshot": table["last"], "PMA": table["pma"]}
            found.append(_bar_panel("its numbers", groups, bars, "score"))
        elif "setting" in table:
            points = sorted(table["tokens_billions"].unique())
            middle = table.assign(value=(table["low"] + table["high"]) / 2)
            wide = middle.pivot(index="tokens_billions", columns="setting", values="value").reindex(points)
            bars = {setting: wide[setting].to_numpy() for setting in dict.fromkeys(table["setting"])}
            part = path.stem.removeprefix(name).strip("_")
            heading = "its numbers" + (f" ({part})" if part else "") + ", places inferred"
            found.append(_bar_panel(heading, [f"{p}B" for p in points], bars, "average of its benchmarks"))
        elif "interval_billions" in table:
            bars = {"best V": table["interval_billions"].to_numpy()}
            found.append(_bar_panel("its best V", list(table["stands_for"]), bars, "billions of tokens"))
    return found


# ---- the runs' curves ------------------------------------------------------------------------------------------------


def _curve_panel(curves: dict[str, pd.DataFrame], column: str, label: str) -> Panel | None:
    drawn = {run: curve for run, curve in curves.items() if column in curve and curve[column].notna().any()}
    if not drawn:
        return None
    figure, ax = plt.subplots(figsize=(4, 3))
    for i, (run, curve) in enumerate(drawn.items()):
        color = style.COLORS[i % len(style.COLORS)]
        ax.plot(curve["tokens"].astype(np.float32), curve[column].astype(np.float32), color=color, label=run)
    style.token_axis(ax)
    ax.set_ylabel(label)
    ax.set_title(label)
    if column in ("lr", "gradient_norm"):
        ax.set_ylim(bottom=0)
    panel = interactive.panels(figure)[0]
    plt.close(figure)
    return panel


def curve_panels(source: style.Source, runs: Sequence[str]) -> list[Panel]:
    """Loss, learning rate, gradient norm and speed of some runs over tokens."""
    curves = {}
    for run in runs:
        path = source.folder / run / "metrics.jsonl"
        if path.is_file():
            curves[run] = pd.DataFrame(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
    found = [_curve_panel(curves, column, label) for column, label in CURVES.items()]
    return [panel for panel in found if panel is not None]


def raw_and_merged(source: style.Source, name: str) -> list[Panel]:
    """Scores of single snapshots and of their merges over tokens, for runs where both are known at several points."""
    if not (source.folder / name / "records.csv").is_file():
        return []
    table = source.records(name)
    for task, metric in (("heldout", "bits_per_byte"), ("average", "bits_per_byte")):
        part = table[(table["task"] == task) & (table["metric"] == metric) & (table["seed"] == 0)]
        figure, ax = plt.subplots(figsize=(4, 3))
        for i, (run, rows) in enumerate(part.groupby("run")):
            color = style.COLORS[i % len(style.COLORS)]
            raw = rows[rows["method"] == "last"].drop_duplicates("tokens").sort_values("tokens")
            sma = rows[rows["method"] == "sma"].sort_values(["tokens", "n"]).drop_duplicates("tokens", keep="last")
            if len(raw) > 1 and len(sma) > 1:
                ax.plot(raw["tokens"], raw["value"], "o-", color=color, label=f"{run}, raw")
                ax.plot(sma["tokens"], sma["value"], "s--", color=color, label=f"{run}, merged")
        kept = bool(ax.lines)
        style.token_axis(ax)
        ax.set_ylabel("bits per byte, lower is better")
        ax.set_title(f"raw (solid) and merged (dashed), {'held-out text' if task == 'heldout' else 'four axes'}")
        panels = interactive.panels(figure) if kept else []
        plt.close(figure)
        if panels:
            return panels
    return []


# ---- the page --------------------------------------------------------------------------------------------------------


@dataclass
class _Claim:
    """A claim as the page shows it."""

    decision: Decision
    scale: str

    @property
    def fields(self) -> dict[str, Any]:
        about, verdict = self.decision.about, self.decision.verdict
        seconds = self.decision.seconds
        return {
            "name": self.decision.claim,
            "number": self.decision.claim[1:],
            "text": about["text"],
            "source": about["source"],
            "paper": about["paper"],
            "ours": ours(self.decision),
            "sentence": self.decision.sentence,
            "verdict": verdict,
            "rank": VERDICTS.index(verdict),
            "scale": self.scale,
            "seconds": 0 if np.isnan(seconds) else seconds,
            "cost": minutes(seconds),
            "section": f"{self.scale}-{about['experiments'][0]}",
            "experiments": about["experiments"],
        }


def _shown(panel: Panel) -> dict[str, Any]:
    """A panel for the template."""
    if panel.table:
        return {"title": panel.title, "item": None, "rows": panel.table}
    names = [name for name in interactive.legend([panel])]
    said = f"{panel.title}: {panel.labels[1] or 'values'} over {panel.labels[0] or 'groups'}"
    return {
        "title": panel.title,
        "item": Markup(json.dumps(interactive.chart(panel), separators=(",", ":")).replace("</", "<\\/")),
        "alt": said + (f"; {', '.join(names)}" if names else "") + ". The values stand in the table below.",
        "rows": interactive.rows(panel),
    }


def _downloads(folder: Path) -> list[dict[str, str]]:
    found = []
    for path in sorted(p for pattern in _DOWNLOADS for p in folder.glob(pattern)):
        packed = gzip.compress(path.read_bytes(), mtime=0)
        size = f"{path.stat().st_size / 1000:.0f} kB"
        name = f"{folder.name}-{path.name}"
        found.append({"name": name, "file": path.name, "size": size, "data": base64.b64encode(packed).decode()})
    return found


def _cost(study: Study, name: str, manifest: dict[str, Any]) -> str:
    scoring = f"{manifest['seconds']:.0f} s of merging and scoring on two"
    return f"{study.cost([name]) / 60:.1f} minutes in all: training of its runs, one core each, and {scoring}"


def section(source: style.Source, name: str, decided: Sequence[Decision], study: Study) -> dict[str, Any] | None:
    """All that the page says of one figure at one scale; None where there are no records."""
    folder = source.folder / name
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_manifest(folder)
    figure = importlib.import_module(name).draw(source)
    panels, caption = interactive.panels(figure), interactive.caption(figure)
    plt.close(figure)
    theirs = [p for p in panels if "the paper" in p.title] + paper_panels(name)
    panels = [p for p in panels if "the paper" not in p.title]
    curves = raw_and_merged(source, name) + curve_panels(source, sorted(manifest["runs"]))
    mine = [_Claim(d, source.scale).fields for d in decided]
    return {
        "id": f"{source.scale}-{name}",
        "short": title_of(name).replace("Figure ", "Fig. ") + ("" if source.scale == "cpu" else f" {source.scale}"),
        "heading": f"{title_of(name)}: {manifest['experiment']['title']}",
        "scale": source.scale,
        "claims": [c for c in mine if name in c["experiments"]],
        "paper": [_shown(p) for p in theirs],
        "panels": [_shown(p) for p in panels],
        "legend": interactive.legend(panels),
        "caption": caption,
        "command": command_of(name) + ("" if source.scale == "cpu" else f" SCALE={source.scale}"),
        "cost": _cost(study, name, manifest),
        "downloads": _downloads(folder),
        "curves": [_shown(p) for p in curves],
        "curve_legend": interactive.legend(curves),
    }


def run_rows(source: style.Source) -> list[dict[str, Any]]:
    """One row a run, for the table of costs."""
    rows = []
    for path in sorted(source.folder.glob(f"*-seed*/{MANIFEST}")):
        m = read_manifest(path.parent)
        counts = m["parameters"]
        rows.append(
            {
                "scale": source.scale,
                "name": path.parent.name,
                "parameters": f"{style.quantity(counts['total'])} ({style.quantity(counts['active'])})",
                "tokens": f"{m['tokens']:,}",
                "seconds": m["seconds"],
                "minutes": f"{m['seconds'] / 60:.1f}",
                "device": m["device"],
            }
        )
    return rows


def deviations(readme: Path) -> list[Markup]:
    """The points of the README's section on what differs from the paper."""
    text = readme.read_text(encoding="utf-8").partition("## What differs from the paper\n")[2].partition("\n## ")[0]
    points = re.split(r"^- ", text.strip(), flags=re.MULTILINE)[1:]
    marked = (re.sub(r"`([^`]+)`", r"<code>\1</code>", str(Markup.escape(" ".join(p.split())))) for p in points)
    return [Markup(point) for point in marked]


def revision() -> str:
    """Short git revision, or nothing outside a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def build(runs_dir: Path, readme: Path) -> str:
    """The page.

    Raises:
        ValueError: when nothing is published.
    """
    about = load_claims()
    decided = decide_published(runs_dir, about)
    sections, rows = [], []
    for scale, decisions in decided.items():
        source = style.Source(runs_dir / scale / "published")
        study = Study(source.folder, about["common"])
        sections += filter(None, (section(source, name, decisions, study) for name in NAMES))
        rows += run_rows(source)
    there = {s["id"] for s in sections}
    listed = [_Claim(d, scale).fields for scale, decisions in decided.items() for d in decisions]
    for one in listed:
        one["section"] = one["section"] if one["section"] in there else None
    counts = {v: sum(c["verdict"] == v for c in listed) for v in VERDICTS}
    env = Environment(loader=FileSystemLoader(HERE / "page"), autoescape=True, trim_blocks=True)
    panel = env.get_template("panel.html")
    parts = {name: Markup((HERE / "page" / f"page.{name}").read_text(encoding="utf-8")) for name in ("css", "js")}
    return env.get_template("index.html").render(
        **parts,
        title="Model merging in pre-training: a replication",
        summary=", ".join(f"{n} {v}" for v, n in counts.items() if n).capitalize() + ".",
        revision=revision(),
        verdicts=VERDICTS,
        scales=list(decided),
        claim_heads=("claim", "what it says", "paper", "ours", "verdict", "scale", "cost"),
        claims=listed,
        sections=sections,
        panel=lambda p: Markup(panel.render(p=p)),
        deviations=deviations(readme),
        runs=rows,
        total=f"{sum(r['seconds'] for r in rows) / 3600:.1f} hours of training in all, one core each.",
        bokeh=Markup(Resources(mode="inline", components=["bokeh"]).render_js()),
        bokeh_version=bokeh.__version__,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write the static report from the published records.")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs")
    parser.add_argument("--readme-path", type=Path, default=ROOT / "README.md")
    parser.add_argument("--out", type=Path, default=ROOT / "report")
    options = parser.parse_args()
    try:
        page = build(options.runs_dir, options.readme_path)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    write_text(options.out / "index.html", page)
    print(f"{options.out / 'index.html'}: {len(page.encode()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
