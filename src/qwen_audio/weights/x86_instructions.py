"""What x86 processors multiply integers of 8 bits with, in LLVM's intermediate representation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .llvm_vectors import INT8, INT16, INT32, call, constant, vector

__all__ = ["X86_INSTRUCTIONS", "X86Instructions"]


@dataclass(frozen=True)
class X86Instructions:
    """A set of instructions.

    Attributes:
        lanes: numbers of 32 bits in a register.
        processor, features: for LLVM, which has no name for processors with AVX2 and VNNI.
        tiles: how many rows are multiplied at a time, as far as registers hold their sums: the
            largest number first, the last one 1.
        has_vnni: whether one instruction multiplies 8 bits and adds four products to 32 bits;
            otherwise two of them are added in 16 bits.
    """

    lanes: int
    processor: str
    features: str
    tiles: tuple[int, ...]
    has_vnni: bool

    def multiply_add(self, builder: Any, sums: Any, left: Any, right: Any) -> Any:
        """Add the products of four pairs of 8 bits to each lane, or, without VNNI, of two to each
        of its halves of 16 bits, which they must fit into.

        Args:
            sums: so far; None: none.
            left: unsigned, less than 128: two products fit into 16 bits.
            right: signed.
        """
        bits = 32 * self.lanes
        if self.has_vnni:
            kind = vector(INT32, self.lanes)
            sums = constant(kind, 0) if sums is None else sums
            values = (builder.bitcast(each, kind) for each in (left, right))
            return call(builder, f"llvm.x86.avx512.vpdpbusd.{bits}", kind, sums, *values)
        values = (builder.bitcast(each, vector(INT8, 4 * self.lanes)) for each in (left, right))
        name = "avx2.pmadd.ub.sw" if bits == 256 else "avx512.pmaddubs.w.512"
        products = call(builder, f"llvm.x86.{name}", vector(INT16, 2 * self.lanes), *values)
        return products if sums is None else builder.add(sums, products)

    def add_pairs(self, builder: Any, first: Any, second: Any, factors: tuple[int, int]) -> Any:
        """Two such sums times their factors, added in lanes of 32 bits."""
        if self.has_vnni:
            scaled = [
                each if factor == 1 else builder.mul(each, constant(each.type, factor))
                for each, factor in zip((first, second), factors, strict=True)
            ]
        else:
            name = "avx2.pmadd.wd" if self.lanes == 8 else "avx512.pmaddw.d.512"
            kind = vector(INT32, self.lanes)
            scaled = [
                call(builder, f"llvm.x86.{name}", kind, each, constant(each.type, factor))
                for each, factor in zip((first, second), factors, strict=True)
            ]
        return builder.add(*scaled)


X86_INSTRUCTIONS = {
    "AVX-512 VNNI": X86Instructions(16, "x86-64-v4", "+avx512vnni", (8, 4, 2, 1), has_vnni=True),
    "AVX-512": X86Instructions(16, "x86-64-v4", "", (4, 2, 1), has_vnni=False),
    "AVX-VNNI": X86Instructions(8, "x86-64-v3", "+avxvnni", (2, 1), has_vnni=True),
    "AVX2": X86Instructions(8, "x86-64-v3", "", (2, 1), has_vnni=False),
}
"""By their names."""
