"""What lies beside the model in a checkpoint of a trainer: states of optimizers, and copies of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pma.merge.formats.base import DCP, Piece, Source, View
from pma.merge.formats.open import fetch
from pma.merge.formats.part import is_copy

# By the name that stands last, or behind `state`: the weights that optimizers keep (Megatron-Core, OLMo-core, apex,
# schedule-free), and moments, which begin at 0.
_ROLES = dict.fromkeys(("param", "fp32_param", "main_param", "master_param", "main", "z"), "weights")
_ROLES |= dict.fromkeys(("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer"), "moment")
_ROLES |= {"exp_avg_sq_row": "moment", "exp_avg_sq_col": "moment", "step": "step"}
OPTIMIZERS, _FSDP_OPTIMIZER = ("optimizer.pt", "optimizer.bin"), "optimizer_0"  # of the Trainer


def role_of(name: str) -> str | None:
    """What a tensor beside the model is: weights | moment | step; None: another."""
    parts = name.split(".")
    after = parts[parts.index("state") + 1 :][:1] if "state" in parts else []
    for part in (parts[-1], *after) if "optim" in name else ():
        if part in _ROLES:
            return _ROLES[part]
    return "weights" if is_copy(name) else None


class _Together(Source):
    """The tensors of several sources."""

    whole = False

    def __init__(self, name: str, folder: Path, parts: Sequence[Source]) -> None:
        self._parts = parts
        self._of = {tensor: part for part in parts for tensor in part.tensors}
        super().__init__(name, folder, {tensor: part.tensors[tensor] for tensor, part in self._of.items()})

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        self._of[name].read(name, start, out)

    def pieces(self, name: str) -> list[Piece]:
        return self._of[name].pieces(name)

    def files(self) -> list[Path]:
        return [path for part in self._parts for path in part.files()]

    def close(self) -> None:
        for part in self._parts:
            part.close()


def open_beside(source: Source) -> Source:
    """All tensors that lie beside the model in a checkpoint."""
    from pma.merge.formats.dcp import DcpSource
    from pma.merge.formats.torch import TorchState

    parts: list[Source] = []
    if source.format == "dcp":
        parts.append(DcpSource(source.name, source.folder, keep=lambda name: name not in source.tensors))
    if (path := fetch(source.name)).is_file():
        model = {piece.at for name in source.tensors for piece in source.pieces(name)}
        everything = TorchState(source.name, source.folder, path)
        rest = {k: v for k, v in everything.tensors.items() if everything.pieces(k)[0].at not in model}
        parts.append(View(everything, rest))
    elif (source.folder / _FSDP_OPTIMIZER / DCP).is_file():
        home = source.folder / _FSDP_OPTIMIZER
        parts.append(DcpSource(source.name, source.folder, home, keep=lambda name: True))
    else:
        files = [source.folder / file for file in OPTIMIZERS if (source.folder / file).is_file()]
        parts += [TorchState(source.name, source.folder, file, prefix="optimizer.") for file in files]
    return _Together(source.name, source.folder, parts)
