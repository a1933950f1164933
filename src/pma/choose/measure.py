"""What candidates are compared by: one metric of a text, a suite or tasks of lm-eval, and how a gain is said."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from pma.choose.halves import FEWEST

if TYPE_CHECKING:
    from lm_eval.api.task import Task

    from pma.evaluate.suites import Suite

# The metric of a task that has several: likelihoods move where an accuracy of few documents stands still.
_FIRST = ("bits_per_byte", "acc_norm", "acc", "exact_match")
_MEANS = ("mean", "bits_per_byte")  # how lm-eval puts documents together, where half of them say as much as all
_SHARE = re.compile(r"acc|exact_match|f1|em$|pass")  # of documents, said in points of 100
_NOUNS = {"bits_per_byte": "bits per byte", "choice": "bits of the right choice"}


class Measure:
    """One metric of the documents of some axes, which are halved.

    Args:
        suite: with all the tasks of the axes.
        axes: tasks by the name that they were asked for.
        metric: as lm-eval names it; null: the first of bits_per_byte, acc_norm, acc, exact_match that a task has, else
            its first one.

    Attributes:
        halves: of the suite: the one that chooses, the one that reports.
        sizes: of the documents of each half, see `paired_gain`.
        higher: whether a higher score is better.
        name: of the metric, or of all that tasks differ in.

    Raises:
        ValueError: for too few documents, or a metric that a task lacks or that is no mean over its documents.
    """

    def __init__(self, suite: Suite, axes: Mapping[str, Sequence[str]], metric: str | None) -> None:
        self._axes = axes
        self._keys = {task: _key(suite.tasks[task], task, metric) for tasks in axes.values() for task in tasks}
        names = list(dict.fromkeys(key.partition(",")[0] for key in self._keys.values()))
        directions = {suite.tasks[task].higher_is_better()[key.partition(",")[0]] for task, key in self._keys.items()}
        if len(directions) > 1 or (len(names) > 1 and not all(map(_SHARE.search, names))):
            raise ValueError(f"tasks of {' and '.join(names)}: these cannot be averaged; metric=... names one of all")
        self.name, self.higher = " or ".join(names), directions.pop()
        for name, tasks in axes.items():
            if (there := sum(len(suite.requests[task]) for task in tasks)) < FEWEST:
                raise ValueError(
                    f"{name}: {there} documents; give at least {FEWEST}, for half of them choose and half report"
                )
        self.halves = (suite.half(0, self._keys), suite.half(1, self._keys))
        self.sizes = tuple(_sizes(half, axes) for half in self.halves)

    @property
    def metrics(self) -> list[str]:
        """lm-eval's "metric,filter" of each task."""
        return list(self._keys.values())

    @property
    def documents(self) -> int:
        """Documents of both halves."""
        return sum(len(axis) for sizes in self.sizes for axis in sizes)

    def values(self, items: Mapping[tuple[str, str], Sequence[float]]) -> list[list[float]]:
        """The metric of each document, by axis, out of a scorer's items."""
        from pma.evaluate.suites import Row

        rows = {task: Row(task, key) for task, key in self._keys.items()}
        return [
            [value for task in tasks for value in items[rows[task].task, rows[task].metric]]
            for tasks in self._axes.values()
        ]

    # ---- in words ----

    @property
    def factor(self) -> int:
        """From a score to what is shown."""
        return 100 if self.higher and _SHARE.search(self.name) else 1

    @property
    def digits(self) -> int:
        """Decimals of what is shown."""
        return 2 if self.factor == 100 else 4

    @property
    def unit(self) -> str:
        """Of a gain: `bits per byte`, `points of acc`."""
        return f"points of {self.name}" if self.factor == 100 else _NOUNS.get(self.name, self.name)

    @property
    def label(self) -> str:
        """Of a score: `bits per byte, lower is better`."""
        unit = f"{self.name} in %" if self.factor == 100 else self.unit
        return f"{unit}, {'higher' if self.higher else 'lower'} is better"

    def number(self, value: float, sign: str = "") -> str:
        """A score or gain as it is shown."""
        return f"{self.factor * value:{sign}.{self.digits}f}"

    def gain(self, gain: float, half: float) -> str:
        """A gain in words: `saves 0.0123 ± 0.0010 bits per byte`."""
        verb = (("loses", "gains") if self.higher else ("costs", "saves"))[gain >= 0]
        return f"{verb} {self.number(abs(gain))} ± {self.number(half)} {self.unit}"


def load_measure(job: DictConfig) -> Measure:
    """Read what a ChooseJob scores on.

    Raises:
        ValueError: when it is not one of text, suite and tasks, or cannot be scored.
    """
    given = [key for key in ("text", "suite", "tasks") if job[key]]
    if len(given) != 1:
        raise ValueError(
            f"{' and '.join(given) or 'nothing to score on'}: give one of text=FILE, suite=proxy|instruct and "
            f"tasks=[...] (names of lm-eval)"
        )
    if job.suite == "paper":
        raise ValueError("suite=paper: name the benchmarks that you want by tasks=[...], as lm-eval does")
    from pma.evaluate import load_suite, load_tasks, load_text
    from pma.evaluate.tasks import AXES, TEXT, prefix

    if job.text:
        return Measure(load_text(Path(job.text), job.limit), {TEXT: [TEXT]}, job.metric)
    if job.tasks:
        suite, axes = load_tasks(list(job.tasks), job.include_path, job.limit)
        return Measure(suite, axes, job.metric)
    suite = load_suite(job.suite, job.corpus and Path(job.corpus), job.limit)
    return Measure(suite, {axis: [prefix(job.suite) + axis] for axis in AXES[job.suite]}, job.metric)


def _key(task: Task, name: str, metric: str | None) -> str:
    """lm-eval's "metric,filter" of a task."""
    means = [key for key, function in task.aggregation().items() if getattr(function, "__name__", "") in _MEANS]
    if metric is None:
        metric = next((key for key in (*_FIRST, *means) if key in means), None)
    wanted, _, chosen = (metric or "").partition(",")
    filters = [each.name for each in task._filters]
    if wanted not in means or (chosen and chosen not in filters):
        there = ", ".join(means) or "none that is a mean over documents"
        raise ValueError(f"metric={metric}: {name} has {there}{f' and filters {filters}' if chosen else ''}")
    return f"{wanted},{chosen or filters[0]}"


def _sizes(half: Suite, axes: Mapping[str, Sequence[str]]) -> list[list[float]]:
    """Bytes of the documents that are scored whole, over their mean; 1 of all others."""
    sizes = []
    for tasks in axes.values():
        sizes.append([size for task in tasks for size in _task_sizes(half.requests[task])])
    return sizes


def _task_sizes(documents: Sequence[Sequence[Any]]) -> list[float]:
    if documents and documents[0][0].request_type != "loglikelihood_rolling":
        return [1.0] * len(documents)
    sizes = [len(requests[0].args[0].encode()) for requests in documents]
    return [len(sizes) * size / sum(sizes) for size in sizes]
