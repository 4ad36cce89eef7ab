"""Products with 4-bit matrices, compiled for this processor: x86 with AVX2 or AVX-512, on Linux.

LLVM compiles them, in a tenth of a second, where llvmlite is installed: the extra [int4]. They run
in torch's own threads: in those of another OpenMP library, each would wait beside the other's. What
starts them is looked up by its name among the libraries that torch is linked to.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .matrix_layout import view_rows
from .quantization import QuantizedMatrix

__all__ = ["CompiledInt4", "int4_instructions", "would_compile_int4"]

_RECORDS_BYTES = 320 << 10
"""Of the activations that are multiplied with all of the matrix at a time: they stay in a core's
second cache, while each block of weights stays in its first. 36 rows of 4,096 columns."""


@cache
def would_compile_int4() -> str | None:
    """The instructions that products would use if llvmlite were installed, such as "AVX2"; None:
    they can't be compiled for this system."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or not _openmp():
        return None
    # Not what the processor has: torch may have been told to use less.
    used, has = torch.backends.cpu.get_cpu_capability(), torch.cpu.get_capabilities()
    if used == "AVX512":
        return "AVX-512 VNNI" if has.get("avx512_vnni") else "AVX-512"
    if used == "AVX2":
        # With AVX-512, too, torch was told to use AVX2 alone.
        return "AVX-VNNI" if has.get("avx_vnni") and not has.get("avx512_f") else "AVX2"
    return None


def int4_instructions() -> str | None:
    """The instructions that products are compiled for; None: they aren't."""
    return would_compile_int4() if _has_llvmlite() else None


@cache
def _has_llvmlite() -> bool:
    """numba brings it, too, in any version."""
    try:
        major, minor = map(int, version("llvmlite").split(".")[:2])
    except PackageNotFoundError:
        return False
    return (major, minor) >= _LLVMLITE


_LLVMLITE = (0, 45)
"""The first version with LLVM 20, which reads the code as it is written."""


@cache
def _openmp() -> Mapping[str, int]:
    """Addresses of what compiled code calls of torch's OpenMP library; none if it isn't there."""
    names = ("GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads")
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        functions = {name: getattr(library, name) for name in names}
    except (OSError, AttributeError):
        return {}
    return {name: _address(function) for name, function in functions.items()}


def _address(function: object) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
    return address or 0


@cache
def _compile(instructions: str) -> tuple[Callable[[int], None], object]:
    """The function `multiply` of `int4_kernel`, and what must stay alive for it."""
    from llvmlite import binding

    from .int4_kernel import int4_module
    from .x86_instructions import X86_INSTRUCTIONS

    chosen = X86_INSTRUCTIONS[instructions]
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    for name, address in _openmp().items():
        binding.add_symbol(name, address)
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=chosen.processor, features=chosen.features, opt=3, jit=True
    )
    module = binding.parse_assembly(str(int4_module(chosen)))
    module.verify()
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # lets other threads of Python run
    return prototype(engine.get_function_address("multiply")), engine


class CompiledInt4:
    """A 4-bit matrix in groups of 32, 64, 128 or 256 columns, laid out as `int4_kernel` takes it.

    Args:
        instructions: see `int4_instructions`.
    """

    def __init__(self, matrix: QuantizedMatrix, instructions: str) -> None:
        from .int4_kernel import BLOCK_ROWS, GROUP_COLUMNS

        self._multiply, self._engine = _compile(instructions)
        rows, columns = matrix.shape
        blocks = -(-rows // BLOCK_ROWS)
        missing = blocks * BLOCK_ROWS - rows

        def in_blocks(part: Tensor) -> Tensor:
            """(rows, n) → (blocks, n, rows of a block), filled up with zeros."""
            filled = nn.functional.pad(part, (0, 0, 0, missing)) if missing else part
            return filled.unflatten(0, (blocks, BLOCK_ROWS)).transpose(1, 2).contiguous()

        values, zero_points = matrix.values, matrix.zero_points
        if values.storage_offset() % 4:  # a part of a tensor, which can't be viewed
            values = values.clone()
        if zero_points is None:
            zero_points = torch.full(matrix.scales.shape, 8, dtype=torch.uint8)
        # Eight columns are four bytes, which stay together.
        self._values = in_blocks(view_rows(values, torch.int32))
        self._scales = in_blocks(matrix.scales.bfloat16())
        self._zero_points = in_blocks(zero_points)
        self._shape = blocks, rows, columns
        self._group_shift = (matrix.group_size // GROUP_COLUMNS).bit_length() - 1

    def parts(self) -> Iterator[Tensor]:
        """The tensors that it holds."""
        yield from (self._values, self._scales, self._zero_points)

    def multiply(
        self, rows: Float[Tensor, "rows columns"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "rows features"]:
        """Products, computed in float32 from activations in 16 bits, and then in a dtype."""
        from .int4_kernel import ARGUMENTS, BLOCK_ROWS, GROUP_COLUMNS, RECORD_BYTES

        blocks, features, columns = self._shape
        record_bytes = columns // GROUP_COLUMNS * RECORD_BYTES
        step = min(len(rows), max(8, _RECORDS_BYTES // record_bytes // 8 * 8))
        records = torch.empty(step * record_bytes, dtype=torch.uint8)
        part_products = torch.empty(step, blocks * BLOCK_ROWS)
        products = torch.empty(len(rows), features, dtype=dtype)
        weights = (part.data_ptr() for part in (self._values, self._scales, self._zero_points))
        pointers = (0, records.data_ptr(), *weights, part_products.data_ptr())
        sizes = (0, columns, blocks, self._group_shift, min(torch.get_num_threads(), blocks))
        arguments = (ctypes.c_int64 * len(ARGUMENTS))(*pointers, *sizes)
        for first in range(0, len(rows), max(1, step)):
            part = rows[first : first + step].float().contiguous()
            arguments[0], arguments[len(pointers)] = part.data_ptr(), len(part)
            self._multiply(ctypes.addressof(arguments))
            products[first : first + step] = part_products[: len(part), :features]
        return products
