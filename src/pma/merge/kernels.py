"""The inner loops of a merge, compiled: a block of all snapshots into a block of every sum, and Gram matrices.

They run without Python's lock, are compiled once for a machine and kept beside this file. Sums are rounded as IEEE 754
says, the same bits on any processor.
"""

from __future__ import annotations

import sys

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

TILE = 1024  # elements; those of several snapshots stay in the fastest cache while all sums take them


@intrinsic
def _fma(typing, a, b, c):
    """a * b + c, rounded once."""
    if not isinstance(a, types.Float) or a != b or a != c:
        raise TypeError("fma of one floating type")
    return a(a, b, c), lambda context, builder, signature, args: builder.fma(*args)


@intrinsic
def _as_float(typing, bits):
    """The fp32 number of 32 bits."""
    if bits != types.uint32:
        raise TypeError("32 bits")
    to = cgutils.ir.FloatType()
    return types.float32(bits), lambda context, builder, signature, args: builder.bitcast(args[0], to)


@intrinsic
def _as_bits(typing, number):
    """The 32 bits of an fp32 number."""
    if number != types.float32:
        raise TypeError("an fp32 number")
    to = cgutils.ir.IntType(32)
    return types.uint32(number), lambda context, builder, signature, args: builder.bitcast(args[0], to)


@njit(nogil=True, cache=True)
def _from_bf16(bits, x):
    for j in range(len(bits)):
        x[j] = _as_float(np.uint32(np.uint32(bits[j]) << np.uint32(16)))


@njit(nogil=True, cache=True)
def _watch(x, width, zero):
    # Kept by position: one number for all would be a chain of additions that wait for each other.
    for j in range(width):
        zero[j] = _fma(zero.dtype.type(0), x[j], zero[j])


@njit(nogil=True, cache=True)
def _sums_tell(weights):
    """Whether every snapshot has a weight in some sum, and sums are fewer: what is not finite then shows in a sum."""
    many, n = weights.shape
    told = 0
    for i in range(n):
        for r in range(many):
            if weights[r, i] != 0:
                told += 1
                break
    return many < n and told == n


@njit(nogil=True, cache=True)
def to_bf16(values, out):
    """Numbers to the bits of bf16 (from float64 by way of fp32), to nearest, ties to even; NaN stays NaN."""
    for j in range(len(values)):
        b = _as_bits(np.float32(values[j]))
        rounded = np.uint32(b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        out[j] = np.uint16(0x7FC0) if (b & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000) else np.uint16(rounded)


@njit(nogil=True, cache=True)
def _copy(to, x):
    for j in range(len(x)):
        to[j] = x[j]


# Rows are passed as an array and a number: a slice costs as much as a short loop over it.


@njit(nogil=True, cache=True)
def _chain(row, width, x, i, w):
    for j in range(width):
        row[j] = _fma(w, x[i, j], row[j])


@njit(nogil=True, cache=True)
def _chain_4(row, width, x, i, w_0, w_1, w_2, w_3):
    for j in range(width):
        row[j] = _fma(w_3, x[i + 3, j], _fma(w_2, x[i + 2, j], _fma(w_1, x[i + 1, j], _fma(w_0, x[i, j], row[j]))))


@njit(nogil=True, cache=True)
def _sum(row, width, x, w, r):
    """row = the chain of fma(w[r, i], x_i, row) from 0 on, over all i whose weight is not 0."""
    for j in range(width):
        row[j] = 0
    i, n = 0, len(x)
    while i < n:
        if i + 3 < n and w[r, i] != 0 and w[r, i + 1] != 0 and w[r, i + 2] != 0 and w[r, i + 3] != 0:
            _chain_4(row, width, x, i, w[r, i], w[r, i + 1], w[r, i + 2], w[r, i + 3])
            i += 4
        else:
            if w[r, i] != 0:
                _chain(row, width, x, i, w[r, i])
            i += 1


@njit(nogil=True, cache=True)
def blend(numbers, bits, weights, wide, narrow, samples, first, step):
    """sum_i weights[r, i] * x_i for every r, where a weight of 0 leaves x_i out whatever it holds.

    Args:
        numbers, bits: the snapshots x, (snapshots, elements), contiguous: numbers of the weights' type, or the bits of
            bf16; the other one has no elements.
        weights: (sums, snapshots), fp32 or float64: what is summed in.
        wide, narrow: the sums, (sums, elements), contiguous: numbers of the weights' type, or the bits of bf16; the
            other one has no elements.
        samples: (units, snapshots, elements of a unit): takes the units of elements of x that begin at `first` and
            every `step` elements after it, all multiples of TILE. Step 0 takes none.

    Returns:
        Whether all values of x are finite; where only sums were looked at, an overflow of these also gives False.
    """
    n, coded = weights.shape[1], bits.shape[1] > 0
    width = bits.shape[1] if coded else numbers.shape[1]
    x = np.empty((n, TILE), weights.dtype)
    zero = np.zeros(TILE, weights.dtype)  # 0 times all values: NaN where one is infinite or NaN
    sums_tell = _sums_tell(weights)
    row = np.empty(TILE, weights.dtype)
    for at in range(0, width, TILE):
        end = min(at + TILE, width)
        many = end - at
        for i in range(n):
            if coded:
                _from_bf16(bits[i, at:end], x[i])
            else:
                _copy(x[i], numbers[i, at:end])
            if not sums_tell:
                _watch(x[i], many, zero)
        for r in range(len(weights)):
            _sum(row, many, x, weights, r)
            if sums_tell:
                _watch(row, many, zero)
            if narrow.shape[1] > 0:
                to_bf16(row[:many], narrow[r, at:end])
            else:
                _copy(wide[r, at:end], row[:many])
        if step > 0 and at >= first and (at - first) % step < samples.shape[2]:
            unit, place = (at - first) // step, (at - first) % step
            for i in range(n):
                _copy(samples[unit, i, place : place + many], x[i, :many])
    return not np.isnan(zero).any()


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _dot(x, y):
    total = x.dtype.type(0)
    for j in range(len(x)):
        total += x[j] * y[j]
    return total


@njit(nogil=True, cache=True)
def _subtract(x, y):
    for j in range(len(x)):
        x[j] -= y[j]


@njit(nogil=True, cache=True)
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


def load(blas: bool = True) -> None:
    """Load what is compiled, which its first call does otherwise.

    Args:
        blas: whether numba may look for scipy's BLAS, for code of others in this process: nothing here uses it, and it
            takes a quarter of a second to import.
    """
    hidden = not blas and "scipy.linalg" not in sys.modules
    if hidden:
        sys.modules["scipy.linalg"] = None
    try:
        none, bits = np.empty((1, 0), np.float32), np.empty((1, 0), np.uint16)
        blend(none, bits, none, none, bits, np.empty((0, 1, 0), np.float32), 0, 0)
        add_gram(none, 0, np.zeros((1, 1)))
    finally:
        if hidden:
            del sys.modules["scipy.linalg"]
