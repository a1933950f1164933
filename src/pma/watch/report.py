"""What a user reads of a checkpoint: the score of each merge, what it saves, and what annealing would have given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pma.watch.anneals import Anneals, Estimate, Merged, estimate
from pma.watch.kept import KeptMerge
from pma.watch.scores import gain, lower_is_better
from pma.words import count, quantity

_SHOWN = ("average", "heldout", "text")  # tasks whose scores are printed; the others stand in the rows


@dataclass(frozen=True)
class Axis:
    """How the positions of a run are said: in steps, unless its names count something else.

    Args:
        unit: steps | tokens | epochs, as the names of checkpoints count.
        tokens_per_step: above 1, lengths are said in tokens.
    """

    unit: str = "steps"
    tokens_per_step: int = 1

    @classmethod
    def of(cls, name: str, tokens_per_step: int) -> Axis:
        """The axis of a run whose checkpoints have names like this one.

        Raises:
            ValueError: when the names count tokens and steps are to be turned into them.
        """
        unit = "tokens" if name.startswith("tokens") else "steps"
        if "epoch=" in name and "step=" not in name:
            unit = "epochs"
        if unit != "steps" and tokens_per_step > 1:
            raise ValueError(f"tokens_per_step={tokens_per_step}: {name} counts {unit}, not steps; leave it")
        return cls(unit, tokens_per_step)

    def at(self, position: int) -> str:
        """A position: `step 400`, `step 400 (1.64M tokens)`, `4.92M tokens`."""
        if self.unit == "tokens":
            return f"{quantity(position)} tokens"
        tokens = f" ({quantity(position * self.tokens_per_step)} tokens)" if self.tokens_per_step > 1 else ""
        return f"{self.unit.removesuffix('s')} {position}{tokens}"

    def length(self, length: float) -> str:
        """A length that a user gives: in tokens where these are known, else as the names count."""
        if self.unit == "tokens" or self.tokens_per_step > 1:
            return f"{quantity(length)} tokens"
        return f"{length:,.6g} {self.unit}"


def shown_scores(recipe: KeptMerge, row: Mapping[str, Any]) -> list[str]:
    """The scores of a merge that are printed, as TASK/METRIC."""
    keys = [key.removeprefix(f"{recipe.name}/") for key in row if key.startswith(f"{recipe.name}/")]
    return [key for key in keys if key.split("/")[0] in _SHOWN]


def estimates(
    anneals: Anneals, recipe: KeptMerge, window: Sequence[int], row: Mapping[str, Any], length: float, axis: Axis
) -> dict[str, Estimate]:
    """What a decay of a length that ended at the end of a window would have scored, by TASK/METRIC."""
    span = None
    if not recipe.running:
        span = len(window) * (window[-1] - window[0]) / (len(window) - 1) * axis.tokens_per_step
    merged = Merged(recipe.name, "the running ema" if recipe.running else recipe.method, span)
    return {
        score: estimate(row[f"{recipe.name}/{score}"], anneals.errors(score, merged, length))
        for score in shown_scores(recipe, row)
    }


def score_text(recipe: KeptMerge, score: str, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """A score of a merge, what it gains over the checkpoint, and the best of this merge up to now."""
    key, metric = f"{recipe.name}/{score}", score.rpartition("/")[2]
    saved = gain(metric, row[key], row[f"raw/{score}"])
    best = (min if lower_is_better(metric) else max)(past[key] for past in rows if key in past)
    return f"{score} {row[key]:.4f}, {_saves(metric, saved)} over the checkpoint, best so far {best:.4f}"


def _saves(metric: str, saved: float) -> str:
    verb = (("loses", "gains"), ("costs", "saves"))[lower_is_better(metric)][saved >= 0]
    return f"{verb} {abs(saved):.4f}{' bits per byte' if metric == 'bits_per_byte' else ''}"


def estimate_text(score: str, expected: Estimate, length: str) -> str:
    """An estimate of the annealed score in words."""
    lead = f"annealed over the last {length} the run would score {score} "
    if expected.interval is None:
        return f"{lead}of about {expected.value:.4f}; no interval, for {expected.words}"
    low, high = expected.interval
    return (
        f"{lead}{expected.value:.4f} ({low:.4f} to {high:.4f}, the {expected.share:.0%} interval of {expected.words})"
    )


def merge_text(recipe: KeptMerge, n: int, seconds: float) -> str:
    """The head of the line on a merge."""
    what = "over all checkpoints" if recipe.running else f"of {count(n, 'checkpoint')}"
    return f"{recipe.name} {what}, {seconds:.1f} s"
