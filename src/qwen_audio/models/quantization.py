"""Quantisation schemes: which weights of a model are held in how many bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_audio.weights.option_values import QUANTIZATIONS, check_quantize
from qwen_audio.weights.quantization import LinearFormat

from .tap import Stage
from .tensors import LM_HEAD, TensorRequirement

__all__ = ["QuantizationScheme", "cache_folder"]

_VERSION = 1
"""Of the way weights are quantised: part of the name of the folder that they are cached in."""


@dataclass(frozen=True)
class QuantizationScheme:
    """The bits of the linear layers of a model's parts; all else stays in the computation's dtype:
    convolutions, norms, biases, positions, the projector, and the embedding table, of which only
    rows are read.

    Attributes:
        spec: what decides the numbers, such as "int4-g32+head-int8".
        layers: of the language model.
        head: from hidden states to tokens.
        encoder: the audio encoder's layers; None: not quantised.
    """

    spec: str
    layers: LinearFormat
    head: LinearFormat
    encoder: LinearFormat | None = None

    @classmethod
    def named(cls, name: str) -> QuantizationScheme:
        """Raises OptionError for anything but "int8", "int4" and "int4-g128"."""
        check_quantize(name)
        return cls(QUANTIZATIONS[name], *_SCHEMES[name])

    def formats(self, requirements: Mapping[str, TensorRequirement]) -> dict[str, LinearFormat]:
        """By name, the tensors that are quantised, with their formats."""
        formats: dict[str, LinearFormat] = {}
        for name, requirement in requirements.items():
            form: LinearFormat | None = None
            if name == LM_HEAD:
                form = self.head
            elif ".layers." in name and len(requirement.shape) == 2 and requirement.tap is not None:
                form = self.layers if requirement.tap.stage is Stage.LM else self.encoder
            if form is not None:
                formats[name] = form
        return formats


_INT8 = LinearFormat(8)
_SCHEMES = {
    "int8": (_INT8, _INT8, _INT8),
    "int4": (LinearFormat(4, 32), _INT8, None),
    "int4-g128": (LinearFormat(4, 128), LinearFormat(4, 128), _INT8),
}
"""Formats of the language model's layers, of its head and of the encoder. The encoder is small, and
in 4 bits it changes more captions than the language model does."""


def cache_folder(revision: str, adapter_hash: str | None, scheme: QuantizationScheme) -> Path:
    """Where the quantised weights of a checkpoint are kept: in huggingface_hub's assets folder."""
    from huggingface_hub import cached_assets_path

    adapter = "" if adapter_hash is None else f"-{adapter_hash}"
    key = f"{revision}{adapter}-{scheme.spec}-v{_VERSION}"
    return cached_assets_path("qwen_audio", namespace="quantized", subfolder=key)
