"""What the report in W&B says, in order, as plain data, and the same in Markdown with the published pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drawing.find import describe
from finding import finding
from formats import quantity
from records import Missing, Study
from verdicts.decide import VERDICTS, Decision, Decisions, Family, families, of_scales
from verdicts.frozen import change_text
from verdicts.judge import NOT, PARTLY
from verdicts.readme import deviations
from verdicts.tables import counts_text, interim_text, markdown_table, part_line, parts_text

from page.captions import said_once
from page.runs import cost_text
from page.sections import command_of
from pma.words import experiment_title

SUMMARY = "Model Merging in Pre-training of Large Language Models (arXiv 2505.12082): what of it holds here."
_SAMPLE = (
    "These are the words and pictures of the report that `make report WANDB_PROJECT=NAME` makes in W&B; there each "
    "figure also has panels over the metrics of its runs, and all training curves stand side by side."
)
_ALT = "Bits per byte over training tokens: constant learning rate, annealing, merged"
_WORDS = (
    "PMA (pre-trained model averaging) averages the weights of N snapshots that lie V tokens apart in one run. "
    "Bits per byte say how well a model predicts text: lower is better."
)


@dataclass(frozen=True)
class Chapter:
    """A heading and what stands below it.

    Attributes:
        level: of the heading, 1 or 2.
        text: Markdown.
        experiment: whose scores W&B shows there as panels.
        picture: whether its picture stands there.
        caption: of the picture.
        curves: whether the training curves of all runs stand there.
    """

    level: int
    title: str
    text: str
    experiment: str = ""
    picture: bool = False
    caption: str = ""
    curves: bool = False


@dataclass(frozen=True)
class Story:
    """The chapters of one scale."""

    study: Study
    chapters: tuple[Chapter, ...]


def stories(runs_dir: Path) -> list[Story]:
    """The report, scale by scale.

    Raises:
        ValueError: when nothing is published.
    """
    decided = families(runs_dir)
    every = of_scales(decided)
    made = []
    for scale, decisions in every.items():
        study = Study(runs_dir / scale / "published")
        name = f" (scale {scale})" if len(every) > 1 else ""
        made.append(_story(study, decisions, [f for f in decided if scale in f.decided], name))
    return made


def _story(study: Study, every: Decisions, decided: Sequence[Family], scale: str) -> Story:
    figures = [_figure(study, name, every) for name in study.experiments()]
    verdicts = [Chapter(1, f"{family.rules.title}{scale}", _verdicts(study, family)) for family in decided]
    points = "\n".join(f"- {point}" for point in deviations())
    chapters = (
        _finding(study, scale),
        Chapter(1, f"Figures{scale}", "The claims that each figure decides, its picture, and the scores of its runs."),
        *figures,
        Chapter(2, "Training curves", "Each run, in a run set for the figure that uses it first.", curves=True),
        *verdicts,
        Chapter(1, f"What differs from the paper{scale}", points),
        Chapter(1, f"Cost{scale}", cost_text(study)),
        Chapter(1, f"Conclusion{scale}", _conclusion(study, decided[0].decided[study.scale])),
    )
    return Story(study, chapters)


def _finding(study: Study, scale: str) -> Chapter:
    try:
        result = finding(study)
    except Missing as error:
        return Chapter(1, f"Finding{scale}", f"There is none yet: {error}.")
    advice = "\n".join(f"- {point}" for point in result.advice)
    return Chapter(1, f"Finding{scale}", f"{_WORDS}\n\n**{result.sentence}** {result.second}\n\n{advice}", "figure_3")


def _figure(study: Study, name: str, decisions: Decisions) -> Chapter:
    claims = [d for d in decisions if name in d.claim.experiments]
    lines = [f"- {markdown_claim(d)}: {d.claim.text}." for d in claims] or ["It decides no claim."]
    title = f"{experiment_title(name)}: {study.manifest(name)['experiment']['title']}"
    text = "\n".join([*lines, "", f"Made by `{command_of(name, study.scale)}`."])
    return Chapter(2, title, text, name, True, describe(study, name).caption)


def markdown_claim(decision: Decision) -> str:
    """A claim's verdict with its parts, which never stands without them."""
    return f"**{decision.claim.name}, {decision.verdict}** ({parts_text(decision) or 'no part'})"


