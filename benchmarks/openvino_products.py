"""The products of decoder layers with weights in 4 bits by OpenVINO, as its converters of language
models compress them: groups of 32, with zero points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .ggml import layer_inputs, layer_matrices, least_milliseconds, relative_error
from .worker import Workload

__all__ = ["openvino_products"]

GROUP = 32


def openvino_products(
    width: int,
    intermediate: int,
    layers: int,
    row_counts: list[int],
    threads: int,
    exact_input: bool = False,
) -> Workload:
    """Milliseconds of a layer's products, as `ggml.layer_products` gives them.

    Args:
        exact_input: whether activations are in float32, as on a processor with neither VNNI nor
            bfloat16. OpenVINO asks the processor itself for them, and fails where oneDNN is told to
            do without.
    """
    import openvino

    matrices = layer_matrices(width, intermediate)
    quantized = [_quantized(each) for each in matrices]
    properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if exact_input:
        properties |= {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0, "INFERENCE_PRECISION_HINT": "f32"}
    requests = [
        openvino.Core()
        .compile_model(_layer(matrices, quantized), "CPU", properties)
        .create_infer_request()
        for _ in range(layers)
    ]
    inputs = {}
    for count in row_counts:
        of_matrices = layer_inputs(matrices, count)
        inputs[count] = {0: of_matrices[0], 1: of_matrices[-1]}

    def multiply(count: int) -> Callable[[int], None]:
        def layer(index: int) -> None:
            requests[index].infer(inputs[count], share_inputs=True, share_outputs=True)

        return layer

    count = row_counts[1]
    products = requests[0].infer(inputs[count])[0]
    errors = {"int4": relative_error(products, matrices[0], count)}

    def run() -> dict[str, Any]:
        return {
            "milliseconds": {
                f"int4_{count}": least_milliseconds(multiply(count), layers, count)
                for count in row_counts
            },
            "errors": errors,
        }

    return run


def _layer(
    matrices: list[np.ndarray], quantized: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> Any:
    """A model of products, which are its outputs; its inputs are those of the first matrix and of
    the last."""
    import openvino
    from openvino import opset13 as ops

    sources = [
        ops.parameter([-1, matrix.shape[1]], openvino.Type.f32)
        for matrix in (matrices[0], matrices[-1])
    ]
    products = []
    for matrix, (values, zero_points, scales) in zip(matrices, quantized, strict=True):
        whole, zeros = (
            ops.convert(ops.constant(each, dtype=openvino.Type.u4), "f16")
            for each in (values, zero_points)
        )
        grouped = ops.multiply(ops.subtract(whole, zeros), ops.constant(scales))
        weight = ops.reshape(grouped, ops.constant(np.array(matrix.shape)), False)
        source = sources[matrix.shape[1] != matrices[0].shape[1]]
        products.append(ops.matmul(source, ops.convert(weight, "f32"), False, True))
    return openvino.Model(products, sources, "layer")


def _quantized(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values from 0 to 15 (rows, groups, columns), zero points and scales of each group."""
    grouped = matrix.reshape(len(matrix), -1, GROUP)
    least = np.minimum(grouped.min(-1, keepdims=True), 0)
    scales = ((np.maximum(grouped.max(-1, keepdims=True), 0) - least) / 15).astype(np.float16)
    zero_points = np.clip(np.round(-least / scales), 0, 15)
    values = np.clip(np.round(grouped / scales) + zero_points, 0, 15)
    return values.astype(np.uint8), zero_points.astype(np.uint8), scales
