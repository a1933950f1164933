"""Merges kept in memory, for scoring and for training on from them; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from pma.merge.check import open_sources
from pma.merge.formats import TensorInfo
from pma.merge.options import Options, Part, Policy
from pma.merge.plan import plan
from pma.merge.stream import NUMPY


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
    options = Options(**asdict(part or Part()), dtype="float32", threads=torch.get_num_threads(), diagnose=False)
    with open_sources(folders, options) as sources:
        prepared = plan(sources, weights, options, policy or Policy())
        infos = prepared.stored()
        arrays = [{k: np.empty(info.count, NUMPY[info.dtype]) for k, info in infos.items()} for _ in weights]

        def keep(index: int, name: str, start: int, values: np.ndarray) -> None:
            arrays[index][name][start : start + len(values)] = values

        result = prepared.run(keep, [f"weights {list(w)}" for w in weights])
    assert result is not None, "a process that is alone is the first"
    seen, _ = result
    return [InMemory(_tensors(a, infos), content) for a, content in zip(arrays, seen.sum_hashes, strict=True)]


def _tensors(arrays: Mapping[str, np.ndarray], infos: Mapping[str, TensorInfo]) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, values in arrays.items():
        kind = bool if infos[name].dtype == "BOOL" else values.dtype
        tensors[name] = torch.from_numpy(values.view(kind)).view(infos[name].shape)
    return tensors
