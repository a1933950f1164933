"""The pass over the snapshots: every input byte read once, any number of weighted sums out, in bounded memory.

A merge is linear in its inputs. The tensors are cut into spans (pma.merge.formats.SPAN) that threads or processes work
on. A span goes through memory a block at a time: the block of every snapshot is read and hashed, then all are added up
into every merge (pma.merge.kernels). For the distances between snapshots, parts of the blocks are also multiplied into
the Gram matrix of the snapshots' deviations (pma.merge.summary says which).

Bits: an element of a merge is the chain acc = fma(w_i, x_i, acc) over the snapshots with a weight, oldest first, in
fp32 (or float64), whatever block, thread, process or processor works on it and whichever merges share the pass.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, ThreadPoolExecutor, wait

import numpy as np
import xxhash

from pma.merge import kernels
from pma.merge.formats import SIZES, Source, iterate_spans
from pma.merge.summary import SAMPLED, UNIT, Results, SpanResult, Sum, gram_step

BLOCK = 2**17  # elements of every snapshot in memory at a time, at most
FORK = 2**25  # bytes of input from which processes are worth their start
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
NUMPY |= {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"}
NUMPY |= {"BOOL": "u1"}
# Stored numbers as unsigned and signed integers, and the bits of the exponent, all set in infinity and NaN alone.
_BITS = {"F64": ("<u8", "<i8", 0x7FF << 52), "F32": ("<u4", "<i4", 0xFF << 23)}
_BITS |= {"BF16": ("<u2", "<i2", 0xFF << 7), "F16": ("<u2", "<i2", 0x1F << 10)}
_SIGN = {dtype: 1 << (8 * SIZES[dtype] - 1) for dtype in _BITS}

Write = Callable[[int, str, int, np.ndarray], None]  # (sum, tensor, first element, elements in storage type)


def _convert(raw: np.ndarray, dtype: str, out: np.ndarray) -> None:
    values = raw.view(NUMPY[dtype])
    if dtype == "BF16":
        values = np.left_shift(values, 16, dtype=np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        np.copyto(out, values, casting="same_kind")


def _finite(values: np.ndarray, dtype: str) -> np.ndarray:
    """Which elements, as stored in a floating type, are neither infinite nor NaN."""
    unsigned, _, exponent = _BITS[dtype]
    return values.view(unsigned) & exponent != exponent


_pass: Pass  # of a forked child


def _inherit(work: Pass) -> None:
    global _pass
    _pass = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nobody is left behind by a killed parent


def _inherited_span(name: str, start: int, count: int) -> SpanResult:
    return _pass._span(name, start, count)


class Pass:
    """One pass over `sources` (whose tensors agree in name and shape) for all of `sums`.

    Args:
        newest_only: floating tensors that are taken from the newest source instead of being averaged.
        accumulate: float32 | float64.
        memory: bytes for blocks, all threads together; at least what one UNIT of every source and sum needs is taken.
        threads: blocks at a time.
        processes: whether `write` also works from a forked process, so that these may stand in for threads.
        grams: whether to fill the Gram matrices.

    Attributes:
        block: elements of each source in memory at a time, for each thread.
        memory: bytes that the blocks of all threads take.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        sums: Sequence[Sum],
        *,
        newest_only: frozenset[str] = frozenset(),
        accumulate: str = "float32",
        memory: int = 2**23,
        threads: int = 1,
        processes: bool = False,
        grams: bool = True,
    ) -> None:
        self.sources, self.sums = list(sources), list(sums)
        self._newest_only, self._grams = newest_only, grams
        self._threads, self._processes = threads, processes
        self._type = np.dtype(accumulate)
        self._holds = {"F64", "F32"} if self._type == np.float32 else {"F64"}  # all finite sums
        self._weights = np.array([s.weights for s in sums], self._type)
        self._copy = np.zeros_like(self._weights)
        self._copy[:, -1] = 1
        # An element: of every source as read, and sampled; of every sum as stored.
        floats = [info.dtype for source in sources for info in source.tensors.values() if info.floating]
        read = max((SIZES[dtype] for dtype in floats), default=self._type.itemsize)
        assert len({weighted.dtype for weighted in sums}) == 1  # the kernels store all sums alike
        narrow = sums[0].dtype == "BF16"
        element = len(sources) * (read + self._type.itemsize / SAMPLED)
        element += len(sums) * (SIZES["BF16"] if narrow else self._type.itemsize)
        units = min(BLOCK // UNIT, max(1, int(memory / threads / element / UNIT)))
        self._samples = -(-units // SAMPLED) if grams else 0  # at most, in one block
        self.block = units * UNIT
        self.memory = int(self.block * element) * threads
        self._scratch = threading.local()
        self._write: Write = lambda *block: None  # until `run` is told where to

    def run(
        self, write: Write, part: slice = slice(None), progress: Callable[[int], None] = lambda read: None
    ) -> Results:
        """Work through the spans, or the part of them that is this process's; `summarize` puts the results together.

        Args:
            write: called with each block of each sum, from any thread or forked process.
            progress: called with the bytes read since it was last called.
        """
        self._write = write
        infos = self.sources[-1].tensors
        tasks = [(name, start, count) for name, info in infos.items() for start, count in iterate_spans(info)]
        results: Results = {}
        for bf16 in {self._is_bf16(name) for name, info in infos.items() if info.floating}:
            kernels.load(self._type, bf16)  # once, before any thread or child needs it
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
        if not can or "torch" in sys.modules or self.input_bytes < FORK:
            return ThreadPoolExecutor(self._threads)
        from concurrent.futures import ProcessPoolExecutor  # slow to import

        context = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(self._threads, context, initializer=_inherit, initargs=(self,))

    @property
    def input_bytes(self) -> int:
        """Bytes of all sources."""
        return sum(info.nbytes for source in self.sources for info in source.tensors.values())

    def _is_bf16(self, name: str) -> bool:
        """Whether a tensor is summed from the bits of bf16, which it is where all sources hold it so."""
        return all(source.tensors[name].dtype == "BF16" for source in self.sources)

    # ---- one span ----

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """Memory of this thread that is used again and again."""
        kept = self._scratch.__dict__
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if name not in kept or kept[name].nbytes < size:
            kept[name] = np.empty(size, np.uint8)
        return kept[name][:size].view(dtype).reshape(shape)

    def _span(self, name: str, start: int, count: int) -> SpanResult:
        info = self.sources[-1].tensors[name]
        hashers = [xxhash.xxh3_128() for _ in self.sources]
        sum_hashers = [xxhash.xxh3_128() for _ in self.sums]
        n = len(self.sources)
        span = SpanResult(np.zeros((n, n)) if self._grams and info.floating else None)
        work = self._floats if info.floating else self._integers
        # Where every unit is sampled, blocks are as short as the room for samples.
        block = self._samples * UNIT if span.gram is not None and gram_step(info.count) == UNIT else self.block
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

    def _floats(self, name: str, start: int, count: int, hashers: list, sum_hashers: list, span: SpanResult) -> None:
        info = self.sources[-1].tensors[name]
        n, many, stored = len(self.sources), len(self.sums), self.sums[0].stored(info)
        numbers, bits = self._read(name, start, count, hashers)
        step = 0 if span.gram is None else gram_step(info.count)
        first = -start % step if step else 0
        samples = self._buffer("samples", (self._samples, n, UNIT), self._type)
        narrow = stored == "BF16"
        wide = self._buffer("sums", (many, 0 if narrow else count), self._type)
        short = self._buffer("short", (many, count if narrow else 0), np.uint16)
        weights = self._copy if name in self._newest_only else self._weights
        finite = kernels.blend(numbers, bits, weights, wide, short, samples, first, step)
        if not finite:
            span.not_finite.update(i for i in range(n) if not self._finite(i, numbers, bits).all())
        for i in range(many):
            with np.errstate(over="ignore"):
                values = short[i] if narrow else wide[i].astype(NUMPY[stored], copy=False)
            if (not finite or stored not in self._holds) and self._overflows(values, stored, weights[i], numbers, bits):
                span.overflown.add(i)
            sum_hashers[i].update(values)
            self._write(i, name, start, values)
        if step and not span.not_finite:
            for k, at in enumerate(range(first, count, step)):
                kernels.add_gram(samples[k], min(UNIT, count - at), span.gram)

    def _finite(self, source: int, numbers: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Which elements of a source's block are finite, as `_read` returned them."""
        return _finite(bits[source], "BF16") if bits.size else np.isfinite(numbers[source])

    def _overflows(
        self, values: np.ndarray, stored: str, weights: np.ndarray, numbers: np.ndarray, bits: np.ndarray
    ) -> bool:
        """Whether a stored element is infinite or NaN though all the numbers that it was made of are finite."""
        unsigned, signed, exponent = _BITS[stored]
        if values.view(signed).max() < exponent and values.view(unsigned).max() < (exponent | _SIGN[stored]):
            return False  # the quick way: of both signs the bits ascend with the size, infinity and NaN last
        clean = ~_finite(values, stored)
        for i in np.flatnonzero(weights):
            clean &= self._finite(i, numbers, bits)
        return bool(clean.any())

    def _integers(self, name: str, start: int, count: int, hashers: list, sum_hashers: list, span: SpanResult) -> None:
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
