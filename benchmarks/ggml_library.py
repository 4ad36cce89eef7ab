"""ggml, llama.cpp's library of tensors, from the package llama-cpp-python of this environment.

Called through ctypes, with the declarations of ggml.h, ggml-alloc.h and ggml-backend.h of
llama-cpp-python 0.3.36 (ggml 0.25). Runs in the peer's environment: numpy alone is imported.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from importlib.util import find_spec
from pathlib import Path

import numpy as np

__all__ = ["Ggml", "Products"]

_TYPES = 64
"""More than there are: names of types are compared with those of the numbers below."""
_METADATA_BYTES = 1 << 20
"""Of some tensors and a graph, without their numbers."""


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


_LogCallback = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
_BASE: dict[str, tuple[type, tuple[type, ...]]] = {
    "ggml_backend_alloc_ctx_tensors_from_buft": (c_void_p, (c_void_p, c_void_p)),
    "ggml_backend_buffer_free": (type(None), (c_void_p,)),
    "ggml_backend_dev_buffer_type": (c_void_p, (c_void_p,)),
    "ggml_backend_dev_supports_op": (c_bool, (c_void_p, c_void_p)),
    "ggml_backend_graph_compute": (c_int, (c_void_p, c_void_p)),
    "ggml_backend_reg_dev_get": (c_void_p, (c_void_p, c_size_t)),
    "ggml_backend_reg_get_proc_address": (c_void_p, (c_void_p, c_char_p)),
    "ggml_backend_tensor_alloc": (c_int, (c_void_p, c_void_p, c_void_p)),
    "ggml_backend_tensor_get": (type(None), (c_void_p, c_void_p, c_size_t, c_size_t)),
    "ggml_backend_tensor_set": (type(None), (c_void_p, c_void_p, c_size_t, c_size_t)),
    "ggml_blck_size": (c_int64, (c_int,)),
    "ggml_build_forward_expand": (type(None), (c_void_p, c_void_p)),
    "ggml_get_data": (c_void_p, (c_void_p,)),
    "ggml_init": (c_void_p, (_InitParams,)),
    "ggml_log_set": (type(None), (_LogCallback, c_void_p)),
    "ggml_mul_mat": (c_void_p, (c_void_p, c_void_p, c_void_p)),
    "ggml_new_graph": (c_void_p, (c_void_p,)),
    "ggml_new_tensor_2d": (c_void_p, (c_void_p, c_int, c_int64, c_int64)),
    "ggml_quantize_chunk": (
        c_size_t,
        (c_int, POINTER(c_float), c_void_p, c_int64, c_int64, c_int64, c_void_p),
    ),
    "ggml_row_size": (c_size_t, (c_int, c_int64)),
    "ggml_type_name": (c_char_p, (c_int,)),
}
_CPU: dict[str, tuple[type, tuple[type, ...]]] = {
    "ggml_backend_cpu_init": (c_void_p, ()),
    "ggml_backend_cpu_reg": (c_void_p, ()),
    "ggml_backend_cpu_set_n_threads": (type(None), (c_void_p, c_int)),
    "ggml_cpu_has_avx512": (c_int, ()),
}


class Ggml:
    """The library on the CPU, with a number of threads.

    Attributes:
        has_avx512: whether it was built to use AVX-512.
    """

    def __init__(self, threads: int) -> None:
        spec = find_spec("llama_cpp")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("this environment has no llama-cpp-python")
        folder = Path(spec.submodule_search_locations[0]) / "lib"
        self._functions: dict[str, Callable[..., object]] = {}
        for name, declarations in (("libggml-base.so", _BASE), ("libggml-cpu.so", _CPU)):
            library = ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
            for function, (result, arguments) in declarations.items():
                pointer = getattr(library, function)
                pointer.restype = None if result is type(None) else result
                pointer.argtypes = arguments
                self._functions[function] = pointer
        self._quiet = _LogCallback(lambda _level, _text, _data: None)  # alive while it is set
        self.call("ggml_log_set", self._quiet, None)
        registry = self.call("ggml_backend_cpu_reg")
        self.device = self.call("ggml_backend_reg_dev_get", registry, 0)
        self.backend = self.call("ggml_backend_cpu_init")
        self.call("ggml_backend_cpu_set_n_threads", self.backend, threads)
        self.has_avx512 = bool(self.call("ggml_cpu_has_avx512"))

    def call(self, function: str, *arguments: object) -> int:
        """Call a function of the headers. Returns a number or a pointer; 0 where it has none."""
        result = self._functions[function](*arguments)
        return result if isinstance(result, int) else 0

    def type_number(self, name: str) -> int:
        """The number of a type, such as q4_0."""
        for number in range(_TYPES):
            if self._functions["ggml_type_name"](number) == name.encode():
                return number
        raise ValueError(f"this ggml has no type {name}")

    def fits(self, name: str, columns: int) -> bool:
        """Whether rows of so many columns are a whole number of a type's blocks."""
        return columns % self.call("ggml_blck_size", self.type_number(name)) == 0

    def row_bytes(self, name: str, columns: int) -> int:
        """Bytes of a row."""
        return self.call("ggml_row_size", self.type_number(name), columns)

    def quantize(self, name: str, matrix: np.ndarray) -> np.ndarray:
        """A float32 matrix in a type: bytes (rows, bytes of a row)."""
        rows, columns = matrix.shape
        source = np.ascontiguousarray(matrix, dtype=np.float32)
        target = np.empty((rows, self.row_bytes(name, columns)), dtype=np.uint8)
        written = self.call(
            "ggml_quantize_chunk",
            self.type_number(name),
            source.ctypes.data_as(POINTER(c_float)),
            target.ctypes.data,
            *(0, rows, columns, None),
        )
        if written != target.nbytes:
            raise RuntimeError(f"ggml wrote {written} bytes, {target.nbytes} were expected")
        return target

    def context(self) -> int:
        """Where tensors are declared; their numbers are allocated by a buffer."""
        return self.call("ggml_init", _InitParams(_METADATA_BYTES, None, True))

    def buffer_types(self) -> list[int]:
        """In the order in which llama.cpp takes the first that can multiply a matrix: those with a
        layout of their own, then the plain one."""
        registry = self.call("ggml_backend_cpu_reg")
        address = self.call(
            "ggml_backend_reg_get_proc_address", registry, b"ggml_backend_dev_get_extra_bufts"
        )
        found: list[int] = []
        if address:
            extra = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)(address)(self.device)
            index = 0
            while pointer := extra[index]:
                found.append(pointer)
                index += 1
        return [*found, self.call("ggml_backend_dev_buffer_type", self.device)]


