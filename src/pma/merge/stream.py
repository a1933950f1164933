"""The pass over the snapshots: every input byte read once, any number of weighted sums out, in bounded memory.

A merge is linear in its inputs. The tensors are cut into spans of SPAN elements, worked on by threads; a span goes
through memory a block at a time: X (snapshots x elements) is decoded to the accumulation type, the merges are
W (recipes x snapshots) @ X, and the Gram matrix of the snapshots' deviations, from which all distances follow, is one
more product of the same block.

Bits: an element of a merge is the chain acc = fma(w_i, x_i, acc) over the snapshots, oldest first, in fp32 (or
float64), whatever block, thread or process works on it: a product runs on one thread, with rows padded to ROWS and
columns to COLUMNS so that no edge code of the BLAS is met. Which other recipes share the pass changes nothing either,
for up to 256 snapshots, since a weight of 0 leaves the chain as it is.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import xxhash
from threadpoolctl import ThreadpoolController

from pma.merge.formats import SIZES, Source, TensorInfo, iterate_spans

SPAN = 2**22  # elements: the unit of work and of hashing
UNIT = 2**13  # elements: blocks are whole multiples of it, and Gram matrices sum over it in turn
ROWS, COLUMNS = 4, 512
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
NUMPY |= {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"}
NUMPY |= {"BOOL": "u1"}


def decode(raw: np.ndarray, dtype: str, out: np.ndarray) -> None:
    """Stored elements (uint8) as numbers of out's type."""
    values = raw.view(NUMPY[dtype])
    if dtype != "BF16":
        np.copyto(out, values, casting="same_kind")
    elif out.dtype == np.float32:
        np.left_shift(values, 16, out=out.view(np.uint32), dtype=np.uint32)
    else:
        out[...] = np.left_shift(values, 16, dtype=np.uint32).view(np.float32)


