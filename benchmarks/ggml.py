"""The products of decoder layers with weights in 4 and 8 bits, against ggml's."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from .benchmark import Result, Settings, SkipBenchmark, Target
from .machine import require_linux
from .rounds import Environment, Job, Rounds, median, run_interleaved
from .worker import Workload

# Imported in ggml's environment, too: torch and this package are imported in `layer_products`.

__all__ = [
    "ggml",
    "ggml_products",
    "layer_inputs",
    "layer_matrices",
    "layer_products",
    "least_milliseconds",
    "llama_cpp_environment",
    "relative_error",
]

WIDTH, INTERMEDIATE, LAYERS, ROW_COUNTS = 4096, 11_008, 3, (1, 4, 150, 760)
"""Of the 7B; layers whose weights, 114 MB each, are in no processor's cache when their turn comes;
and rows of a step of one text and of four, and of prompts with 5 s and with 30 s of audio."""
QUICK_WIDTH, QUICK_INTERMEDIATE, QUICK_ROW_COUNTS = 256, 512, (1, 4, 96)

KINDS = {"int4": "q4_0", "int8": "q8_0"}
"""Ours, and ggml's with about as many bytes."""
GGML_KINDS = ("q4_0", "q4_K", "q8_0")

AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""For torch and its libraries. Computed in float32 then, this package's dtype on a processor
without instructions for bfloat16."""

_TURN_ROWS, _TURNS = 64, 10
"""A round takes the least of ten turns through all layers with fewer rows than these, and one turn
with more, which take long enough."""


def ggml(settings: Settings) -> Result:
    peer = llama_cpp_environment(settings.llama_cpp)
    rows = QUICK_ROW_COUNTS if settings.quick else ROW_COUNTS
    common = {
        "width": QUICK_WIDTH if settings.quick else WIDTH,
        "intermediate": QUICK_INTERMEDIATE if settings.quick else INTERMEDIATE,
        "layers": LAYERS,
        "row_counts": rows,
        "threads": settings.threads,
    }
    jobs: dict[str, Job] = {
        "ours": ("ggml:layer_products", {**common, "dtype": "bfloat16"}),
        "ggml": ("ggml:ggml_products", common),
    }
    environments = {"ggml": peer}
    if settings.llama_cpp_avx2 is not None:
        jobs |= {
            "ours_avx2": ("ggml:layer_products", {**common, "dtype": "float32"}),
            "ggml_avx2": ("ggml:ggml_products", common),
        }
        environments |= {
            "ours_avx2": Environment(variables=AVX2),
            "ggml_avx2": llama_cpp_environment(settings.llama_cpp_avx2),
        }
    if has_openvino := find_spec("openvino") is not None:
        jobs["openvino"] = ("openvino_products:openvino_products", common)
        if settings.llama_cpp_avx2 is not None:
            jobs["openvino_avx2"] = (jobs["openvino"][0], {**common, "exact_input": True})
            environments["openvino_avx2"] = Environment(variables=AVX2)
    rounds = run_interleaved(settings, jobs, environments=environments)
    figures: dict[str, Any] = {"layers": LAYERS}
    for name in rounds.names:
        outputs = rounds.outputs(name)
        if "instructions" in outputs[0]:
            figures[f"{name}_instructions"] = outputs[0]["instructions"]
        for key in outputs[0]["errors"]:
            figures[f"{name}_{key}_error"] = outputs[0]["errors"][key]
        for key in outputs[0]["milliseconds"]:
            figures[f"{name}_{key}_milliseconds"] = median(
                output["milliseconds"][key] for output in outputs
            )
    worst = {}
    for suffix in ("", "_avx2"):
        if f"ggml{suffix}" not in rounds.names:
            continue
        for kind, peer_kind in KINDS.items():
            ratios = _ratios(rounds, suffix, kind, peer_kind, rows)
            figures |= {
                f"{kind}_over_{peer_kind}{suffix}_{count}": ratio for count, ratio in ratios.items()
            }
            worst[f"{kind}{suffix}"] = max(ratios.values())
    return Result(
        what="time of the seven products of one decoder layer of the 7B in 4 bits (groups of 32), "
        f"{', '.join(map(str, rows))} rows, weights from memory: ours against ggml's Q4_0 as "
        "llama.cpp lays it out; the ratio is the largest of these row counts; also 8 bits, Q4_K, "
        "OpenVINO's 4 bits, and all without AVX-512 (ours in float32)",
        dtype="int4 against q4_0",
        figures=figures,
        ratio=worst["int4"],
        target=Target(1.25, at_most=True),
        conditions={"AVX2 only: 2 times at most": worst["int4_avx2"] <= 2}
        if "int4_avx2" in worst
        else {},
        packages=("openvino",) if has_openvino else (),
    )


def _ratios(
    rounds: Rounds, suffix: str, kind: str, peer_kind: str, row_counts: tuple[int, ...]
) -> dict[int, float]:
    """Our time against ggml's for each number of rows: the median over the rounds."""
    pairs = list(zip(rounds.outputs(f"ours{suffix}"), rounds.outputs(f"ggml{suffix}"), strict=True))
    return {
        count: median(
            ours["milliseconds"][f"{kind}_{count}"] / ggml["milliseconds"][f"{peer_kind}_{count}"]
            for ours, ggml in pairs
        )
        for count in row_counts
    }


