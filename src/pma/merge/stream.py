"""The pass over the snapshots: every input byte read once, any number of weighted sums out, in bounded memory.

A merge is linear in its inputs. The tensors are cut into spans of SPAN elements, worked on by threads; a span goes
through memory a block at a time: that of every snapshot is read and hashed, then all are added up into every merge
(pma.merge.kernels). For the distances between snapshots, one UNIT of elements in SAMPLED is also multiplied into the
Gram matrix of the snapshots' deviations (of tensors up to WHOLE elements, all).

Bits: an element of a merge is the chain acc = fma(w_i, x_i, acc) over the snapshots with a weight, oldest first, in
fp32 (or float64), whatever block, thread, process or processor works on it and whichever merges share the pass.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np
import xxhash

from pma.merge import kernels
from pma.merge.formats import SIZES, Source, TensorInfo, iterate_spans

SPAN = 2**22  # elements: the unit of work and of hashing
BLOCK = 2**17  # elements of every snapshot in memory at a time, at most
UNIT = 2**13  # elements: blocks are whole multiples of it
WHOLE, SAMPLED = 2**17, 8
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
NUMPY |= {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"}
NUMPY |= {"BOOL": "u1"}


def _convert(raw: np.ndarray, dtype: str, out: np.ndarray) -> None:
    values = raw.view(NUMPY[dtype])
    if dtype == "BF16":
        values = np.left_shift(values, 16, dtype=np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        np.copyto(out, values, casting="same_kind")


def _all_finite(numbers: np.ndarray, bits: np.ndarray) -> bool:
    return bool(np.isfinite(numbers).all() and (bits & 0x7F80 != 0x7F80).all())


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
        grams: float64 (snapshots, snapshots) by layer: products of x_0, x_1 - x_0, x_2 - x_0, ...; of large tensors
            scaled up from the elements that are looked at.
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


def _step(whole: int) -> int:
    """Elements from one unit that Gram matrices look at to the next, of a tensor of `whole` elements."""
    return UNIT if whole <= WHOLE else SAMPLED * UNIT


def _scale(whole: int) -> float:
    """Elements of a tensor for each that Gram matrices look at."""
    return whole / max(1, sum(min(UNIT, whole - at) for at in range(0, whole, _step(whole))))


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


_pass: Pass  # of a forked child


def _inherit(work: Pass) -> None:
    global _pass
    _pass = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nobody is left behind by a killed parent


def _inherited_span(name: str, start: int, count: int) -> _Span:
    return _pass._span(name, start, count)


class Pass:
    """One pass over `sources` (whose tensors agree in name and shape) for all of `sums`.

    Args:
        newest_only: floating tensors that are taken from the newest source instead of being averaged.
        accumulate: float32 | float64.
        memory: bytes for blocks, all threads together; at least what one UNIT of every source and sum needs is taken.
        threads: blocks at a time.
        processes: whether `write` also works from a forked process, so that these may stand in for threads.
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
        memory: int = 2**23,
        threads: int = 1,
        processes: bool = False,
        diagnose: bool = True,
    ) -> None:
        self.sources, self.sums, self._write = list(sources), list(sums), write
        self._newest_only, self._diagnose = newest_only, diagnose
        self._threads, self._processes = threads, processes
        self._type = np.dtype(accumulate)
        self._weights = np.array([s.weights for s in sums], self._type)
        self._copy = np.zeros_like(self._weights)
        self._copy[:, -1] = 1
        # An element: of every source as read, and sampled; of every sum as stored.
        floats = [info.dtype for source in sources for info in source.tensors.values() if info.floating]
        read = max((SIZES[dtype] for dtype in floats), default=self._type.itemsize)
        assert len({one.dtype for one in sums}) == 1  # the kernels store all sums alike
        narrow = sums[0].dtype == "BF16"
        element = len(sources) * (read + self._type.itemsize / SAMPLED)
        element += len(sums) * (SIZES["BF16"] if narrow else self._type.itemsize)
        units = min(BLOCK // UNIT, max(1, int(memory / threads / element / UNIT)))
        self._samples = -(-units // SAMPLED) if diagnose else 0  # at most, in one block
        self.block = units * UNIT
        self.memory = int(self.block * element) * threads
        self._scratch = threading.local()

    def run(self, part: slice = slice(None), progress: Callable[[int], None] = lambda read: None) -> Results:
        """Work through the spans (or the part of them that is this process's); `summary` says what they show together.

        Args:
            progress: called with the bytes read since it was last called.
        """
        infos = self.sources[-1].tensors
        tasks = [(name, start, count) for name, info in infos.items() for start, count in iterate_spans(info, SPAN)]
        results: Results = {}
        with self._pool() as pool:
            work = self._span if isinstance(pool, ThreadPoolExecutor) else _inherited_span
            waiting = {pool.submit(work, *task): task for task in tasks[part]}
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

    def _pool(self) -> Executor:
        # Processes where that is safe, for threads wait for Python's lock a fifth of the time. A forked child has what
        # it works on at once; but a program with torch's threads in it must not be forked.
        can = self._processes and self._threads > 1 and "fork" in multiprocessing.get_all_start_methods()
        if not can or "torch" in sys.modules:
            return ThreadPoolExecutor(self._threads)
        context = multiprocessing.get_context("fork")
        types = {i.dtype for source in self.sources for i in source.tensors.values() if i.floating}
        kernels.load(self._type, bf16=types == {"BF16"})  # once, not in every child
        return ProcessPoolExecutor(self._threads, context, initializer=_inherit, initargs=(self,))

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
                    seen.grams[layer] = seen.grams.get(layer, 0) + one.gram * _scale(infos[name].count)
        return seen

    # ---- one span ----

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """Memory of this thread that is used again and again."""
        kept = self._scratch.__dict__
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if name not in kept or kept[name].nbytes < size:
            kept[name] = np.empty(size, np.uint8)
        return kept[name][:size].view(dtype).reshape(shape)

    def _span(self, name: str, start: int, count: int) -> _Span:
        info = self.sources[-1].tensors[name]
        hashers = [xxhash.xxh3_128() for _ in self.sources]
        sum_hashers = [xxhash.xxh3_128() for _ in self.sums]
        n = len(self.sources)
        span = _Span([], [], np.zeros((n, n)) if self._diagnose and info.floating else None)
        work = self._floats if info.floating else self._integers
        # Where every unit is sampled, blocks are as short as the room for samples.
        block = self._samples * UNIT if span.gram is not None and info.count <= WHOLE else self.block
        for at in range(start, start + count, block):
            work(name, at, min(block, start + count - at), hashers, sum_hashers, span)
        span.digests = [h.digest() for h in hashers]
        span.sum_digests = [h.digest() for h in sum_hashers]
        return span

    def _read(self, name: str, start: int, count: int, hashers: list) -> tuple[np.ndarray, np.ndarray]:
        """A block of every source: as numbers, and as the bits of bf16; one of them has no elements."""
        types = [source.tensors[name].dtype for source in self.sources]
        n, plain = len(types), {4: "F32", 8: "F64"}[self._type.itemsize]
        alike = types[0] if len(set(types)) == 1 else ""
        values = self._buffer("values", (n, count), self._type if alike != "BF16" else np.uint16)
        for i, (source, dtype) in enumerate(zip(self.sources, types, strict=True)):
            whole = alike in (plain, "BF16")  # read to where it is summed from; else converted on the way there
            part = values[i].view(np.uint8) if whole else self._buffer("part", (count * SIZES[dtype],), np.uint8)
            source.read(name, start, part)
            hashers[i].update(part)
            if not whole:
                _convert(part, dtype, values[i])
        none = np.empty((n, 0), np.uint16), np.empty((n, 0), self._type)
        return (none[1], values) if alike == "BF16" else (values, none[0])

    def _floats(self, name: str, start: int, count: int, hashers: list, sum_hashers: list, span: _Span) -> None:
        info = self.sources[-1].tensors[name]
        n, many, stored = len(self.sources), len(self.sums), self.sums[0].stored(info)
        numbers, bits = self._read(name, start, count, hashers)
        step = 0 if span.gram is None else _step(info.count)
        first = -start % step if step else 0
        samples = self._buffer("samples", (self._samples, n, UNIT), self._type)
        narrow = stored == "BF16"
        wide = self._buffer("sums", (many, 0 if narrow else count), self._type)
        short = self._buffer("short", (many, count if narrow else 0), np.uint16)
        weights = self._copy if name in self._newest_only else self._weights
        if not kernels.blend(numbers, bits, weights, wide, short, samples, first, step):
            span.not_finite.update(i for i in range(n) if not _all_finite(numbers[i], bits[i]))
        for i in range(many):
            with np.errstate(over="ignore"):
                values = short[i] if narrow else wide[i].astype(NUMPY[stored], copy=False)
            sum_hashers[i].update(values)
            self._write(i, name, start, values)
        if step and not span.not_finite:
            for k, at in enumerate(range(first, count, step)):
                kernels.add_gram(samples[k], min(UNIT, count - at), span.gram)

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