def _verdicts(study: Study, family: Family) -> str:
    decisions, changed, rows = family.decided[study.scale], change_text(family.rules, study.root), []
    for d in decisions:
        parts = "<br>".join(map(part_line, d.parts)) or parts_text(d)
        rows.append([f"{d.claim.name} {d.claim.text}", f"**{d.verdict}**", parts])
    header = ["claim", "verdict", "its parts: mean over training runs [95 % interval]"]
    how = (
        "Each part gives one number a training run, positive in the claim's favour. Replicated: every counted part "
        "holds. Partly: some do. Not replicated: none holds, and one fails. Open: the runs cannot tell."
    )
    smoke = " Scale smoke proves that everything runs; its verdicts say nothing." if study.scale == "smoke" else ""
    over = [line for text in (changed, interim_text(decisions)) if text for line in (f"**{text}**", "")]
    return "\n".join([*over, f"{counts_text(decisions)}. {how}{smoke}", "", *markdown_table(header, rows)])


def _conclusion(study: Study, decisions: Decisions) -> str:
    lines = []
    for verdict in VERDICTS:
        of_verdict = [d for d in decisions if d.verdict == verdict]
        names = [f"{d.claim.name} ({parts_text(d)})" if verdict == PARTLY else d.claim.name for d in of_verdict]
        if names:
            lines.append(f"- **{verdict}** ({len(names)} of {len(decisions)}): {', '.join(names)}")
    failed = [f"{d.claim.name}: {d.claim.text}" for d in decisions if d.verdict == NOT]
    lines += ["", "Not replicated here:", "", *(f"- {text}" for text in failed)] if failed else []
    totals = [study.manifest(folder)["parameters"]["total"] for folder in study.run_folders()]
    lines += [
        "",
        f"The models of scale {study.scale} are small: {quantity(min(totals))} to {quantity(max(totals))} parameters. "
        "A verdict here says what holds at this size, not at the paper's.",
    ]
    return "\n".join(lines)


# ---- Markdown


def markdown(title: str, scales: Sequence[Story], figures: str) -> str:
    """The report for a reader without W&B.

    Args:
        figures: the folder of the published pictures, as a relative link.
    """
    blocks = [f"# {title}", f"{SUMMARY} {_SAMPLE}"]
    for story in scales:
        common, captions = said_once({c.experiment: c.caption for c in story.chapters if c.picture})
        for chapter in story.chapters:
            if chapter.curves:  # they stand in W&B alone
                continue
            if chapter.picture and common:  # ahead of the first of them
                blocks.append(_folded("What several pictures share", _shared(common)))
                common = {}
            blocks += ["#" * (chapter.level + 1) + f" {chapter.title}", chapter.text]
            folder = figures if story.study.scale == "cpu" else f"{figures}/{story.study.scale}"
            if chapter.picture:
                blocks.append(f"![{chapter.title}]({folder}/{chapter.experiment}.svg)")
                blocks.append(_folded("How it was made", captions[chapter.experiment]))
            elif chapter.experiment and story.study.scale == "cpu":
                blocks.append(
                    f'<picture><source media="(prefers-color-scheme: dark)" srcset="{figures}/readme-dark.svg">'
                    f'<img alt="{_ALT}" src="{figures}/readme-light.svg"></picture>'
                )
    return "\n\n".join(blocks) + "\n"


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _shared(common: Mapping[str, Sequence[str]]) -> str:
    """A point for each sentence that several captions share, with their names."""
    return "\n".join(f"- {text} ({', '.join(map(experiment_title, names))})" for text, names in common.items())
