"""How much of the processor's matrix rate the encoder reaches."""

from __future__ import annotations

from typing import Any

from .benchmark import Result, Settings, Target
from .checkpoints import EAR, SMALL, checkpoint
from .encoder import DTYPE
from .rounds import in_turns, median
from .worker import Turn

__all__ = ["bare", "matrix_rate"]

ROWS = 1500
"""Encoder frames of 30 s."""


def matrix_rate(settings: Settings) -> Result:
    """The layers' time is that of the deepest encoder tap, less that of encoder.0."""
    shape = SMALL if settings.quick else EAR
    taps = ["encoder.0", f"encoder.{shape.encoder_layers}"]
    common = {"dtype": DTYPE, "threads": settings.threads}
    clip = {"checkpoint": str(checkpoint(settings.work, shape)), "seconds": 30.0, "count": 1}
    size = {"width": shape.width, "heads": shape.encoder_heads}
    rounds = in_turns(
        settings,
        {
            "bare": ("matmul_throughput:bare", {**common, **size}),
            "ours": ("this_package:depths", {**common, **clip, "taps": taps}),
        },
    )
    linear, attention = _linear_flop(shape.width), _attention_flop(shape.width)
    layer = [
        (of["seconds_of"][taps[1]] - of["seconds_of"][taps[0]]) / shape.encoder_layers
        for of in rounds.facts("ours")
    ]
    matrix = rounds.facts("bare")
    return Result(
        what="achieved matrix rate of the encoder layers at 30 s (products of the attention "
        "included, everything else in a layer counted as time only), against bare products of "
        "activations and weights of the same shapes; and the time of all bare products, those of "
        "the attention included, against the layers'",
        dtype=DTYPE,
        figures={
            "gflop_per_layer": (linear + attention) / 1e9,
            "layer_seconds": median(layer),
            "encoder_gflop_per_second": (linear + attention) / 1e9 / median(layer),
            "bare_gflop_per_second": linear / 1e9 / median(of["linear"] for of in matrix),
            "bare_attention_gflop_per_second": attention
            / 1e9
            / median(of["attention"] for of in matrix),
            "all_products_ratio": median(
                (of["linear"] + of["attention"]) / took
                for of, took in zip(matrix, layer, strict=True)
            ),
        },
        ratio=median(
            (linear + attention) / took / (linear / of["linear"])
            for of, took in zip(matrix, layer, strict=True)
        ),
        target=Target(0.85),
    )


def bare(width: int, heads: int, dtype: str, threads: int, layers: int = 8) -> Turn:
    """One layer's products, each `layers` times with other weights: too many for any cache."""
    from time import perf_counter

    import torch

    torch.set_num_threads(threads)
    numbers = {"dtype": getattr(torch, dtype)}
    narrow, wide = torch.randn(ROWS, width, **numbers), torch.randn(ROWS, 4 * width, **numbers)
    pairs = [
        (given, torch.randn(out, given.shape[1], **numbers))
        for _ in range(layers)
        for given, out in [(narrow, width)] * 4 + [(narrow, 4 * width), (wide, width)]
    ]
    query = torch.randn(heads, ROWS, width // heads, **numbers)
    key = torch.randn(heads, width // heads, ROWS, **numbers)

    @torch.inference_mode()
    def turn() -> dict[str, Any]:
        start = perf_counter()
        for given, weight in pairs:
            torch.mm(given, weight.T)
        middle = perf_counter()
        for _ in range(layers):
            for head in range(heads):
                torch.mm(torch.mm(query[head], key[head]), query[head])
        end = perf_counter()
        return {"linear": (middle - start) / layers, "attention": (end - middle) / layers}

    turn()
    return turn


def _linear_flop(width: int) -> float:
    return 2.0 * ROWS * (4 * width * width + 2 * width * 4 * width)


def _attention_flop(width: int) -> float:
    return 4.0 * ROWS * ROWS * width
