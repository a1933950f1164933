"""The inner loops of a merge, compiled: a block of all snapshots into a block of every sum, and Gram matrices.

They run without Python's lock, are compiled once for a machine and kept on its disk. Sums are rounded as IEEE 754 says,
the same bits on any processor. A sum's elements stay in registers, as a vector of VECTOR bytes, while all snapshots are
added to it: from memory, the sum would cost more than the snapshots.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from pma.merge import cached

VECTOR = 256  # bytes: eight registers of AVX2, for as many chains of additions that need not wait for each other
TILE = 256  # elements; those of all snapshots stay in the fastest cache while all sums take them
LONG = 2048  # elements, where a sum takes them from where they are


class Vector(types.Type):
    """Some consecutive numbers, fp32 or float64."""

    def __init__(self, number: types.Float) -> None:
        self.number = number
        self.lanes = VECTOR * 8 // number.bitwidth
        super().__init__(f"Vector({number})")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        number = ir.FloatType() if kind.number == types.float32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(number, kind.lanes))


def _vector(kind: Vector, of: ir.Type) -> ir.VectorType:
    return ir.VectorType(of, kind.lanes)


def _all(builder, value, kind: Vector):
    """A vector with one value in every place."""
    single = builder.insert_element(ir.Constant(_vector(kind, value.type), ir.Undefined), value, ir.IntType(32)(0))
    places = ir.Constant(_vector(kind, ir.IntType(32)), [0] * kind.lanes)
    return builder.shuffle_vector(single, single, places)


def _constant(kind: Vector, bits: int, value: int):
    return ir.Constant(_vector(kind, ir.IntType(bits)), [value] * kind.lanes)


def _place(context, builder, kind, array, row, column, vector: ir.VectorType):
    """Address of a vector in a contiguous matrix."""
    matrix = context.make_array(kind)(context, builder, array)
    index = builder.add(builder.mul(row, builder.extract_value(matrix.shape, 1)), column)
    return builder.bitcast(builder.gep(matrix.data, [index]), vector.as_pointer())


@intrinsic
def _zeros(typing, like):
    """A vector of zeros of the type of an array."""
    kind = Vector(like.dtype)
    return kind(like), lambda context, builder, signature, args: ir.Constant(context.get_value_type(kind), None)


@intrinsic
def _load(typing, x, row, column, like):
    """The numbers that begin at a place of a matrix (numbers as in `like`, or the bits of bf16 as fp32 numbers)."""
    kind = Vector(like.dtype)

    def code(context, builder, signature, args):
        stored = ir.IntType(16) if x.dtype == types.uint16 else context.get_value_type(x.dtype)
        place = _place(context, builder, x, *args[:3], _vector(kind, stored))
        values = builder.load(place, align=x.dtype.bitwidth // 8)
        if x.dtype == types.uint16:
            wide = builder.zext(values, _vector(kind, ir.IntType(32)))
            values = builder.bitcast(builder.shl(wide, _constant(kind, 32, 16)), _vector(kind, ir.FloatType()))
            if kind.number == types.float64:
                values = builder.fpext(values, _vector(kind, ir.DoubleType()))
        return values

    return kind(x, types.intp, types.intp, like), code


@intrinsic
def _store(typing, x, row, column, vector):
    """Put numbers into a matrix of their type; or into one of uint16 as the bits of bf16 (from float64 by way of fp32),
    to nearest, ties to even; NaN stays NaN."""

    def code(context, builder, signature, args):
        values = args[3]
        if x.dtype == types.uint16:
            if vector.number == types.float64:
                values = builder.fptrunc(values, _vector(vector, ir.FloatType()))
            values = _rounded(builder, values, vector)
        place = _place(context, builder, x, *args[:3], values.type)
        builder.store(values, place, align=x.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(x, types.intp, types.intp, vector), code


def _rounded(builder, values, kind: Vector):
    bits = builder.bitcast(values, _vector(kind, ir.IntType(32)))
    odd = builder.and_(builder.lshr(bits, _constant(kind, 32, 16)), _constant(kind, 32, 1))
    up = builder.add(builder.add(bits, _constant(kind, 32, 0x7FFF)), odd)
    nan = builder.fcmp_unordered("uno", values, values)
    chosen = builder.select(nan, _constant(kind, 32, 0x7FC00000), up)
    return builder.trunc(builder.lshr(chosen, _constant(kind, 32, 16)), _vector(kind, ir.IntType(16)))


@intrinsic
def _fma(typing, factor, x, total):
    """factor * x + total, rounded once, of a number and two vectors."""

    def code(context, builder, signature, args):
        kind = args[1].type
        name = f"llvm.fma.v{x.lanes}f{x.number.bitwidth}"
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(fma, [_all(builder, args[0], x), args[1], args[2]])

    return x(x.number, x, total), code


@intrinsic
def _any_nan(typing, vector):
    """Whether one of the numbers is NaN."""

    def code(context, builder, signature, args):
        bits = builder.bitcast(builder.fcmp_unordered("uno", args[0], args[0]), ir.IntType(vector.lanes))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(vector), code


@njit(nogil=True, inline="always")
def _used(weights):
    """For each sum the snapshots with a weight, and how many these are; and the snapshots without any."""
    many, n = weights.shape
    used, count, free = np.zeros((many, n), np.intp), np.zeros(many, np.intp), np.ones(n, np.bool_)
    for r in range(many):
        for i in range(n):
            if weights[r, i] != 0:
                used[r, count[r]] = i
                count[r] += 1
                free[i] = False
    return used, count, np.flatnonzero(free)


@cached.compiled()
def _sum(x, at, width, weights, r, used, count, out, to):
    """out[r, to:] = the chain of fma(weights[r, i], x[i, at:], sum) from 0 on, over all i whose weight is not 0.

    Returns:
        Whether no element is infinite or NaN.
    """
    zero = _zeros(weights)  # 0 times all elements: NaN where one is infinite or NaN
    for j in range(0, width, VECTOR // weights.itemsize):
        total = _zeros(weights)
        for k in range(count[r]):
            i = used[r, k]
            total = _fma(weights[r, i], _load(x, i, at + j, weights), total)
        zero = _fma(weights.dtype.type(0), total, zero)
        _store(out, r, to + j, total)
    return not _any_nan(zero)


@njit(nogil=True, inline="always")
def _sums(x, at, width, weights, used, count, wide, narrow, to):
    """All sums of whole vectors of elements; whether none is infinite or NaN."""
    finite = True
    for r in range(len(weights)):
        if narrow.shape[1] > 0:
            finite &= _sum(x, at, width, weights, r, used, count, narrow, to)
        else:
            finite &= _sum(x, at, width, weights, r, used, count, wide, to)
    return finite


@cached.compiled()
def _copy(to, begin, x, at, width):
    for i in range(len(x)):
        for j in range(width):
            to[i, begin + j] = x[i, at + j]


@cached.compiled()
def _widen(source, at, width, weights, x):
    """x = the elements of all snapshots as numbers of the weights' type."""
    for i in range(len(source)):
        for j in range(0, width, VECTOR // weights.itemsize):
            _store(x, i, j, _load(source, i, at + j, weights))


@njit(nogil=True, inline="always")
def _finite(x, i, width, weights):
    zero = _zeros(weights)
    for j in range(0, width, VECTOR // weights.itemsize):
        zero = _fma(weights.dtype.type(0), _load(x, i, j, weights), zero)
    return not _any_nan(zero)


@cached.compiled()
def _blend(source, weights, wide, narrow, samples, first, step):
    n, width = source.shape
    used, count, unused = _used(weights)
    direct = len(weights) <= 2 and len(unused) == 0  # to widen elements once for all sums is no gain for so few
    tile = LONG if direct else TILE
    x = np.empty((n, tile), weights.dtype)
    finite = True
    for at in range(0, width, tile):
        many = min(tile, width - at)
        place = (at - first) % step if step > 0 and at >= first else samples.shape[2]
        sampled = place < samples.shape[2]
        taken, begin, to_wide, to_narrow, to = source, at, wide, narrow, at
        if many < tile:  # the last elements, with zeros behind them
            taken, begin, to = np.zeros((n, tile), source.dtype), 0, 0
            _copy(taken, 0, source, at, many)
            to_wide = np.empty((len(wide), tile if wide.shape[1] > 0 else 0), wide.dtype)
            to_narrow = np.empty((len(narrow), tile if narrow.shape[1] > 0 else 0), narrow.dtype)
        if direct and not sampled:
            finite &= _sums(taken, begin, tile, weights, used, count, to_wide, to_narrow, to)
        else:
            _widen(taken, begin, tile, weights, x)
            finite &= _sums(x, 0, tile, weights, used, count, to_wide, to_narrow, to)
            for i in unused:
                finite &= _finite(x, i, tile, weights)
        if many < tile:
            _copy(narrow, at, to_narrow, 0, min(many, narrow.shape[1]))
            _copy(wide, at, to_wide, 0, min(many, wide.shape[1]))
        if sampled:
            _copy(samples[(at - first) // step], place, x, 0, many)
    return finite


def blend(numbers, bits, weights, wide, narrow, samples, first, step):
    """sum_i weights[r, i] * x_i for every r, where a weight of 0 leaves x_i out whatever it holds.

    Args:
        numbers, bits: the snapshots x, (snapshots, elements), contiguous: numbers of the weights' type, or the bits of
            bf16; the other one has no elements.
        weights: (sums, snapshots), fp32 or float64: what is summed in.
        wide, narrow: the sums, (sums, elements), contiguous: numbers of the weights' type, or the bits of bf16; the
            other one has no elements.
        samples: (units, snapshots, elements of a unit): takes the units of elements of x that begin at `first` and
            every `step` elements after it, all multiples of LONG. Step 0 takes none.

    Returns:
        Whether all values of x are finite; where only sums were looked at, an overflow of these also gives False.
    """
    if bits.shape[1] > 0:
        return _blend(bits, weights, wide, narrow, samples, first, step)
    return _blend(numbers, weights, wide, narrow, samples, first, step)


@cached.compiled(fastmath={"reassoc", "contract"})
def _dot(x, y):
    total = x.dtype.type(0)
    for j in range(len(x)):
        total += x[j] * y[j]
    return total


@cached.compiled()
def _subtract(x, y):
    for j in range(len(x)):
        x[j] -= y[j]


@cached.compiled()
def add_gram(x, width, gram):
    """Add the products of the deviations x_0, x_1 - x_0, x_2 - x_0, ... to gram (snapshots, snapshots), float64.

    Args:
        x: (snapshots, elements), of which the first `width` count; destroyed. Distances between snapshots are far
            smaller than the snapshots, so that products of these would drown them.
    """
    n = len(x)
    for at in range(0, width, TILE):
        end = min(at + TILE, width)
        for i in range(1, n):
            _subtract(x[i, at:end], x[0, at:end])
        for i in range(n):
            for k in range(i + 1):
                value = _dot(x[i, at:end], x[k, at:end])
                gram[i, k] += value
                if k < i:
                    gram[k, i] += value


def load(accumulate: np.dtype, bf16: bool) -> None:
    """Load what is compiled, which its first call does more slowly; for snapshots in bf16, or as numbers."""
    none, bits = np.empty((1, 0), accumulate), np.empty((1, 0), np.uint16)
    cached.load(_blend, bits if bf16 else none, none, none, bits, np.empty((0, 1, 0), accumulate), 0, 0)
    cached.load(add_gram, none, 0, np.zeros((1, 1)))