def encode(values: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers (fp32 or float64, contiguous) in a storage type, to nearest, ties to even; bf16 as uint16."""
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return values.astype(NUMPY[dtype], copy=False)
    bits = values.astype(np.float32, copy=False).view(np.uint32)
    odd = bits >> 16
    odd &= 1
    odd += bits
    odd += 0x7FFF
    odd >>= 16
    out = odd.astype(np.uint16)
    if np.isnan(values).any():  # the carry would turn some NaN into zeros
        out[np.isnan(values)] = 0x7FC0
    return out


@dataclass(frozen=True)
class Sum:
    """One weighted sum: a weight a source, oldest first, and the storage type of floating tensors (null: as newest)."""

    weights: tuple[float, ...]
    dtype: str | None = None

    def stored(self, info: TensorInfo) -> str:
        """Storage type of a tensor in the output."""
        return info.dtype if self.dtype is None or not info.floating else self.dtype


Write = Callable[[int, str, int, np.ndarray], None]  # (sum, tensor, first element, elements in storage type)


@dataclass
class Seen:
    """What a pass learns beside its sums.

    Attributes:
        hashes: content hash of each source; see `content_hash`.
        sum_hashes: of each sum, as stored.
        grams: float64 (snapshots, snapshots) by layer: products of x_0, x_1 - x_0, x_2 - x_0, ...
        counts: floating elements by layer.
        not_finite: (source, tensor) with NaN or infinity in it.
        unequal: integer tensors that differ from the newest's: (source, tensor).
    """

    hashes: list[str] = field(default_factory=list)
    sum_hashes: list[str] = field(default_factory=list)
    grams: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    not_finite: list[tuple[int, str]] = field(default_factory=list)
    unequal: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class _Span:
    """What one span gives."""

    digests: list[bytes]
    sum_digests: list[bytes]
    gram: np.ndarray | None
    not_finite: set[int] = field(default_factory=set)
    unequal: set[int] = field(default_factory=set)


Results = dict[tuple[str, int], _Span]  # by tensor and first element


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def layer_of(tensor: str) -> str:
    """Layer of a tensor: `layers.7` of model.layers.7.mlp.up_proj.weight, or the tensor's own name."""
    match = re.search(r"(?:^|\.)((?:layers?|h|blocks?)\.\d+)\.", tensor)
    return match[1] if match else tensor


def content_hash(tensors: Mapping[str, TensorInfo], digests: Mapping[str, Sequence[bytes]]) -> str:
    """XXH3-128 over names, types, shapes and the XXH3-128 of each SPAN elements: the same for any file format."""
    total = xxhash.xxh3_128()
    for name in sorted(tensors):
        info = tensors[name]
        total.update(f"{name} {info.dtype} {list(info.shape)}".encode())
        for digest in digests[name]:
            total.update(digest)
    return f"xxh3-128:{total.hexdigest()}"


def source_hash(source: Source) -> str:
    """Content hash of a source on its own."""
    digests: dict[str, list[bytes]] = {}
    for name, info in source.tensors.items():
        digests[name] = []
        for start, count in iterate_spans(info, SPAN):
            raw = np.empty(count * SIZES[info.dtype], np.uint8)
            if count:
                source.read(name, start, raw)
            digests[name].append(xxhash.xxh3_128_digest(raw))
    return content_hash(source.tensors, digests)


class Pass:
    """One pass over `sources` (whose tensors agree in name and shape) for all of `sums`.

    Args:
        newest_only: floating tensors that are taken from the newest source instead of being averaged.
        accumulate: float32 | float64.
        memory: bytes for blocks, all threads together; at least what one UNIT of every source needs is taken.
        diagnose: whether to fill the Gram matrices.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        sums: Sequence[Sum],
        write: Write,
        *,
        newest_only: frozenset[str] = frozenset(),
        accumulate: str = "float32",
        memory: int = 2**25,
        threads: int = 1,
        diagnose: bool = True,
    ) -> None:
        self.sources, self.sums, self._write = list(sources), list(sums), write
        self._newest_only, self._diagnose, self._threads = newest_only, diagnose, threads
        self._type = np.dtype(accumulate)
        self._padded = -(-len(sums) // ROWS) * ROWS
        self._weights = self._matrix([s.weights for s in sums])
        newest = [0.0] * (len(sources) - 1) + [1.0]
        self._copy = self._matrix([newest] * len(sums))
        # X, the sums, and about as much again while the sums are encoded
        column = self._type.itemsize * (len(sources) + 3 * self._padded) + 8
        self.block = min(SPAN, max(1, memory // threads // column // UNIT) * UNIT)
        self.memory = self.block * column * threads
        self._scratch = threading.local()

    def _matrix(self, rows: Sequence[Sequence[float]]) -> np.ndarray:
        matrix = np.zeros((self._padded, len(self.sources)), self._type)
        matrix[: len(rows)] = rows
        return matrix

    def run(self, part: slice = slice(None), progress: Callable[[int], None] = lambda read: None) -> Results:
        """Work through the spans (or the part of them that is this process's); `summary` says what they show together.

        Args:
            progress: called with the bytes read since it was last called.
        """
        infos = self.sources[-1].tensors
        tasks = [(name, start, count) for name, info in infos.items() for start, count in iterate_spans(info, SPAN)]
        results: Results = {}
        with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(self._threads) as pool:
            waiting = {pool.submit(self._span, *task): task for task in tasks[part]}
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_EXCEPTION, timeout=0.2)
                for future in done:
                    name, start, count = waiting.pop(future)
                    try:
                        results[name, start] = future.result()
                    except BaseException:
                        pool.shutdown(wait=True, cancel_futures=True)
                        raise
                    progress(sum(count * SIZES[s.tensors[name].dtype] for s in self.sources))
        return results

    def summary(self, results: Results) -> Seen:
        """What all spans of all processes say together, in an order that no thread or process decides."""
        seen = Seen()
        infos = self.sources[-1].tensors
        by_tensor = {
            name: [results[name, start] for start, _ in iterate_spans(info, SPAN)] for name, info in infos.items()
        }
        for i, source in enumerate(self.sources):
            seen.hashes.append(
                content_hash(source.tensors, {k: [s.digests[i] for s in v] for k, v in by_tensor.items()})
            )
        for i, one in enumerate(self.sums):
            stored = {name: TensorInfo(one.stored(info), info.shape) for name, info in infos.items()}
            digests = {k: [s.sum_digests[i] for s in v] for k, v in by_tensor.items()}
            seen.sum_hashes.append(content_hash(stored, digests))
        for name, spans in by_tensor.items():
            seen.not_finite += [(i, name) for i in sorted(set().union(*(s.not_finite for s in spans)))]
            seen.unequal += [(i, name) for i in sorted(set().union(*(s.unequal for s in spans)))]
            if infos[name].floating:
                layer = layer_of(name)
                seen.counts[layer] = seen.counts.get(layer, 0) + infos[name].count
                for one in spans if self._diagnose else ():
                    seen.grams[layer] = seen.grams.get(layer, 0) + one.gram
        return seen

    # ---- one span ----

    def _buffers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        kept = self._scratch
        if not hasattr(kept, "x"):
            kept.x = np.zeros((len(self.sources), self.block), self._type)
            kept.out = np.zeros((self._padded, self.block), self._type)
            kept.raw = np.empty(self.block * 8, np.uint8)
        return kept.x, kept.out, kept.raw

    def _span(self, name: str, start: int, count: int) -> _Span:
        info = self.sources[-1].tensors[name]
        hashers = [xxhash.xxh3_128() for _ in self.sources]
        sum_hashers = [xxhash.xxh3_128() for _ in self.sums]
        n = len(self.sources)
        span = _Span([], [], np.zeros((n, n)) if self._diagnose and info.floating else None)
        work = self._floats if info.floating else self._integers
        for at in range(start, start + count, self.block):
            work(name, at, min(self.block, start + count - at), hashers, sum_hashers, span)
        span.digests = [h.digest() for h in hashers]
        span.sum_digests = [h.digest() for h in sum_hashers]
        return span

    def _floats(self, name: str, start: int, count: int, hashers: list, sum_hashers: list, span: _Span) -> None:
        x, out, raw = self._buffers()
        width = min(self.block, -(-count // COLUMNS) * COLUMNS)
        for i, source in enumerate(self.sources):
            dtype = source.tensors[name].dtype
            part = raw[: count * SIZES[dtype]]
            source.read(name, start, part)
            hashers[i].update(part)
            decode(part, dtype, x[i, :count])
        if width > count:
            x[:, count:width] = 0
        weights = self._copy if name in self._newest_only else self._weights
        with np.errstate(invalid="ignore", over="ignore"):
            np.matmul(weights, x[:, :width], out=out[:, :width])
        info = self.sources[-1].tensors[name]
        for i, one in enumerate(self.sums):
            stored = encode(out[i, :count], one.stored(info))
            sum_hashers[i].update(stored)
            self._write(i, name, start, stored)
        self._inspect(x[:, :count], span)

    def _inspect(self, x: np.ndarray, span: _Span) -> None:
        """Look for NaN and infinity, and add to the Gram matrix; destroys x."""
        with np.errstate(invalid="ignore", over="ignore"):
            if not np.isfinite([row @ row for row in x]).all():
                span.not_finite |= {i for i, row in enumerate(x) if not np.isfinite(row).all()}
            if span.gram is None:
                return
            x[1:] -= x[0]  # distances between snapshots are far smaller than the snapshots
            for at in range(0, x.shape[1], UNIT):
                piece = x[:, at : at + UNIT]
                span.gram += piece @ piece.T

    def _integers(self, name: str, start: int, count: int, hashers: list, sum_hashers: list, span: _Span) -> None:
        info = self.sources[-1].tensors[name]
        newest = np.empty(count * SIZES[info.dtype], np.uint8)
        self.sources[-1].read(name, start, newest)
        other = np.empty_like(newest)
        for i, source in enumerate(self.sources[:-1]):
            source.read(name, start, other)
            hashers[i].update(other)
            if not np.array_equal(newest, other):
                span.unequal.add(i)
        hashers[-1].update(newest)
        stored = newest.view(NUMPY[info.dtype])
        for i in range(len(self.sums)):
            sum_hashers[i].update(stored)
            self._write(i, name, start, stored)
