"""The part of a checkpoint that is merged: one of several copies of a model, or what stands under a prefix.

A trainer that keeps an exponential moving average (EMA) of the weights writes it beside them. Merging both would put
two models into one folder, so the user says which: state=model, state=ema, or a prefix.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

import numpy as np

from pma.merge.formats.base import Piece, Source, TensorInfo, View

_COPY = re.compile(r"(^|_)(ema|swa|shadow)(_|$)", re.IGNORECASE)  # in one part of a name between dots
_FEWEST = 3  # tensors of a copy that is recognised by its structure alone


class _Renamed(View):
    """Some tensors of a source under other names."""

    def __init__(self, inner: Source, names: Mapping[str, str]) -> None:
        super().__init__(inner, {new: inner.tensors[old] for new, old in names.items()})
        self._names = names
        self.whole = False

    def read(self, name: str, start: int, out: np.ndarray) -> None:
        self.inner.read(self._names[name], start, out)

    def pieces(self, name: str) -> list[Piece]:
        return self.inner.pieces(self._names[name])


def is_copy(name: str) -> bool:
    """Whether a name, or a part of it between dots, is what trainers call an averaged copy of the weights."""
    return any(_COPY.search(part) for part in name.split("."))


def choose_part(source: Source, prefix: str | None, state: str | None) -> Source:
    """Return the tensors to merge.

    Args:
        prefix: take only the tensors whose name begins with it, and take it off; "" takes all as they are.
        state: model | ema, of a checkpoint that holds both; null where it holds one.

    Raises:
        ValueError: when there is no such part, or when two copies are there and neither argument says which.
    """
    copies = [name for name in source.tensors if is_copy(name)]
    if state == "model" and copies and len(copies) < len(source.tensors):
        source = _Renamed(source, {name: name for name in source.tensors if name not in set(copies)})
    elif state == "ema":
        source = _averaged(source, copies)
    elif state is None and prefix is None:
        _refuse_copies(source, copies)
    return source if not prefix else _under(source, prefix)


def _under(source: Source, prefix: str) -> Source:
    names = {name.removeprefix(prefix): name for name in source.tensors if name.startswith(prefix)}
    if not names:
        raise ValueError(f"prefix={prefix}: no tensor of {source.name} begins so; it has {_some(source.tensors)}")
    return _Renamed(source, names)


def _averaged(source: Source, copies: Iterable[str]) -> Source:
    """The averaged copy, under the names that the model's own tensors have where both are there."""
    copied = set(copies)
    if not copied:
        raise ValueError(f"{source.name}: state=ema, and no EMA is in it; it has {_some(source.tensors)}")
    model = [name for name in source.tensors if name not in copied]
    common = _common_path(model)
    known = {name: name for name in model} | {name.removeprefix(common): name for name in model}
    names: dict[str, str] = {}
    for name in copied:
        parts = name.split(".")
        first = next(i for i, part in enumerate(parts) if _COPY.search(part))
        tails = [".".join(parts[i:]) for i in range(first + 1, len(parts))]
        new = next((known[tail] for tail in tails if tail in known), None if model else (tails or [name])[0])
        if new is not None:  # else a counter or a rate of the averaging
            names[new] = name
    if not names or (model and len(names) < len(model)):
        lacking = next(name for name in model if name not in names)
        raise ValueError(
            f"{source.name}: state=ema, and its EMA has no {lacking}; it has {_some(sorted(copied))}; take what it has "
            f"with prefix=..."
        )
    return _Renamed(source, names)


def _refuse_copies(source: Source, copies: Iterable[str]) -> None:
    copied = set(copies)
    if copied and len(copied) < len(source.tensors):
        own = next(name for name in source.tensors if name not in copied)
        raise ValueError(
            f"{source.name}: holds the weights and an average of them ({own} and {min(copied)}); say which to merge "
            f"with state=model or state=ema"
        )
    twins = _twins(source.tensors)
    if twins is not None:
        first, second = (prefix or "none" for prefix in sorted(twins))
        raise ValueError(
            f"{source.name}: the same tensors stand under two prefixes ({first} and {second}); say which to merge with "
            f"prefix={max(twins)}, or take all as they are with prefix= and nothing behind it"
        )


def _twins(tensors: Mapping[str, TensorInfo]) -> tuple[str, str] | None:
    """Two prefixes that hold the same names and shapes and all tensors between them."""
    common = _common_path(tensors)
    tops = sorted({name.removeprefix(common).partition(".")[0] for name in tensors})
    for top in tops if len(tops) < len(tensors) else []:
        prefix = f"{common}{top}."
        inside = {name.removeprefix(prefix): info.shape for name, info in tensors.items() if name.startswith(prefix)}
        outside = {name: info.shape for name, info in tensors.items() if not name.startswith(prefix)}
        if len(inside) < _FEWEST or len(inside) != len(outside) or top.isdigit():
            continue
        for other in (common, _common_path(outside)):
            if inside == {name.removeprefix(other): shape for name, shape in outside.items()}:
                return other, prefix
    return None


def _common_path(names: Iterable[str]) -> str:
    """The longest beginning of all names that ends with a dot."""
    beginning = os.path.commonprefix(list(names))
    return beginning[: beginning.rfind(".") + 1]


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")
