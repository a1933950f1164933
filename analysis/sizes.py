"""Stand-ins: which small model of ours stands for which of the paper's, by real size first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from formats import quantity
from records import Study

from pma.words import size_label, size_name


@dataclass(frozen=True)
class Size:
    """One model of a scale.

    Args:
        model: its name in conf/model/SCALE, which is the paper's size: moe_1.3b_13b.
        kind: dense or moe.
        total: total parameters.
        active: parameters that a token passes through.
        stands_for: the paper's size: 1.3B/13B (active/total), or 411M.
        runs: finished runs that train it.
    """

    model: str
    kind: str
    total: int
    active: int
    stands_for: str
    runs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The real size: 576k MoE."""
        return size_name(self.kind, self.total)

    @property
    def label(self) -> str:
        """Real size first: 576k MoE, standing for 1.3B/13B."""
        return size_label(self.kind, self.total, self.stands_for)

    @property
    def tick(self) -> str:
        """The same in lines that fit under a bar: 576k, for, 1.3B/, 13B."""
        return f"{quantity(self.total)}\nfor\n{self.stands_for}".replace("/", "/\n")


def sizes(study: Study) -> list[Size]:
    """The models that a scale's finished runs trained, dense first, smallest first.

    A run whose folder keeps no config is left out: the config says what its model stands for.
    """
    first: dict[str, int] = {}  # a run's seeds differ in nothing but the seed, and parsing a config is slow
    for folder in filter(lambda folder: study.has(folder, "config.yaml"), study.run_folders()):
        run, _, seed = folder.rpartition("-seed")
        first.setdefault(run, int(seed))
    by_model: dict[str, Size] = {}
    for run, seed in first.items():
        size = size_of(study, run, seed)
        # The first run says how large the model is: the one that collapses, among the last, has no QK-norm.
        known = by_model.get(size.model, replace(size, runs=()))
        by_model[size.model] = replace(known, runs=(*known.runs, run))
    return sorted(by_model.values(), key=lambda size: (size.kind, size.total))


def size_of(study: Study, run: str, seed: int | None = None) -> Size:
    """The model of one run; its first seed says, if none is given.

    Raises:
        Missing: when the run's config or manifest is not there.
    """
    model, counts = study.config(run, seed)["model"], study.manifest(study.run_folder(run, seed))["parameters"]
    name = model["name"].split("/")[-1]
    return Size(name, model["kind"], counts["total"], counts["active"], model["stands_for"], (run,))


def by_size(study: Study, runs: Iterable[str]) -> dict[str, Size]:
    """The models of some runs, smallest first."""
    models = {run: size_of(study, run) for run in runs}
    return dict(sorted(models.items(), key=lambda item: item[1].total))


def label(study: Study, run: str) -> str:
    """The size of a run's model, real size first.

    Raises:
        Missing: when the run has no manifest.
    """
    return size_of(study, run).label
