"""What a job of `python -m pma.merge` asks for, as sources and a weight for each of them in every merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pma.merge.checkpoints import RunCheckpoints, Span, descending
from pma.merge.options import Merge
from pma.merge.weights import SHAPES, explicit, method_weights

if TYPE_CHECKING:
    from omegaconf import DictConfig

_WEIGHTS = ("method", "weights", "alpha", "positions")
_COUNT = ("last", "n")  # two names of one thing
_SPAN = (*_COUNT, "every", "interval", "end")


@dataclass(frozen=True)
class Chosen:
    """Sources, oldest first, the merges of them, and what the user should know of them.

    A source that a merge does not use has weight 0 in it.
    """

    sources: list[str]
    merges: list[Merge]
    warnings: list[str]


def choose(job: DictConfig) -> Chosen:
    """Read sources and merges off a MergeJob.

    Raises:
        ValueError: for keys that do not go together, or a window that cannot be filled.
    """
    if (job.run_dir is None) == (not job.sources):
        raise ValueError(
            "give either run_dir=DIR with last=N (or n, interval and end), or sources=[A,B,...] (oldest first)"
        )
    recipes = _recipes(job)
    if job.run_dir is None:
        return _of_list(list(job.sources), recipes)
    return _of_run(RunCheckpoints(job.run_dir, job.tokens_per_step), recipes)


def of_call(sources: str | Path | Sequence[str | Path], tokens_per_step: int, recipe: Mapping[str, Any]) -> Chosen:
    """Sources and the merge of a call of `pma.merge`.

    Args:
        sources: folders or hub revisions, oldest first, or the folder of a run.
        recipe: method or weights, alpha, positions, the keys of a window, output; null is as if left out.

    Raises:
        ValueError: as `choose`.
    """
    given = {key: value for key, value in recipe.items() if value is not None}
    if isinstance(sources, (str, Path)):
        return _of_run(RunCheckpoints(sources, tokens_per_step), [given])
    return _of_list([str(source) for source in sources], [given])


def _recipes(job: DictConfig) -> list[dict[str, Any]]:
    """The keys of each merge; what one of `merges` leaves open is as in the job."""
    from omegaconf import OmegaConf  # a call of pma.merge does without it

    values: Any = OmegaConf.to_container(job)
    shared = {key: values[key] for key in (*_WEIGHTS, *_SPAN, "output") if values[key] is not None}
    if not job.merges:
        return [_checked(shared)]
    if "output" in shared:
        raise ValueError(f"output={job.output}: each of merges=[...] has an output of its own; leave this one out")
    recipes = []
    for recipe in values["merges"]:
        own = {key: value for key, value in recipe.items() if value is not None}
        kept = dict(shared)
        for group in (("method", "weights"), _COUNT):
            if any(key in own for key in group):  # replaces whatever of its kind the job says
                for key in _WEIGHTS if "method" in group else _COUNT:
                    kept.pop(key, None)
        recipes.append(_checked(kept | own))
    return recipes


def _checked(recipe: dict[str, Any]) -> dict[str, Any]:
    if "weights" not in recipe:
        recipe.setdefault("method", "sma")
    elif "method" in recipe:
        raise ValueError(
            "give either method=sma|wma|ema|linear|cosine|1-sqrt or weights=[...] (one for each source, oldest first)"
        )
    if recipe.get("output") in (None, "???"):
        raise ValueError("give output=DIR, the folder to be made")
    if "last" in recipe and "n" in recipe:
        raise ValueError("last and n: two names of the number of checkpoints; give one of them")
    return recipe


def _span(recipe: Mapping[str, Any]) -> Span:
    return Span(recipe.get("last", recipe.get("n")), recipe.get("every", 1), recipe.get("interval"), recipe.get("end"))


def _weights(recipe: Mapping[str, Any], n: int, where: Sequence[float] | None) -> list[float]:
    if "weights" in recipe:
        return explicit(recipe["weights"], n)
    weights = method_weights(recipe["method"], n, recipe.get("alpha"), where)
    if len(weights) != n:
        raise ValueError(f"positions: {len(weights)} given for {n} sources; give one for each, oldest first")
    return weights


def _uneven(recipe: Mapping[str, Any], window: Sequence[int]) -> Sequence[int] | None:
    """The positions of a window, where they stand unevenly and the method looks at them."""
    even = len({b - a for a, b in zip(window, window[1:], strict=False)}) <= 1
    return window if not even and recipe.get("method") in SHAPES else None


def _of_run(run: RunCheckpoints, recipes: Sequence[Mapping[str, Any]]) -> Chosen:
    if any("positions" in recipe for recipe in recipes):
        raise ValueError("positions: goes with sources; the checkpoints of a run say themselves where they are")
    if any(not {*_COUNT, "interval", "end"} & recipe.keys() for recipe in recipes):
        raise ValueError(
            f"run_dir={run.run_dir}: also give last=N, the newest checkpoints to merge, or n, interval and end"
        )
    windows = [run.window(_span(recipe)) for recipe in recipes]
    used = sorted({position for window in windows for position in window})
    warnings = [line for window in windows for line in run.warnings(window)]
    merges = []
    for recipe, window in zip(recipes, windows, strict=True):
        at = dict(zip(window, _weights(recipe, len(window), _uneven(recipe, window)), strict=True))
        merges.append(_merge(recipe, [at.get(position, 0.0) for position in used]))
    return Chosen([str(run.checkpoints[position]) for position in used], merges, list(dict.fromkeys(warnings)))


def _of_list(sources: list[str], recipes: Sequence[Mapping[str, Any]]) -> Chosen:
    merges = []
    for recipe in recipes:
        if given := [key for key in ("interval", "end") if key in recipe]:
            raise ValueError(f"{', '.join(given)}: goes with run_dir; of sources=[...] last and every take some")
        places = _span(recipe).take(range(len(sources)))
        weights = [0.0] * len(sources)
        for place, weight in zip(places, _weights(recipe, len(places), recipe.get("positions")), strict=True):
            weights[place] = weight
        merges.append(_merge(recipe, weights))
    return Chosen(sources, merges, descending(sources))


def _merge(recipe: Mapping[str, Any], weights: Sequence[float]) -> Merge:
    kept = {key: value for key, value in recipe.items() if key != "output" and (key, value) != ("every", 1)}
    for key in {"weights", "positions"} & kept.keys():  # as JSON holds them
        kept[key] = [float(value) for value in kept[key]]
    return Merge(tuple(weights), Path(recipe["output"]), kept)
