"""The report as blocks of W&B: what story.py says, with panels over the runs' own metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
from drawing.curves import CURVES
from records import Study

from page.build import TITLE
from page.runs import seeds_by_run
from page.story import SUMMARY, Chapter, Story
from pma.words import experiment_title

_BITS = ".*/average/bits_per_byte/.*"
_OF_CURVES = {"figure_6": ("loss",), "figure_7": ("gradient_norm", "loss")}  # figures that show curves, and which


def report(stories: Sequence[Story], entity: str, project: str) -> wr.Report:
    """The report; nothing is sent."""
    blocks: list[Any] = [wr.TableOfContents()]
    for story in stories:
        for chapter in story.chapters:
            heading = wr.H1 if chapter.level == 1 else wr.H2
            blocks += [heading(chapter.title), wr.MarkdownBlock(chapter.text), *_panels(story.study, chapter)]
    return wr.Report(project=project, entity=entity, title=TITLE, description=SUMMARY, blocks=blocks, width="fluid")


def _panels(study: Study, chapter: Chapter) -> list[wr.PanelGrid]:
    """Panels of a chapter: its picture, and scores or curves of its runs; or the curves of all runs."""
    if chapter.curves:
        return [wr.PanelGrid(runsets=_training(study), panels=_curves(CURVES))]
    name = chapter.experiment
    # Run sets without a project are those of the report's own.
    runsets, panels = [], []
    if chapter.picture:
        runsets.append(wr.Runset(name="picture", filters=f"Group == '{name}' and JobType == 'analysis'"))
        panels.append(wr.MediaBrowser(title=experiment_title(name), media_keys=[name]))
    if name and study.has(name, "records.csv"):
        runsets.append(wr.Runset(name="scores", filters=f"Group == '{name}' and JobType == 'eval'"))
        panels.append(
            wr.LinePlot(title="bits per byte, raw and merged", x="tokens", metric_regex=_BITS, **_seeds("run"))
        )
    if name in _OF_CURVES:
        runsets.append(_runs("training runs", seeds_by_run(study.manifest(name)["runs"])))
        panels += _curves(_OF_CURVES[name])
    return [wr.PanelGrid(runsets=runsets, panels=panels)] if panels else []


def _seeds(key: str) -> dict[str, Any]:
    """One line a run: the mean over its seeds, and a band from the lowest to the highest.

    Args:
        key: of W&B's config, which holds the run's name.
    """
    return {"groupby": wr.Config(key), "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}


def _curves(keys: Iterable[str]) -> list[wr.LinePlot]:
    return [wr.LinePlot(title=CURVES[key], x="tokens", y=[key], **_seeds("run_name")) for key in keys]


def _runs(name: str, runs: Iterable[str]) -> wr.Runset:
    """Some training runs, each with all its seeds."""
    return wr.Runset(name=name, filters=f"JobType == 'train' and Config('run_name') in {sorted(runs)}")


def _training(study: Study) -> list[wr.Runset]:
    """Training runs, each in the run set of the first figure that uses it."""
    taken: set[str] = set()
    runsets = []
    for name in study.experiments():
        own = set(seeds_by_run(study.manifest(name)["runs"])) - taken
        taken |= own
        if own:
            runsets.append(_runs(experiment_title(name), own))
    return runsets


def specification(report: wr.Report) -> str:
    """The report as JSON, as W&B would be sent it."""
    return report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True, indent=1) + "\n"
