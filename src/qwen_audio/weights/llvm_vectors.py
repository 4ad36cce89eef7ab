"""Loops, vectors and memory in LLVM's intermediate representation, with llvmlite's builder.

llvmlite is an extra, and has no types: values and types of the code that is built are Any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qwen_audio.errors import check_extra

check_extra("compiling products with 4-bit weights", "int4", "llvmlite")
from llvmlite import ir  # noqa: E402

__all__ = [
    "FLOAT",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "POINTER",
    "VOID",
    "broadcast",
    "call",
    "constant",
    "count",
    "for_each",
    "function",
    "load",
    "new_module",
    "offset",
    "repeat",
    "shuffle",
    "vector",
]

INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT, POINTER, VOID = ir.FloatType(), ir.PointerType(), ir.VoidType()


def vector(kind: Any, lanes: int) -> Any:
    """The type of a vector of numbers."""
    return ir.VectorType(kind, lanes)


def constant(kind: Any, value: float) -> Any:
    """A number, or a vector of equal numbers."""
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [value] * kind.count)
    return ir.Constant(kind, value)


def count(value: int) -> Any:
    """A constant number of bytes, rows and the like: all are 64 bits wide."""
    return constant(INT64, value)


def new_module(name: str) -> Any:
    """A module without functions."""
    return ir.Module(name)


def function(module: Any, name: str) -> tuple[Any, Any]:
    """A new function that takes a pointer, and a builder at its start."""
    added = ir.Function(module, ir.FunctionType(VOID, [POINTER]), name)
    return added, ir.IRBuilder(added.append_basic_block())


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Call an intrinsic or a function of the process, declared when it is first called."""
    module = builder.module
    called = module.globals.get(name)
    if called is None:
        kinds = [argument.type for argument in arguments]
        called = ir.Function(module, ir.FunctionType(result, kinds), name)
    return builder.call(called, arguments)


def offset(builder: Any, pointer: Any, distance: Any) -> Any:
    """A pointer some bytes further."""
    if isinstance(distance, int):
        distance = count(distance)
    return builder.gep(pointer, [distance], source_etype=INT8)


def load(builder: Any, pointer: Any, distance: Any, kind: Any) -> Any:
    """What is some bytes further, at any alignment."""
    return builder.load(offset(builder, pointer, distance), typ=kind, align=1)


def shuffle(builder: Any, values: Any, order: Sequence[int]) -> Any:
    """The lanes of a vector in another order."""
    return builder.shuffle_vector(
        values, values, ir.Constant(vector(INT32, len(order)), list(order))
    )


def broadcast(builder: Any, value: Any, lanes: int) -> Any:
    """A vector of equal lanes."""
    undefined = ir.Constant(vector(value.type, lanes), ir.Undefined)
    return shuffle(
        builder, builder.insert_element(undefined, value, constant(INT32, 0)), [0] * lanes
    )


def repeat(
    builder: Any,
    start: Any,
    stop: Any,
    body: Callable[[Any, list[Any]], Sequence[Any]],
    carried: Sequence[Any] = (),
) -> list[Any]:
    """`for index in range(start, stop): carried = body(index, carried)`. Returns the last ones."""
    before = builder.block
    inside, after = builder.append_basic_block(), builder.append_basic_block()
    builder.cbranch(builder.icmp_unsigned("<", start, stop), inside, after)

    builder.position_at_end(inside)
    index = builder.phi(INT64)
    index.add_incoming(start, before)
    values = [builder.phi(value.type) for value in carried]
    results = body(index, values)
    following = builder.add(index, count(1))
    index.add_incoming(following, builder.block)
    for phi, value, result in zip(values, carried, results, strict=True):
        phi.add_incoming(value, before)
        phi.add_incoming(result, builder.block)
    builder.cbranch(builder.icmp_unsigned("<", following, stop), inside, after)
    end = builder.block

    builder.position_at_end(after)
    last = [builder.phi(value.type) for value in carried]
    for phi, value, result in zip(last, carried, results, strict=True):
        phi.add_incoming(value, before)
        phi.add_incoming(result, end)
    return last


def for_each(builder: Any, start: Any, stop: Any, body: Callable[[Any], None]) -> None:
    """`for index in range(start, stop): body(index)`."""

    def carry_nothing(index: Any, _: list[Any]) -> list[Any]:
        body(index)
        return []

    repeat(builder, start, stop, carry_nothing)
