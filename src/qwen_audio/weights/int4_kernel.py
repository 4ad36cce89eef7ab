"""The products of rows with a matrix in 4 bits, in LLVM's intermediate representation.

For x86. The same integers and the same float operations, in the same order, for every processor
and for any number of rows: results are equal, bit for bit.

Weights are in blocks of `BLOCK_ROWS` output features. Of a block, values are in the order
(columns / 8, features, 4): four bytes, a lane of a register, hold eight columns of a feature, the
even ones low. So a register holds many features, and products of four activations, the same for
all, are summed in each lane; nothing is summed across lanes. Scales (bfloat16) and zero points
(bytes) are in the order (groups, features).

Activations are rounded to 16 bits, with a scale for `GROUP_COLUMNS` columns: coarse + fine /
`FINE_STEPS`, two numbers of 8 bits, which is what these instructions multiply. Sums of a group are
exact. Rounded to 8 bits, as in ggml, they would take half the instructions, but an error of .005.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

from .llvm_vectors import (
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    POINTER,
    VOID,
    broadcast,
    call,
    constant,
    count,
    for_each,
    function,
    load,
    new_module,
    offset,
    repeat,
    shuffle,
    vector,
)
from .x86_instructions import X86Instructions

__all__ = ["ARGUMENTS", "BLOCK_ROWS", "GROUP_COLUMNS", "RECORD_BYTES", "int4_module"]

BLOCK_ROWS = 16
"""Output features of a block: the lanes of a register of AVX-512, of two of AVX2."""

GROUP_COLUMNS = 32
"""Of activations with a scale. The sums of products of 8 of its pairs fit into 16 bits, in which
AVX2 adds them: 16 × 15 × 127 = 30,480."""

FINE_STEPS = 254
"""In a step of the coarse numbers: half of it, to which they are rounded, is 127 fine steps."""

RECORD_BYTES = 72
"""Of a group of activations: coarse, fine, their sum (negative), and the scale of fine steps."""
_FINE, _SUM, _SCALE = 32, 64, 68

_GROUP_BYTES = BLOCK_ROWS * GROUP_COLUMNS // 2
"""Of the values of a block for a group of activations."""

ARGUMENTS = {
    "activations": POINTER,  # float32, (rows, columns)
    "records": POINTER,  # space for `RECORD_BYTES` a row and group of activations
    "values": POINTER,
    "scales": POINTER,
    "zero_points": POINTER,
    "products": POINTER,  # float32, (rows, blocks × BLOCK_ROWS)
    "rows": INT64,
    "columns": INT64,
    "blocks": INT64,
    "group_shift": INT64,  # a group of weights has GROUP_COLUMNS << group_shift columns
    "threads": INT64,
}
"""Of the function `multiply`, one after another in memory, 8 bytes each."""

_PREFETCH_BYTES = 8192
"""How far ahead weights are fetched. Processors fetch ahead themselves, but only within a page of
4 kB: of 2, 4 and 8 kB, this is the fastest (without, a row takes 1.3 times as long)."""

_ROUNDING = 1.5 * 2**23
"""The last place of this number in float32 is 1: a sum with it is rounded to an integer, which is
the lowest byte of its bits."""

_LEAST_SCALE = 2.0**-120
"""Whose reciprocal is finite: groups of zeros have a scale, too."""


def int4_module(instructions: X86Instructions) -> Any:
    """A module with the function `multiply`, which takes a pointer to `ARGUMENTS`.

    It is run by the threads of OpenMP, torch's own.
    """
    module = new_module("int4")
    worker, builder = function(module, "multiply_part")
    _Worker(builder, worker.args[0], instructions).build()
    entry, builder = function(module, "multiply")
    (pointer,) = entry.args
    threads = builder.trunc(_argument(builder, pointer, "threads"), INT32)
    call(builder, "GOMP_parallel", VOID, worker, pointer, threads, constant(INT32, 0))
    builder.ret_void()
    return module


def _argument(builder: Any, pointer: Any, name: str) -> Any:
    return load(builder, pointer, 8 * list(ARGUMENTS).index(name), ARGUMENTS[name])


class _Worker:
    """What each thread does: first a share of the activations, then one of the blocks."""

    def __init__(self, builder: Any, pointer: Any, instructions: X86Instructions) -> None:
        self._builder = builder
        self._tiles = instructions.tiles
        self._multiply_add = instructions.multiply_add
        self._add_parts = partial(instructions.add_pairs, factors=(FINE_STEPS, 1))
        self._lanes = instructions.lanes
        self._registers = range(BLOCK_ROWS // instructions.lanes)
        self._floats, self._integers = (vector(each, self._lanes) for each in (FLOAT, INT32))
        self._pairs, self._bytes = vector(INT16, 2 * self._lanes), vector(INT8, 4 * self._lanes)
        self._arguments = {name: _argument(builder, pointer, name) for name in ARGUMENTS}
        self._groups = builder.udiv(self._arguments["columns"], count(GROUP_COLUMNS))
        self._weight_groups = builder.lshr(self._groups, self._arguments["group_shift"])

    def build(self) -> None:
        """The whole function."""
        b = self._builder
        thread, threads = (
            b.zext(call(b, name, INT32), INT64)
            for name in ("omp_get_thread_num", "omp_get_num_threads")
        )

        def share(total: Any, body: Callable[[Any], None]) -> None:
            start, stop = (
                b.udiv(b.mul(total, number), threads)
                for number in (thread, b.add(thread, count(1)))
            )
            for_each(b, start, stop, body)

        share(b.mul(self._arguments["rows"], self._groups), self._round_activations)
        call(b, "GOMP_barrier", VOID)
        share(self._arguments["blocks"], self._multiply_block)
        b.ret_void()

    def _place(self, name: str, index: Any, size: int) -> Any:
        """A pointer to an element, of so many bytes, of an argument."""
        return offset(self._builder, self._arguments[name], self._times(index, size))

    def _times(self, number: Any, factor: int) -> Any:
        return self._builder.mul(number, count(factor))

    def _round_activations(self, group: Any) -> None:
        """A group of a row, to 16 bits."""
        b = self._builder
        floats, integers, small = (vector(kind, GROUP_COLUMNS) for kind in (FLOAT, INT32, INT8))
        values = load(b, self._place("activations", group, 4 * GROUP_COLUMNS), 0, floats)
        # The maxima are NaN where any number is.
        magnitudes = call(b, f"llvm.fabs.v{GROUP_COLUMNS}f32", floats, values)
        largest = call(b, f"llvm.vector.reduce.fmaximum.v{GROUP_COLUMNS}f32", FLOAT, magnitudes)
        scale = b.fdiv(largest, constant(FLOAT, 127))
        scale = call(b, "llvm.maximum.f32", FLOAT, scale, constant(FLOAT, _LEAST_SCALE))
        values = b.fmul(values, broadcast(b, b.fdiv(constant(FLOAT, 1), scale), GROUP_COLUMNS))

        rounding = constant(floats, _ROUNDING)
        rounded = b.fadd(values, rounding)
        rest = b.fmul(b.fsub(values, b.fsub(rounded, rounding)), constant(floats, FINE_STEPS))
        coarse, fine = (
            b.trunc(b.bitcast(each, integers), small) for each in (rounded, b.fadd(rest, rounding))
        )
        steps = b.mul(b.sext(coarse, integers), constant(integers, FINE_STEPS))
        steps = b.add(steps, b.sext(fine, integers))
        total = call(b, f"llvm.vector.reduce.add.v{GROUP_COLUMNS}i32", INT32, steps)

        # Of every eight columns the even ones first, as a register has those of weights.
        order = [8 * i + j for i in range(GROUP_COLUMNS // 8) for j in (0, 2, 4, 6, 1, 3, 5, 7)]
        record = self._place("records", group, RECORD_BYTES)
        for distance, value in (
            (0, shuffle(b, coarse, order)),
            (_FINE, shuffle(b, fine, order)),
            (_SUM, b.sitofp(b.neg(total), FLOAT)),
            (_SCALE, b.fmul(scale, constant(FLOAT, 1 / FINE_STEPS))),
        ):
            b.store(value, offset(b, record, distance), align=1)

    def _multiply_block(self, block: Any) -> None:
        """The products of all rows with a block."""
        b, rows = self._builder, self._arguments["rows"]
        start: Any = count(0)
        for tile in self._tiles:
            tiles = b.udiv(b.sub(rows, start), count(tile))
            body = partial(self._multiply_tile, block=block, start=start, tile=tile)
            for_each(b, count(0), tiles, body)
            start = b.add(start, self._times(tiles, tile))

    def _multiply_tile(self, index: Any, *, block: Any, start: Any, tile: int) -> None:
        """The products of some rows with a block."""
        b = self._builder
        first = b.add(start, self._times(index, tile))
        rows = [b.add(first, count(i)) for i in range(tile)]
        row_records = [
            self._place("records", b.mul(row, self._groups), RECORD_BYTES) for row in rows
        ]

        def add_group(group: Any, sums: Sequence[Any]) -> list[Any]:
            distance = self._times(group, RECORD_BYTES)
            records = [offset(b, record, distance) for record in row_records]
            of_block = b.add(b.mul(block, self._groups), group)
            products = self._multiply_group(self._place("values", of_block, _GROUP_BYTES), records)
            weight_group = b.lshr(group, self._arguments["group_shift"])
            of_block = b.add(b.mul(block, self._weight_groups), weight_group)
            scales = self._place("scales", of_block, 2 * BLOCK_ROWS)
            zero_points = self._place("zero_points", of_block, BLOCK_ROWS)
            return self._add_scaled(sums, products, records, scales, zero_points)

        zeros = [constant(self._floats, 0)] * (tile * len(self._registers))
        sums = iter(repeat(b, count(0), self._groups, add_group, zeros))
        for row in rows:
            row_block = b.add(b.mul(row, self._arguments["blocks"]), block)
            place = self._place("products", row_block, 4 * BLOCK_ROWS)
            for register in self._registers:
                b.store(next(sums), offset(b, place, 4 * self._lanes * register), align=1)

    def _multiply_group(self, values: Any, records: Sequence[Any]) -> list[Any]:
        """Sums of the products of values and activations, in fine steps: of each row, registers of
        32-bit integers."""
        b = self._builder
        for line in range(0, _GROUP_BYTES, 64):
            place = offset(b, values, _PREFETCH_BYTES + line)
            hints = (constant(INT32, hint) for hint in (0, 3, 1))  # to be read, into all caches
            call(b, "llvm.prefetch.p0", VOID, place, *hints)
        sums: dict[tuple[int, int, int], Any] = {}
        for eight in range(GROUP_COLUMNS // 8):
            halves: tuple[list[Any], list[Any]] = ([], [])
            for register in self._registers:
                both = load(
                    b, values, 4 * (BLOCK_ROWS * eight + self._lanes * register), self._bytes
                )
                high = b.lshr(b.bitcast(both, self._pairs), constant(self._pairs, 4))
                for half, each in zip(halves, (both, b.bitcast(high, self._bytes)), strict=True):
                    half.append(b.and_(each, constant(self._bytes, 15)))
            for half_number, row, part in product(range(2), range(len(records)), range(2)):
                distance = _FINE * part + 8 * eight + 4 * half_number
                activations = broadcast(b, load(b, records[row], distance, INT32), self._lanes)
                for register, weights in enumerate(halves[half_number]):
                    key = (row, register, part)
                    sums[key] = self._multiply_add(b, sums.get(key), weights, activations)
        return [
            self._add_parts(b, sums[row, register, 0], sums[row, register, 1])
            for row in range(len(records))
            for register in self._registers
        ]

    def _add_scaled(
        self,
        sums: Sequence[Any],
        products: Sequence[Any],
        records: Sequence[Any],
        scales: Any,
        zero_points: Any,
    ) -> list[Any]:
        """Sums + (products − zero points × the activations' sum) × scales of both."""
        b, lanes = self._builder, self._lanes
        multiply_add = partial(call, b, f"llvm.fma.v{lanes}f32", self._floats)
        weights = []
        for register in self._registers:
            upper = load(b, scales, 2 * lanes * register, vector(INT16, lanes))
            upper = b.shl(b.zext(upper, self._integers), constant(self._integers, 16))
            zeros = load(b, zero_points, lanes * register, vector(INT8, lanes))
            zeros = b.uitofp(b.zext(zeros, self._integers), self._floats)
            weights.append((b.bitcast(upper, self._floats), zeros))
        results: list[Any] = []
        for record in records:
            total, step = (
                broadcast(b, load(b, record, distance, FLOAT), lanes) for distance in (_SUM, _SCALE)
            )
            for weight_scales, zeros in weights:
                number = len(results)
                # Exact: less than 2²⁴.
                exact = multiply_add(zeros, total, b.sitofp(products[number], self._floats))
                scaled = b.fmul(exact, weight_scales)
                results.append(multiply_add(scaled, step, sums[number]))
        return results
