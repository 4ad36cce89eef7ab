"""Throughput of matrix products in the encoder, against bare products of the same shapes."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from .benchmark import Result, Settings, Target
from .checkpoints import FULL_ENCODER, SMALL, random_checkpoint
from .encoder import DTYPE
from .rounds import median, run_interleaved
from .worker import Workload

__all__ = ["matrix_rate", "multiply_matrices"]

ROWS = 1500
"""Encoder frames of 30 s."""


def matrix_rate(settings: Settings) -> Result:
    """The layers' time is that of the deepest encoder tap, less that of encoder.0."""
    shape = SMALL if settings.quick else FULL_ENCODER
    taps = ["encoder.0", f"encoder.{shape.encoder_layers}"]
    common = {"dtype": DTYPE, "threads": settings.threads}
    clip = {"checkpoint": str(random_checkpoint(settings.work, shape)), "seconds": 30.0, "count": 1}
    size = {"width": shape.width, "heads": shape.encoder_heads}
    rounds = run_interleaved(
        settings,
        {
            "bare": ("matmul_throughput:multiply_matrices", {**common, **size}),
            "ours": ("this_package:encode_taps", {**common, **clip, "taps": taps}),
        },
    )
    linear_flop, attention_flop = _linear_flop(shape.width), _attention_flop(shape.width)
    layer_flop = linear_flop + attention_flop
    layer_seconds = []
    for output in rounds.outputs("ours"):
        first, last = (output["seconds_of"][tap] for tap in taps)
        layer_seconds.append((last - first) / shape.encoder_layers)
    linear_seconds = rounds.values("bare", "linear")
    attention_seconds = rounds.values("bare", "attention")
    return Result(
        what="floating-point operations per second of the encoder layers at 30 s (products of "
        "linear layers and attention, in the time of whole layers), against bare products of the "
        "linear layers' shapes; also the time of all bare products, attention included, against "
        "that of the layers",
        dtype=DTYPE,
        figures={
            "gflop_per_layer": layer_flop / 1e9,
            "layer_seconds": median(layer_seconds),
            "encoder_gflop_per_second": layer_flop / 1e9 / median(layer_seconds),
            "bare_gflop_per_second": linear_flop / 1e9 / median(linear_seconds),
            "bare_attention_gflop_per_second": attention_flop / 1e9 / median(attention_seconds),
            "all_products_ratio": median(
                (linear + attention) / layer
                for linear, attention, layer in zip(
                    linear_seconds, attention_seconds, layer_seconds, strict=True
                )
            ),
        },
        ratio=median(
            (layer_flop / layer) / (linear_flop / linear)
            for layer, linear in zip(layer_seconds, linear_seconds, strict=True)
        ),
        target=Target(0.85),
    )


def multiply_matrices(
    width: int, heads: int, dtype: str, threads: int, layers: int = 8
) -> Workload:
    """Seconds of one layer's products, averaged over `layers` layers of different weights.

    With fewer, the weights would stay in the processor's cache.
    """
    import torch

    torch.set_num_threads(threads)
    options = {"dtype": getattr(torch, dtype)}
    narrow, wide = torch.randn(ROWS, width, **options), torch.randn(ROWS, 4 * width, **options)
    linear_operands = [
        (x, torch.randn(output_width, x.shape[1], **options))
        for _ in range(layers)
        for x, output_width in [(narrow, width)] * 4 + [(narrow, 4 * width), (wide, width)]
    ]
    query = torch.randn(heads, ROWS, width // heads, **options)
    key = torch.randn(heads, width // heads, ROWS, **options)

    @torch.inference_mode()
    def run() -> dict[str, Any]:
        start = perf_counter()
        for x, weight in linear_operands:
            torch.mm(x, weight.T)
        middle = perf_counter()
        for _ in range(layers):
            for head in range(heads):
                torch.mm(torch.mm(query[head], key[head]), query[head])
        end = perf_counter()
        return {"linear": (middle - start) / layers, "attention": (end - middle) / layers}

    run()
    return run


def _linear_flop(width: int) -> float:
    """Of one layer's linear layers: four of [width, width], two of [width, 4 width]."""
    return 2.0 * ROWS * (4 * width * width + 2 * width * 4 * width)


def _attention_flop(width: int) -> float:
    """Of one layer's products of queries, keys and values."""
    return 4.0 * ROWS * ROWS * width
