"""Speed and accuracy of encoder layers with int8 products on this processor.

An int8 path is worth having with 1.5 times the speed of bfloat16 and a cosine of .999 per layer.
Measured are the two int8 products of torch: oneDNN's `qlinear_pointwise` (to which torchao's
dynamic int8 is compiled) and FBGEMM's dynamic linear layer (`torch.ao.quantization`). Weights are
int8 per row, activations int8 per tensor; attention is this package's, in bfloat16.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qwen_audio.models.packed_attention import ATTENTION, Packing

from .benchmark import Result, Settings, Target
from .checkpoints import EMBEDDED, FULL_ENCODER, SMALL, random_checkpoint
from .encoder import DTYPE
from .rounds import ROOT, median, run_interleaved, run_once
from .worker import Workload

__all__ = ["int8", "random_layers", "trained_layers"]

DEPTH = 4
KINDS = ("bfloat16", "onednn", "fbgemm")
LENGTHS = {"five_seconds": 250, "thirty_seconds": 1500}
"""Encoder frames."""


def int8(settings: Settings) -> Result:
    shape = SMALL if settings.quick else FULL_ENCODER
    depth = DEPTH if not settings.quick else 2
    options = {
        "checkpoint": str(random_checkpoint(settings.work, shape)),
        "depth": depth,
        "threads": settings.threads,
    }
    rounds = run_interleaved(settings, {"layers": ("int8:random_layers", options)})
    outputs = rounds.outputs("layers")
    random_cosines = outputs[0]["cosines"]
    job = ("int8:trained_layers", {"threads": settings.threads})
    trained_cosines = run_once(settings, job)["cosines"]
    figures: dict[str, object] = {
        f"trained_{kind}_lowest_cosine": trained_cosines[kind] for kind in KINDS
    }
    fastest = dict.fromkeys(LENGTHS, 0.0)
    lowest_cosine = 1.0
    for length in LENGTHS:
        for kind in KINDS:
            key = f"{length}_{kind}"
            figures[f"{key}_seconds_per_layer"] = median(
                output["seconds_of"][key] for output in outputs
            )
            figures[f"{key}_lowest_cosine"] = random_cosines[key]
            if kind != "bfloat16":
                base = f"{length}_bfloat16"
                speed = median(
                    output["seconds_of"][base] / output["seconds_of"][key] for output in outputs
                )
                figures[f"{key}_speed"] = speed
                if speed > fastest[length]:
                    fastest[length] = speed
                    lowest_cosine = min(lowest_cosine, random_cosines[key], trained_cosines[kind])
    return Result(
        what=f"{depth} encoder layers of {shape.width} with int8 linear layers against bfloat16: "
        "the faster of two int8 products, at the length (5 s or 30 s) with the smaller speedup; "
        "the lowest cosine between what a layer adds to the residual stream and the same in "
        "float32, of these random layers and of the embedded checkpoint's over the examples",
        dtype=f"int8 against {DTYPE}",
        figures=figures,
        ratio=min(fastest.values()),
        target=Target(1.5),
        conditions={"cosine at least .999": lowest_cosine >= 0.999},
    )


class _QuantizedActivations:
    """One tensor in uint8 with its scale, shared by all products of that tensor."""

    source: Tensor | None = None
    values: Tensor
    scale: float

    def __call__(self, x: Tensor) -> tuple[Tensor, float]:
        if self.source is not x:
            lowest, highest = torch.aminmax(x)
            self.scale = max(-float(lowest), float(highest)) / 127 or 1.0
            zero = torch.tensor(128.0, dtype=x.dtype)
            self.values = torch.add(zero, x, alpha=1 / self.scale).round_().to(torch.uint8)
            self.source = x
        return self.values, self.scale


class _OneDnnLinear(nn.Module):
    """Linear layer with oneDNN's int8 product."""

    def __init__(self, linear: nn.Linear, activations: _QuantizedActivations) -> None:
        super().__init__()
        weight = linear.weight.float()
        self._scales = weight.abs().amax(1) / 127
        values = (weight / self._scales[:, None]).round().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(values, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int)
        self._bias = None if linear.bias is None else linear.bias.float()
        self._activations = activations

    def forward(self, x: Tensor) -> Tensor:
        values, scale = self._activations(x)
        return torch.ops.onednn.qlinear_pointwise(
            values,
            scale,
            128,
            self._packed,
            self._scales,
            self._zeros,
            self._bias,
            1.0,
            0,
            torch.bfloat16,
            "none",
            [],
            "",
        )


