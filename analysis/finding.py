"""The finding in numbers: what merging saves at the end of the main run, what annealing saves, when merging loses.

README, page and W&B report say the same sentences, written here from the records of Figures 3 and 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from drawing.scores import AVERAGE_BITS, HELDOUT_BITS, pick, scores
from formats import quantity, with_interval
from records import Study


@dataclass(frozen=True)
class Effect:
    """Bits per byte saved against the last snapshot at the same tokens; negative where it costs.

    Args:
        error: half the length of the 95 % interval; NaN where no error is known.
        tokens: at which training tokens.
        n: number of merged snapshots; 1 for annealing.
        interval: tokens from one merged snapshot to the next.
    """

    saved: float
    error: float
    tokens: int
    n: int
    interval: int

    @property
    def number(self) -> str:
        """Its size and interval, whichever its sign: 0.066 [0.057, 0.076]."""
        size = abs(self.saved)
        return with_interval(size, size - self.error, size + self.error, "z.3f")

    @property
    def text(self) -> str:
        """With its direction: saves 0.066 [0.057, 0.076]."""
        return f"{'costs' if self.saved < 0 else 'saves'} {self.number}"


def _effect(row: Any) -> Effect:
    return Effect(row.gain, row.gain_error, int(row.tokens), int(row.n), int(row.interval))


@dataclass(frozen=True)
class AtEnd:
    """The default merge (N = 10, V) and annealing at the end of the main run, by one measure.

    Args:
        annealed: bits per byte that the annealed fork saves.
    """

    merged: Effect
    annealed: float

    def share_text(self, of: str = "") -> str:
        """As a part of what annealing saves: 85 % of the 0.078 that annealing saves. Only of a gain is there a share.

        Args:
            of: more words on annealing.
        """
        verb = "costs" if self.annealed < 0 else "saves"
        annealing = " ".join(filter(None, ["annealing", of]))
        if self.merged.saved <= 0 or self.annealed <= 0:
            return f"while {annealing} {verb} {abs(self.annealed):.3f}"
        return f"{100 * self.merged.saved / self.annealed:.0f} % of the {self.annealed:.3f} that {annealing} {verb}"


@dataclass(frozen=True)
class Finding:
    """What the main run's records say to somebody who thinks of merging, on held-out text.

    Args:
        text: the end of the run by held-out text, the primary measure.
        tasks: the same by the right answers of the test axes.
        best_late: the merge of Figure 5 that saves most there.
        windows: how many merges, each of another N or V, were tried there.
        early: the default merge at the first point of Figure 5.
        best_early: the merge of Figure 5 that is best at the first point.
        fork: tokens at which annealing began.
        parameters: total parameters of the model.
        stands_for: the paper's size that it stands for.
        seeds: training runs (seeds) that the numbers are means of.
    """

    text: AtEnd
    tasks: AtEnd
    best_late: Effect
    windows: int
    early: Effect
    best_early: Effect
    fork: int
    parameters: int
    stands_for: str
    seeds: int

    @property
    def model(self) -> str:
        """The model by its real size, and what it stands for."""
        return f"a {quantity(self.parameters)}-parameter mixture-of-experts model (standing for {self.stands_for})"

    @property
    def runs(self) -> str:
        """What the mean and its interval are over."""
        if self.seeds == 1 and math.isnan(self.text.merged.error):
            return "one training run"
        if self.seeds == 1:
            return "one training run; 95 % interval over held-out documents, so another run may lie outside it"
        return f"mean of {self.seeds} training runs; 95 % interval over runs"

    @property
    def sentence(self) -> str:
        """The finding in one sentence."""
        merged = self.text.merged
        annealing = self.text.share_text(f"over the last {quantity(merged.tokens - self.fork)} tokens")
        return (
            f"At the end of a constant-learning-rate run of {self.model}, averaging the last {merged.n} snapshots "
            f"{merged.text} bits per byte of held-out text, {annealing} ({self.runs})."
        )

    @property
    def second(self) -> str:
        """The same by the test axes."""
        return f"On the right answers of four test axes it {self.tasks.merged.text}, {self.tasks.share_text()}."

    @property
    def advice(self) -> tuple[str, ...]:
        """What it means for a run of one's own, a sentence a point."""
        best, early = self.best_late, self.best_early
        return (
            f"Late in training, at {quantity(best.tokens)} tokens, the best of {self.windows} windows is N = {best.n} "
            f"snapshots, {quantity(best.interval)} tokens apart: it {best.text}.",
            f"Early in training, at {quantity(early.tokens)} tokens, a merge with the same N and V {self.early.text}; "
            f"the best window there (N = {early.n}, {quantity(early.interval)} tokens apart) {early.text}.",
            "Before you trust a merge, score it beside the last snapshot on held-out text: it costs no training.",
        )


def _at_end(fork: pd.DataFrame) -> AtEnd:
    """From the scores of Figure 3 by one measure."""
    end = pick(fork, tokens=fork["tokens"].max())
    merged = pick(end, run="moe_main", method="sma").iloc[0]
    constant, annealed = (pick(end, run=run, method="last").iloc[0] for run in ("moe_main", "annealed_moe_main"))
    return AtEnd(_effect(merged), float(constant["value"] - annealed["value"]))


def finding(study: Study) -> Finding:
    """The finding of a scale.

    Raises:
        Missing: when the records of Figure 3 or 5 are not there.
    """
    fork = scores(study, "figure_3")
    text, tasks = (_at_end(pick(fork, **measure)) for measure in (HELDOUT_BITS, AVERAGE_BITS))
    merges = pick(scores(study, "figure_5"), method="sma", **HELDOUT_BITS)
    late, early = (pick(merges, tokens=tokens) for tokens in (merges["tokens"].max(), merges["tokens"].min()))
    default = {"n": text.merged.n, "interval": text.merged.interval}
    return Finding(
        text=text,
        tasks=tasks,
        best_late=_effect(late.loc[late["gain"].idxmax()]),
        windows=len(late),
        early=_effect(pick(early, **default).iloc[0]),
        best_early=_effect(early.loc[early["gain"].idxmax()]),
        fork=int(fork["tokens"].min()),
        parameters=study.parameters("moe_main"),
        stands_for=study.config("moe_main")["model"]["stands_for"],
        seeds=int(pick(fork, run="moe_main", method="sma", **HELDOUT_BITS)["seeds"].min()),
    )