class Products:
    """Matrices of layers in a type, and the products of each layer with the same inputs.

    Args:
        matrices: of a layer, float32 (out, in); every layer has a copy of its own.
    """

    def __init__(self, ggml: Ggml, kind: str, matrices: Sequence[np.ndarray], layers: int) -> None:
        self._ggml, self._kind = ggml, kind
        quantized = [ggml.quantize(kind, matrix) for matrix in matrices]
        shapes = [matrix.shape for matrix in matrices]
        self._layers: list[list[int]] = []
        for buffer_type in ggml.buffer_types():
            while len(self._layers) < layers and (tensors := self._allocated(shapes, buffer_type)):
                self._layers.append(tensors)
        for tensors in self._layers:
            for tensor, values in zip(tensors, quantized, strict=True):
                ggml.call("ggml_backend_tensor_set", tensor, values.ctypes.data, 0, values.nbytes)

    def _allocated(self, shapes: Sequence[tuple[int, int]], buffer_type: int) -> list[int]:
        """Tensors of a layer in a type of buffer; none if it can't multiply them."""
        ggml, context = self._ggml, self._ggml.context()
        number = ggml.type_number(self._kind)
        tensors = [
            ggml.call("ggml_new_tensor_2d", context, number, columns, rows)
            for rows, columns in shapes
        ]
        buffer = ggml.call("ggml_backend_alloc_ctx_tensors_from_buft", context, buffer_type)
        other = ggml.context()
        for tensor, (_, columns) in zip(tensors, shapes, strict=True):
            rows = ggml.call("ggml_new_tensor_2d", other, 0, columns, 1)
            product = ggml.call("ggml_mul_mat", other, tensor, rows)
            if not ggml.call("ggml_backend_dev_supports_op", ggml.device, product):
                ggml.call("ggml_backend_buffer_free", buffer)
                return []
        return tensors

    def graphs(self, inputs: Sequence[np.ndarray]) -> tuple[Callable[[int], None], list[int]]:
        """What multiplies a layer's matrices by inputs, float32 (rows, in), one for each matrix.

        Returns:
            The function, which takes the layer's index, and the tensors of the products; the
            layers write to the same memory.
        """
        ggml = self._ggml
        graphs: list[int] = []
        first: list[int] = []
        buffer = 0
        for layer in self._layers:
            context = ggml.context()
            sources: dict[int, int] = {}
            for values in inputs:
                if id(values) not in sources:
                    rows, columns = values.shape
                    sources[id(values)] = ggml.call("ggml_new_tensor_2d", context, 0, columns, rows)
            graph = ggml.call("ggml_new_graph", context)
            products = [
                ggml.call("ggml_mul_mat", context, matrix, sources[id(values)])
                for matrix, values in zip(layer, inputs, strict=True)
            ]
            for product in products:
                ggml.call("ggml_build_forward_expand", graph, product)
            tensors = [*sources.values(), *products]
            if not first:
                buffer_type = ggml.call("ggml_backend_dev_buffer_type", ggml.device)
                buffer = ggml.call("ggml_backend_alloc_ctx_tensors_from_buft", context, buffer_type)
                first = tensors
                for values in inputs:
                    source = sources[id(values)]
                    ggml.call(
                        "ggml_backend_tensor_set", source, values.ctypes.data, 0, values.nbytes
                    )
            else:
                for tensor, same in zip(tensors, first, strict=True):
                    address = ggml.call("ggml_get_data", same)
                    ggml.call("ggml_backend_tensor_alloc", buffer, tensor, address)
            graphs.append(graph)

        def multiply(layer: int) -> None:
            if status := ggml.call("ggml_backend_graph_compute", ggml.backend, graphs[layer]):
                raise RuntimeError(f"ggml's computation failed with status {status}")

        return multiply, first[-len(inputs) :]

    def values(self, tensor: int, shape: tuple[int, int]) -> np.ndarray:
        """The numbers of a product."""
        result = np.empty(shape, dtype=np.float32)
        self._ggml.call("ggml_backend_tensor_get", tensor, result.ctypes.data, 0, result.nbytes)
        return result
