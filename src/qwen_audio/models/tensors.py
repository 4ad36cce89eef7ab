"""Tensors of a checkpoint: names, shapes, and the first tap that needs each.

Every family uses the same names, whatever its files have: `audio_tower.*`,
`multi_modal_projector.*`, `language_model.model.*` and `language_model.lm_head.*`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from torch import nn

from qwen_audio.weights.meta_device import empty_module

from .tap import ModelDimensions, Tap

__all__ = [
    "DECODER_LAYERS",
    "EMBEDDINGS",
    "LM_HEAD",
    "Shapes",
    "TensorGroup",
    "TensorRequirement",
    "module_names",
    "shapes_of",
    "tensor_requirements",
]

EMBEDDINGS = "language_model.model.embed_tokens.weight"
"""The embedding table, (vocabulary, lm width); only the rows of tokens that occur are read."""

DECODER_LAYERS = "language_model.model.layers."
"""What the names of the language model's layers begin with; their numbers follow."""

LM_HEAD = "language_model.lm_head.weight"
"""From hidden states to a logit for each token, (vocabulary, lm width)."""

Shapes = Mapping[str, tuple[int, ...]]


class TensorGroup(NamedTuple):
    """Tensors whose names begin alike, and that the same tap needs first.

    Attributes:
        prefix: of their names.
        tap: the first tap that needs them; None for the LM head, which only text needs.
        shapes: as stored, by the rest of the name.
        rate_hz: rows per second of audio that are multiplied by them; None: those of the tap.
    """

    prefix: str
    tap: Tap | None
    shapes: Shapes
    rate_hz: float | None = None


class TensorRequirement(NamedTuple):
    """What a tensor is needed for, and its shape.

    Attributes:
        tap: the first tap that needs it, as do all later ones; None for the LM head, which only
            text needs.
        shape: as stored.
        rows_per_second: how many rows per second of audio are multiplied by it: the rate of its
            stage, or 0 for tensors that are only added, scaled by or looked up (biases, norms,
            embeddings). Times the tensor's size, it is multiply-adds per second of audio.
    """

    tap: Tap | None
    shape: tuple[int, ...]
    rows_per_second: float


def tensor_requirements(
    groups: Iterable[TensorGroup], dimensions: ModelDimensions
) -> Iterator[tuple[str, TensorRequirement]]:
    """Name and requirement of every tensor in the groups."""
    for prefix, tap, shapes, rate_hz in groups:
        for name, shape in shapes.items():
            rate = 0.0
            if tap is not None and len(shape) > 1 and "embed_" not in prefix + name:
                rate = dimensions.rate_hz(tap) if rate_hz is None else rate_hz
            yield prefix + name, TensorRequirement(tap, shape, rate)


def module_names(module: str) -> tuple[str, ...]:
    """A module's name in this package, in transformers' model, and in the language model alone."""
    inner = module.removeprefix("language_model.")
    if inner == module:
        return module, f"model.{module}"
    return module, inner.replace("model.", "model.language_model.", 1), inner


def shapes_of(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Shapes of a module's tensors, which are not allocated."""
    return {name: tuple(each.shape) for name, each in empty_module(build).state_dict().items()}
