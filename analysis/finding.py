"""The finding in numbers: what merging saves at the end of the main run, what annealing saves, when merging loses.

README, page and W&B report say the same sentences, written here from the records of Figures 3 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from drawing.scores import AVERAGE_BITS, Z95, pick, scores
from formats import quantity
from records import Study


@dataclass(frozen=True)
class Effect:
    """Bits per byte saved against the last snapshot at the same tokens; negative where merging costs.

    Args:
        low: lower end of the 95 % interval; NaN where no error is known.
        high: its upper end.
        tokens: at which training tokens.
        n: number of merged snapshots; 1 for annealing.
        interval: tokens from one merged snapshot to the next.
    """

    saved: float
    low: float
    high: float
    tokens: int
    n: int
    interval: int

    def text(self) -> str:
        """The number and its interval: 0.066 [0.057, 0.076]."""
        return f"{self.saved:.3f} [{self.low:.3f}, {self.high:.3f}]"


def _effect(row: Any) -> Effect:
    error = Z95 * row.gain_error
    return Effect(row.gain, row.gain - error, row.gain + error, int(row.tokens), int(row.n), int(row.interval))


@dataclass(frozen=True)
class Finding:
    """What the main run's records say to somebody who thinks of merging.

    Args:
        merged: the default merge (N = 10, V) at the end of the run.
        best_late: the merge of Figure 5 that saves most there.
        windows: how many merges, each of another N or V, were tried there.
        annealed: bits per byte that the annealed fork saves at the end.
        early: the default merge at the first point of Figure 5.
        best_early: the merge of Figure 5 that is best at the first point.
        fork: tokens at which annealing began.
        parameters: total parameters of the model.
        stands_for: the paper's size that it stands for.
        seeds: training runs (seeds) that the numbers are means of.
    """

    merged: Effect
    best_late: Effect
    windows: int
    annealed: float
    early: Effect
    best_early: Effect
    fork: int
    parameters: int
    stands_for: str
    seeds: int

    @property
    def share(self) -> float:
        """Share of annealing's saving that the default merge recovers without annealing."""
        return self.merged.saved / self.annealed

    @property
    def model(self) -> str:
        """The model by its real size, and what it stands for."""
        return f"a {quantity(self.parameters)}-parameter mixture-of-experts model (standing for {self.stands_for})"

    @property
    def sentence(self) -> str:
        """The finding in one sentence."""
        seeds = "one training run" if self.seeds == 1 else f"{self.seeds} training runs"
        return (
            f"At the end of a constant-learning-rate run of {self.model}, averaging the last {self.merged.n} snapshots "
            f"saves {self.merged.text()} bits per byte, {100 * self.share:.0f} % of the {self.annealed:.3f} that "
            f"annealing over the last {quantity(self.merged.tokens - self.fork)} tokens saves ({seeds}; 95 % interval "
            f"over {'test items' if self.seeds == 1 else 'training runs'})."
        )

    @property
    def advice(self) -> tuple[str, ...]:
        """What it means for a run of one's own, a sentence a point."""
        end, early = self.merged.tokens, self.early.tokens
        loss = (
            f"the same merge costs {-self.early.saved:.3f} bits per byte"
            if self.early.saved < 0
            else f"the same merge saves only {self.early.saved:.3f} bits per byte"
        )
        best = "saves" if self.best_early.saved >= 0 else "costs"
        return (
            f"Late in training, the best of {self.windows} windows is N = {self.best_late.n} snapshots, "
            f"{quantity(self.best_late.interval)} tokens apart: they save {self.best_late.text()} at {quantity(end)} "
            "tokens.",
            f"Early in training it is otherwise: at {quantity(early)} tokens {loss}; the best merge there (N = "
            f"{self.best_early.n}) {best} {abs(self.best_early.saved):.3f}.",
            "Before you trust a merge, score it beside the last snapshot on held-out text: it costs no training.",
        )


def finding(study: Study) -> Finding:
    """The finding of a scale.

    Raises:
        Missing: when the records of Figure 3 or 5 are not there.
    """
    fork, windows = (pick(scores(study, name), **AVERAGE_BITS) for name in ("figure_3", "figure_5"))
    end = int(fork["tokens"].max())
    constant = pick(fork, run="moe_main", method="last", tokens=end)
    annealed = pick(fork, run="annealed_moe_main", method="last", tokens=end)
    merged = pick(fork, run="moe_main", method="sma", tokens=end).iloc[0]
    merges = pick(windows, method="sma")
    first = int(merges["tokens"].min())
    late, early = pick(merges, tokens=end), pick(merges, tokens=first)
    config = study.config("moe_main")
    return Finding(
        merged=_effect(merged),
        best_late=_effect(late.loc[late["gain"].idxmax()]),
        windows=len(late),
        annealed=float(constant["value"].iloc[0] - annealed["value"].iloc[0]),
        early=_effect(pick(early, n=merged["n"], interval=merged["interval"]).iloc[0]),
        best_early=_effect(early.loc[early["gain"].idxmax()]),
        fork=int(fork["tokens"].min()),
        parameters=study.parameters("moe_main"),
        stands_for=config["model"]["stands_for"],
        seeds=int(merged["seeds"]),
    )