def llama_cpp_environment(folder: Path | None) -> Environment:
    """A virtual environment with llama-cpp-python.

    Raises:
        SkipBenchmark: without one, and on a system where its libraries have other names.
    """
    require_linux()
    if folder is None:
        raise SkipBenchmark("no llama-cpp-python: --llama-cpp names its environment, see README.md")
    python = folder.absolute() / "bin" / "python"
    if not python.is_file():
        raise SkipBenchmark(f"{folder} is no virtual environment: it has no bin/python")
    return Environment(python)


def layer_products(
    width: int, intermediate: int, layers: int, row_counts: list[int], threads: int, dtype: str
) -> Workload:
    """Milliseconds of a layer's products by this package's linear layers."""
    import torch

    from qwen_audio.weights.compiled_int4 import int4_instructions
    from qwen_audio.weights.quantization import LinearFormat, quantize_matrix
    from qwen_audio.weights.quantized_linear import quantized_linear

    torch.set_num_threads(threads)
    torch_dtype = getattr(torch, dtype)
    matrices = layer_matrices(width, intermediate)
    formats = {"int4": LinearFormat(4, 32), "int8": LinearFormat(8)}
    modules: dict[str, list[list[torch.nn.Module]]] = {}
    for kind in KINDS:
        quantized = [quantize_matrix(torch.from_numpy(each), formats[kind]) for each in matrices]
        modules[kind] = [
            [
                # As in the model, the input of the language model takes 16 bits.
                quantized_linear(each, None, torch_dtype, activation_bits=16)
                for each in quantized
            ]
            for _ in range(layers)
        ]
    inputs = {
        count: [torch.from_numpy(each).to(torch_dtype) for each in layer_inputs(matrices, count)]
        for count in row_counts
    }

    def multiply(kind: str, count: int) -> Callable[[int], None]:
        def layer(index: int) -> None:
            for module, rows in zip(modules[kind][index], inputs[count], strict=True):
                module(rows)

        return layer

    count = row_counts[1]
    first = inputs[count][0]
    with torch.inference_mode():
        errors = {
            kind: relative_error(layers[0][0](first).float().numpy(), matrices[0], count)
            for kind, layers in modules.items()
        }

    @torch.inference_mode()
    def run() -> dict[str, Any]:
        return {
            "milliseconds": {
                f"{kind}_{count}": least_milliseconds(multiply(kind, count), layers, count)
                for kind in KINDS
                for count in row_counts
            },
            "errors": errors,
            "instructions": int4_instructions() or torch.backends.cpu.get_cpu_capability(),
        }

    return run


def ggml_products(
    width: int, intermediate: int, layers: int, row_counts: list[int], threads: int
) -> Workload:
    """The same by ggml."""
    from .ggml_library import Ggml, Products

    library = Ggml(threads)
    matrices = layer_matrices(width, intermediate)
    timed: dict[str, tuple[Callable[[int], None], int]] = {}
    errors = {}
    for kind in GGML_KINDS:
        products = Products(library, kind, matrices, layers)
        for count in row_counts:
            multiply, tensors = products.graphs(layer_inputs(matrices, count))
            timed[f"{kind}_{count}"] = multiply, count
            if count == row_counts[1]:
                multiply(layers - 1)
                values = products.values(tensors[0], (count, width))
                errors[kind] = relative_error(values, matrices[0], count)

    def run() -> dict[str, Any]:
        return {
            "milliseconds": {
                name: least_milliseconds(multiply, layers, count)
                for name, (multiply, count) in timed.items()
            },
            "errors": errors,
            "instructions": "AVX512" if library.has_avx512 else "AVX2",
        }

    return run


def least_milliseconds(multiply: Callable[[int], None], layers: int, rows: int) -> float:
    """Of one layer, in the fastest of some turns through all."""
    turns = []
    for _ in range(_TURNS if rows < _TURN_ROWS else 1):
        start = perf_counter()
        for layer in range(layers):
            multiply(layer)
        turns.append((perf_counter() - start) / layers)
    return 1000 * min(turns)


def layer_matrices(width: int, intermediate: int) -> list[np.ndarray]:
    """q, k, v, o, gate, up and down, (out, in), of normally distributed numbers."""
    random = np.random.default_rng(0)
    shapes = [(width, width)] * 4 + [(intermediate, width)] * 2 + [(width, intermediate)]
    return [random.standard_normal(shape, dtype=np.float32) for shape in shapes]


def layer_inputs(matrices: list[np.ndarray], rows: int) -> list[np.ndarray]:
    """For each matrix its input (rows, in): the same for all with as many columns."""
    random = np.random.default_rng(1)
    widths = dict.fromkeys(matrix.shape[1] for matrix in matrices)
    of_width = {each: random.standard_normal((rows, each), dtype=np.float32) for each in widths}
    return [of_width[matrix.shape[1]] for matrix in matrices]


def relative_error(products: np.ndarray, matrix: np.ndarray, rows: int) -> float:
    """Of the products of the first matrix, relative to their norm."""
    exact = layer_inputs([matrix], rows)[0] @ matrix.T
    return float(np.linalg.norm(products - exact) / np.linalg.norm(exact))