class _FbgemmLinear(nn.Module):
    """Dynamically quantized linear layer of `torch.ao.quantization`: float32 in and out."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        torch.backends.quantized.engine = "fbgemm"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated in favour of torchao
            self._linear = torch.ao.quantization.quantize_dynamic(
                nn.Sequential(linear.float()), {nn.Linear}, dtype=torch.qint8
            )

    def forward(self, x: Tensor) -> Tensor:
        return self._linear(x.float()).bfloat16()


def random_layers(checkpoint: str, depth: int, threads: int) -> Workload:
    """Seconds per layer and cosines of the first `depth` layers, by kind and length."""
    from time import perf_counter

    torch.set_num_threads(threads)
    reference_layers = _load_layers(Path(checkpoint), depth)
    width = reference_layers[0].embed_dim
    layers_of = _convert_to_kinds(reference_layers)
    rows = torch.randn(1, max(LENGTHS.values()), width, generator=torch.Generator().manual_seed(0))
    cosines: dict[str, float] = {}

    def seconds_per_layer(kind: str, length: int) -> float:
        x = rows[:, :length].bfloat16()
        start = perf_counter()
        for layer in layers_of[kind]:
            x = layer(x, None, packing=Packing((length,)))
        return (perf_counter() - start) / depth

    with torch.inference_mode():
        for name, length in LENGTHS.items():
            for kind, layers in layers_of.items():
                x = rows[:, :length]
                lowest = 1.0
                for layer, reference in zip(layers, reference_layers, strict=True):
                    cosine, x = _compare(layer, reference, x)
                    lowest = min(lowest, cosine)
                cosines[f"{name}_{kind}"] = lowest

    @torch.inference_mode()
    def run() -> dict[str, Any]:
        seconds_of = {
            f"{name}_{kind}": median([seconds_per_layer(kind, length) for _ in range(3)])
            for name, length in LENGTHS.items()
            for kind in layers_of
        }
        return {"seconds_of": seconds_of, "cosines": cosines}

    return run


def trained_layers(threads: int) -> Workload:
    """Lowest cosine by kind of the embedded checkpoint's layers, over the example recordings.

    Trained layers have outliers, random ones don't.
    """
    import qwen_audio as qa

    torch.set_num_threads(threads)
    model = qa.load(device="cpu", dtype="float32")
    depth = model.dimensions.encoder_layers
    reference_layers = _load_layers(EMBEDDED, depth)
    clips = sorted((ROOT / "examples").glob("*.flac"))
    recordings = model.activations(clips, taps=[f"encoder.{k}" for k in range(depth)])

    @torch.inference_mode()
    def run() -> dict[str, Any]:
        cosines = {
            kind: min(
                _compare(layer, reference_layers[k], _layer_input(taps[f"encoder.{k}"].data))[0]
                for taps in recordings
                for k, layer in enumerate(layers)
            )
            for kind, layers in _convert_to_kinds(reference_layers).items()
        }
        return {"cosines": cosines}

    return run


def _layer_input(data: Any) -> Tensor:
    """Hidden states [frames, width] as a layer's input [1, frames, width], at most one window."""
    return torch.from_numpy(data)[None, : max(LENGTHS.values())]


def _convert_to_kinds(layers: list[Any]) -> dict[str, list[Any]]:
    """Copies of float32 layers in bfloat16 and with both int8 products."""
    return {
        "bfloat16": [copy.deepcopy(layer).bfloat16() for layer in layers],
        "onednn": [
            _replace_linears(layer, _OneDnnLinear, _QuantizedActivations()) for layer in layers
        ],
        "fbgemm": [_replace_linears(layer, _FbgemmLinear) for layer in layers],
    }


def _compare(layer: nn.Module, reference: nn.Module, rows: Tensor) -> tuple[float, Tensor]:
    """Cosine between what a layer and its float32 reference add to the input; reference output."""
    x, packing = rows.bfloat16(), Packing((rows.shape[1],))
    expected = reference(x.float(), None, packing=packing)
    added = layer(x, None, packing=packing).float() - x.float()
    cosine = torch.cosine_similarity(added.flatten(), (expected - x.float()).flatten(), dim=0)
    return float(cosine), expected


def _load_layers(checkpoint: Path, depth: int) -> list[Any]:
    """transformers' encoder layers in float32, with this package's attention."""
    import json

    from safetensors import safe_open
    from transformers import Qwen2AudioConfig
    from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoderLayer

    config: Any = Qwen2AudioConfig.from_pretrained(checkpoint).audio_config
    config._attn_implementation = ATTENTION
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text(encoding="utf-8"))
    layers = []
    for k in range(depth):
        layer = Qwen2AudioEncoderLayer(config)
        prefix = f"audio_tower.layers.{k}."
        state = {}
        for name in layer.state_dict():
            with safe_open(checkpoint / index["weight_map"][prefix + name], "pt") as file:
                state[name] = file.get_tensor(prefix + name).float()
        layer.load_state_dict(state)
        layers.append(layer.float().eval().requires_grad_(False))
    return layers


def _replace_linears(layer: nn.Module, kind: type[nn.Module], *options: Any) -> nn.Module:
    """A copy of a layer in bfloat16 with its six linear layers replaced."""
    converted: Any = copy.deepcopy(layer)
    linears = [name for name, module in converted.named_modules() if isinstance(module, nn.Linear)]
    replaced = {name: kind(converted.get_submodule(name), *options) for name in linears}
    for name in linears:
        parent, _, last = name.rpartition(".")
        setattr(converted.get_submodule(parent), last, nn.Identity())
    converted = converted.bfloat16()
    for name, module in replaced.items():
        parent, _, last = name.rpartition(".")
        setattr(converted.get_submodule(parent), last, module)
    return converted
