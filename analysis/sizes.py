"""Stand-ins: which small model of ours stands for which of the paper's, by real size first."""

from __future__ import annotations

from dataclasses import dataclass

from formats import quantity
from records import Study


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
        return f"{quantity(self.total)} {'MoE' if self.kind == 'moe' else 'dense'}"

    @property
    def label(self) -> str:
        """Real size first: 576k MoE, standing for 1.3B/13B."""
        return f"{self.name}, standing for {self.stands_for}"


def sizes(study: Study) -> list[Size]:
    """The models that a scale's finished runs trained, dense first, smallest first.

    Raises:
        Missing: when a run's config or manifest is not there.
    """
    by_model: dict[str, Size] = {}
    for folder in study.run_folders():
        run, _, seed = folder.rpartition("-seed")
        model, counts = study.config(run, int(seed))["model"], study.manifest(folder)["parameters"]
        name = model["name"].split("/")[-1]
        runs = (*by_model[name].runs, run) if name in by_model else (run,)
        by_model[name] = Size(
            name, model["kind"], counts["total"], counts["active"], model["stands_for"], tuple(dict.fromkeys(runs))
        )
    return sorted(by_model.values(), key=lambda size: (size.kind, size.total))


def label(study: Study, run: str) -> str:
    """The size of a run's model, real size first.

    Raises:
        Missing: when the run has no manifest.
    """
    return next(size.label for size in sizes(study) if run in size.runs)
