"""Products of a few rows with a packed matrix, inside compiled code: what a decode step on a CPU is made of.

A general BLAS is tuned for large matrices; for 4 to 32 rows it spends half its time packing and dispatching. Here the
matrix is packed once, into panels of 16 columns, and a register block of `rows` x 16 runs down a panel, which reaches
about 90 % of a core's peak at any number of rows. Every element is one chain of fused multiply-adds in the order of k,
whatever the other rows are: results do not depend, to the bit, on what else is in the batch. Not in: threads (the
caller splits rows), other types than float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

PANEL = 16
"""Columns of a panel: two vectors of 8, which any 128-, 256- or 512-bit machine divides as it likes."""
BLOCK = 4
"""Rows of a register block: 4 x 16 sums fill the registers of an AVX2 core."""
_LANES = 8

FAST = {"reassoc", "contract", "arcp", "nsz"}
"""Reordering of sums is allowed in compiled loops; assuming that nothing is NaN or infinite is not."""


def padded(size: int, multiple: int = PANEL) -> int:
    """`size` rounded up to a multiple."""
    return -(-size // multiple) * multiple


def pack(matrix: np.ndarray) -> np.ndarray:
    """A matrix [..., K, N] as panels [..., ceil(N / 16), K, 16], zero-padded on the right; float32, contiguous."""
    *lead, k, n = matrix.shape
    wide = np.zeros((*lead, k, padded(n)), dtype=np.float32)
    wide[..., :n] = matrix
    panels = wide.reshape(*lead, k, padded(n) // PANEL, PANEL)
    return np.ascontiguousarray(np.moveaxis(panels, -2, -3))


def _register_block(rows: int, chains: int, add: bool) -> Any:
    """An intrinsic `block(a, row, panel, c, c_row, column, size)`.

    c[c_row:c_row+rows, column:column+16] = a[row:row+rows, :size] @ panel[:size], added to what is there if `add`.
    chains: independent sums per element, interleaved over k (which `size` must be a multiple of), to hide the latency
    of the additions where rows alone are too few.
    """

    @intrinsic  # type: ignore[misc]
    def block(typingctx: Any, a: Any, row: Any, panel: Any, c: Any, c_row: Any, column: Any, size: Any) -> Any:
        signature = types.void(a, types.intp, panel, c, types.intp, types.intp, types.intp)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            a_struct, panel_struct, c_struct = (
                context.make_array(kind)(context, builder, value)
                for kind, value in ((a, args[0]), (panel, args[2]), (c, args[3]))
            )
            row, c_row, column, size = args[1], args[4], args[5], args[6]
            a_rows = [_address(builder, a_struct, builder.add(row, _int(r)), None) for r in range(rows)]
            c_rows = [_address(builder, c_struct, builder.add(c_row, _int(r)), column) for r in range(rows)]
            start = builder.ptrtoint(panel_struct.data, _INT)
            zero = ir.Constant(_VECTOR, [0.0] * _LANES)
            sums = [[zero] * (2 * rows) for _ in range(chains)]
            if add:
                sums[0] = [_load(builder, c_rows[r], v) for r in range(rows) for v in range(2)]
            sums = _down_the_panel(builder, a_rows, start, size, sums)
            total = sums[0]
            for chain in sums[1:]:
                total = [builder.fadd(x, y) for x, y in zip(total, chain, strict=True)]
            for index, value in enumerate(total):
                _store(builder, c_rows[index // 2], index % 2, value)
            return context.get_dummy_value()

        return signature, generate

    return block


_INT, _FLOAT = ir.IntType(64), ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, _LANES)


def _int(value: int) -> ir.Constant:
    return ir.Constant(_INT, value)


def _address(builder: ir.IRBuilder, array: Any, row: Any, column: Any) -> Any:
    """The address of array[row, column], rows strided, columns contiguous."""
    stride = cgutils.unpack_tuple(builder, array.strides)[0]
    address = builder.add(builder.ptrtoint(array.data, _INT), builder.mul(stride, row))
    return address if column is None else builder.add(address, builder.mul(column, _int(4)))


def _load(builder: ir.IRBuilder, address: Any, vector: int) -> Any:
    pointer = builder.inttoptr(builder.add(address, _int(4 * _LANES * vector)), _VECTOR.as_pointer())
    return builder.load(pointer, align=4)


def _store(builder: ir.IRBuilder, address: Any, vector: int, value: Any) -> None:
    pointer = builder.inttoptr(builder.add(address, _int(4 * _LANES * vector)), _VECTOR.as_pointer())
    builder.store(value, pointer, align=4)


def _broadcast(builder: ir.IRBuilder, address: Any) -> Any:
    """The float at an address in every lane."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    value = builder.load(builder.inttoptr(address, _FLOAT.as_pointer()), align=4)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
    return builder.shuffle_vector(first, undefined, lanes)


def _down_the_panel(builder: ir.IRBuilder, a_rows: list[Any], start: Any, size: Any, sums: list[list[Any]]) -> Any:
    """The loop over k: chain i takes k = i, i + chains, ...; `sums` per chain are 2 vectors for every row."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    multiply_add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{_LANES}f32")
    entry, loop, after = builder.block, builder.append_basic_block("k"), builder.append_basic_block("k.end")
    builder.cbranch(builder.icmp_signed(">", size, _int(0)), loop, after)
    builder.position_at_end(loop)
    k = builder.phi(_INT)
    k.add_incoming(_int(0), entry)
    carried = [[builder.phi(_VECTOR) for _ in chain] for chain in sums]
    result = []
    for index, chain in enumerate(carried):
        at = builder.add(k, _int(index))
        line = builder.add(start, builder.mul(at, _int(4 * PANEL)))
        columns = [_load(builder, line, v) for v in range(2)]
        scalars = [_broadcast(builder, builder.add(address, builder.mul(at, _int(4)))) for address in a_rows]
        result.append([builder.call(multiply_add, [scalars[i // 2], columns[i % 2], x]) for i, x in enumerate(chain)])
    following = builder.add(k, _int(len(sums)))
    k.add_incoming(following, loop)
    for chain, first, new in zip(carried, sums, result, strict=True):
        for phi, before, value in zip(chain, first, new, strict=True):
            phi.add_incoming(before, entry)
            phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, size), loop, after)
    builder.position_at_end(after)
    final = [[builder.phi(_VECTOR) for _ in chain] for chain in sums]
    for chain, first, new in zip(final, sums, result, strict=True):
        for phi, before, value in zip(chain, first, new, strict=True):
            phi.add_incoming(before, entry)
            phi.add_incoming(value, loop)
    return final


inner = partial(njit, nogil=True, _nrt=False, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator of functions that only compiled code calls: divisions do not check, and nothing is built for Python."""

_add_block = _register_block(BLOCK, 1, add=True)
set_one_row = _register_block(1, 1, add=False)
set_long_row = _register_block(1, 4, add=False)
add_long_row = _register_block(1, 4, add=True)


@inner()
def multiply_add(a, rows, panels, c):  # type: ignore[no-untyped-def]
    """c[:rows] += a[:rows] @ W, with W [K, N] as `pack(W)`.

    a [>= rows, >= K], c [>= rows, >= padded(N)] float32 with contiguous columns; rows a multiple of BLOCK.
    """
    for p in range(panels.shape[0]):
        panel = panels[p]
        for row in range(0, rows, BLOCK):
            _add_block(a, row, panel, c, row, p * PANEL, panels.shape[1])
