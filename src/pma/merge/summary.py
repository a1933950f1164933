"""What the spans of a pass say together, in an order that no thread or process decides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pma.merge.content import content_hash
from pma.merge.formats import Source, TensorInfo, iterate_spans

UNIT = 2**13  # elements: blocks are whole multiples of it
WHOLE, SAMPLED = 2**17, 8  # Gram matrices look at tensors up to WHOLE elements whole, at one UNIT in SAMPLED of others


@dataclass(frozen=True)
class Sum:
    """One weighted sum: a weight a source, oldest first, and the storage type of floating tensors (null: as newest)."""

    weights: tuple[float, ...]
    dtype: str | None = None

    def stored(self, info: TensorInfo) -> str:
        """Storage type of a tensor in the output."""
        return info.dtype if self.dtype is None or not info.floating else self.dtype


@dataclass
class SpanResult:
    """What one span shows: XXH3-128 of it in each source and sum, its Gram matrix, and the sources or sums at fault."""

    gram: np.ndarray | None
    digests: list[bytes] = field(default_factory=list)
    sum_digests: list[bytes] = field(default_factory=list)
    not_finite: set[int] = field(default_factory=set)  # sources
    unequal: set[int] = field(default_factory=set)  # sources
    overflown: set[int] = field(default_factory=set)  # sums


Results = dict[tuple[str, int], SpanResult]  # by tensor and first element


@dataclass
class Seen:
    """What a pass learns beside its sums.

    Attributes:
        hashes: content hash of each source; see `content_hash`.
        sum_hashes: of each sum, as stored.
        grams: float64 (snapshots, snapshots) by layer: products of x_0, x_1 - x_0, x_2 - x_0, ...; of large tensors
            scaled up from the elements that are looked at.
        counts: floating elements by layer.
        not_finite: (source, tensor) with NaN or infinity in it.
        unequal: integer tensors that differ from the newest's: (source, tensor).
        overflown: (sum, tensor) with NaN or infinity as stored, where every snapshot is finite.
    """

    hashes: list[str] = field(default_factory=list)
    sum_hashes: list[str] = field(default_factory=list)
    grams: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    not_finite: list[tuple[int, str]] = field(default_factory=list)
    unequal: list[tuple[int, str]] = field(default_factory=list)
    overflown: list[tuple[int, str]] = field(default_factory=list)

    def alone(self, sources: Sequence[int], weighted: int) -> Seen:
        """What a pass over some of the sources, ascending, for one of the sums would have learned."""
        place = {source: i for i, source in enumerate(sources)}
        first = sources[0]

        def based(gram: np.ndarray) -> np.ndarray:
            """Products of differences from the first of these sources instead of the first of all."""
            from_first = gram.copy()
            from_first[0, :] = from_first[:, 0] = 0  # x_0 - x_0, where the matrix holds products with x_0 itself
            part = from_first[np.ix_(sources, sources)]
            across = from_first[first, list(sources)]
            part = part - across[None, :] - across[:, None] + from_first[first, first]
            if first == 0:
                part[0, :], part[:, 0] = gram[0, list(sources)], gram[list(sources), 0]
            else:  # x_first = x_0 + (x_first - x_0)
                onto = gram[0, list(sources)] - gram[0, first] + across - from_first[first, first]
                part[0, :] = part[:, 0] = onto
                part[0, 0] = gram[0, 0] + 2 * gram[0, first] + gram[first, first]
            return part

        return Seen(
            hashes=[self.hashes[source] for source in sources],
            sum_hashes=[self.sum_hashes[weighted]],
            grams={layer: based(gram) for layer, gram in self.grams.items()},
            counts=self.counts,
            not_finite=[(place[i], name) for i, name in self.not_finite if i in place],
            unequal=[(place[i], name) for i, name in self.unequal if i in place],
            overflown=[(0, name) for i, name in self.overflown if i == weighted],
        )


def layer_of(tensor: str) -> str:
    """Layer of a tensor: `layers.7` of model.layers.7.mlp.up_proj.weight, or the tensor's own name."""
    match = re.search(r"(?:^|\.)((?:layers?|h|blocks?)\.\d+)\.", tensor)
    return match[1] if match else tensor


def gram_step(count: int) -> int:
    """Elements from one unit that Gram matrices look at to the next, of a tensor of `count` elements."""
    return UNIT if count <= WHOLE else SAMPLED * UNIT


def _gram_scale(count: int) -> float:
    """Elements of a tensor for each that Gram matrices look at."""
    return count / max(1, sum(min(UNIT, count - at) for at in range(0, count, gram_step(count))))


def summarize(sources: Sequence[Source], sums: Sequence[Sum], results: Results) -> Seen:
    """Put the results of all spans of all processes together."""
    seen = Seen()
    infos = sources[-1].tensors
    by_tensor = {name: [results[name, start] for start, _ in iterate_spans(info)] for name, info in infos.items()}
    for i, source in enumerate(sources):
        digests = {name: [span.digests[i] for span in spans] for name, spans in by_tensor.items()}
        seen.hashes.append(content_hash(source.tensors, digests))
    for i, weighted in enumerate(sums):
        stored = {name: TensorInfo(weighted.stored(info), info.shape) for name, info in infos.items()}
        digests = {name: [span.sum_digests[i] for span in spans] for name, spans in by_tensor.items()}
        seen.sum_hashes.append(content_hash(stored, digests))
    for name, spans in by_tensor.items():
        seen.not_finite += [(i, name) for i in sorted(set().union(*(span.not_finite for span in spans)))]
        seen.unequal += [(i, name) for i in sorted(set().union(*(span.unequal for span in spans)))]
        seen.overflown += [(i, name) for i in sorted(set().union(*(span.overflown for span in spans)))]
        if infos[name].floating:
            layer = layer_of(name)
            seen.counts[layer] = seen.counts.get(layer, 0) + infos[name].count
            for span in spans:
                if span.gram is not None:
                    seen.grams[layer] = seen.grams.get(layer, 0) + span.gram * _gram_scale(infos[name].count)
    return seen
