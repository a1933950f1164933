"""Merges kept in memory, for scoring and for training on from them; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from pma.merge.check import judge, open_sources
from pma.merge.diagnose import update_cosines
from pma.merge.formats import TensorInfo
from pma.merge.options import Options, Part, Policy
from pma.merge.plan import Plan, plan
from pma.merge.stream import NUMPY
from pma.merge.summary import summarize


@dataclass(frozen=True)
class InMemory:
    """A merge that was not written: its tensors by name, floating ones in fp32, and their content hash."""

    tensors: dict[str, torch.Tensor]
    content: str


def average(
    folders: Sequence[str | Path], weights: Sequence[float], policy: Policy | None = None
) -> dict[str, torch.Tensor]:
    """sum_i weights[i] * model_i for every floating tensor, in fp32 from the oldest on; integers are copied.

    The same checks as those of a merge that is written, the outlier test and the manifests of the sources included.

    Returns:
        The tensors by name, floating ones in fp32.

    Raises:
        ValueError: for folders that cannot be averaged, or that the policy refuses.
    """
    return averages(folders, [weights], policy)[0].tensors


def averages(
    folders: Sequence[str | Path],
    weights: Sequence[Sequence[float]],
    policy: Policy | None = None,
    part: Part | None = None,
) -> list[InMemory]:
    """`average` for several lists of weights, reading every snapshot once, with the content hash of each.

    Args:
        part: which tensors are the model; null: all.
    """
    with open_sources(folders, _options(part)) as sources:
        prepared = plan(sources, weights, _options(part), policy or Policy())
        blocks = _Blocks(prepared)
        result = prepared.run(blocks.keep, [f"weights {list(w)}" for w in weights])
    assert result is not None, "a process that is alone is the first"
    seen, _ = result
    return [blocks.merge(i, content) for i, content in enumerate(seen.sum_hashes)]


@dataclass(frozen=True)
class Trial:
    """One of many merges that share a pass, judged by the sources that have a weight in it.

    Attributes:
        merge: None where it is refused.
        refusal: why it is, as a merge of its sources alone would say.
        cosines: between each update of its window and the one before it; fewer than three sources have none.
    """

    merge: InMemory | None
    refusal: str
    cosines: list[float]


def trials(
    folders: Sequence[str | Path], weights: Sequence[Sequence[float]], policy: Policy, part: Part
) -> list[Trial]:
    """`averages`, but what the policy refuses of one merge does not end the others.

    Raises:
        ValueError: for folders that cannot be averaged at all.
    """
    with open_sources(folders, _options(part)) as sources:
        prepared = plan(sources, weights, _options(part, diagnose=True), policy)
        blocks = _Blocks(prepared)
        seen = summarize(sources, prepared.sums, prepared.work.run(blocks.keep))
        judged = []
        for i, own in enumerate(prepared.sums):
            used = [source for source, weight in enumerate(own.weights) if weight]
            alone = seen.alone(used, i)
            try:
                judge(alone, [sources[k] for k in used], ["the merge"], policy, quiet=True)
            except ValueError as error:
                judged.append(Trial(None, str(error), []))
                continue
            cosines = update_cosines(sum(alone.grams.values())) if alone.grams and len(used) > 2 else []
            judged.append(Trial(blocks.merge(i, alone.sum_hashes[0]), "", cosines))
    return judged


def _options(part: Part | None, diagnose: bool = False) -> Options:
    threads = torch.get_num_threads()
    return Options(**asdict(part or Part()), dtype="float32", threads=threads, diagnose=diagnose)


class _Blocks:
    """The blocks of merges, kept in memory."""

    def __init__(self, prepared: Plan) -> None:
        self._infos = prepared.stored()
        self._arrays = [
            {name: np.empty(info.count, NUMPY[info.dtype]) for name, info in self._infos.items()} for _ in prepared.sums
        ]

    def keep(self, index: int, name: str, start: int, values: np.ndarray) -> None:
        """Take a block, see `Pass.run`."""
        self._arrays[index][name][start : start + len(values)] = values

    def merge(self, index: int, content: str) -> InMemory:
        """One of the merges."""
        return InMemory(_tensors(self._arrays[index], self._infos), content)


def _tensors(arrays: Mapping[str, np.ndarray], infos: Mapping[str, TensorInfo]) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, values in arrays.items():
        kind = bool if infos[name].dtype == "BOOL" else values.dtype
        tensors[name] = torch.from_numpy(values.view(kind)).view(infos[name].shape)
    return tensors
