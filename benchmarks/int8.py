"""Whether an int8 path for the encoder would be worth having on this processor.

Wanted are 1.5 times the speed of bfloat16 and a cosine of .999 per layer. Tried are the two int8
products that torch has: oneDNN's `qlinear_pointwise` (what torchao's dynamic int8 becomes when it
is compiled) and FBGEMM's dynamic linear (`torch.ao.quantization`). Weights are int8 per row,
activations int8 per tensor; attention is this package's own, in bfloat16, for all.
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
from .checkpoints import EAR, SMALL, checkpoint
from .encoder import DTYPE
from .rounds import ROOT, in_turns, median, once
from .worker import Turn

__all__ = ["int8", "layers", "trained"]

DEPTH = 4
KINDS = ("bfloat16", "onednn", "fbgemm")
LENGTHS = {"five_seconds": 250, "thirty_seconds": 1500}


def int8(settings: Settings) -> Result:
    shape = SMALL if settings.quick else EAR
    depth = DEPTH if not settings.quick else 2
    options = {
        "checkpoint": str(checkpoint(settings.work, shape)),
        "depth": depth,
        "threads": settings.threads,
    }
    rounds = in_turns(settings, {"layers": ("int8:layers", options)})
    facts = rounds.facts("layers")
    trained = once(settings, ("int8:trained", {"threads": settings.threads}))["cosines"]
    figures: dict[str, object] = {f"trained_{kind}_lowest_cosine": trained[kind] for kind in KINDS}
    fastest = dict.fromkeys(LENGTHS, 0.0)
    worst = 1.0
    for length in LENGTHS:
        for kind in KINDS:
            key = f"{length}_{kind}"
            figures[f"{key}_seconds_per_layer"] = median(of["took"][key] for of in facts)
            figures[f"{key}_lowest_cosine"] = facts[0]["cosines"][key]
            if kind != "bfloat16":
                base = f"{length}_bfloat16"
                speed = median(of["took"][base] / of["took"][key] for of in facts)
                figures[f"{key}_speed"] = speed
                if speed > fastest[length]:
                    fastest[length] = speed
                    worst = min(worst, facts[0]["cosines"][key], trained[kind])
    return Result(
        what=f"{depth} encoder layers of {shape.width} with int8 linear layers against bfloat16: "
        "the faster of two int8 products, at the length (5 s, 30 s) that gains less; the lowest "
        "cosine of what a layer adds to the residual stream, against float32, of these random "
        "layers and of the embedded checkpoint's trained ones over its examples",
        dtype=f"int8 against {DTYPE}",
        figures=figures,
        ratio=min(fastest.values()),
        target=Target(1.5),
        conditions={"cosine at least .999": worst >= 0.999},
    )


class _Quantised:
    """One tensor's int8 numbers, made once where several products want them."""

    of: Tensor | None = None
    numbers: Tensor
    scale: float

    def __call__(self, x: Tensor) -> tuple[Tensor, float]:
        if self.of is not x:
            lowest, highest = torch.aminmax(x)
            self.scale = max(-float(lowest), float(highest)) / 127 or 1.0
            zero = torch.tensor(128.0, dtype=x.dtype)
            self.numbers = torch.add(zero, x, alpha=1 / self.scale).round_().to(torch.uint8)
            self.of = x
        return self.numbers, self.scale


class _OneDnn(nn.Module):
    """A linear layer whose product oneDNN makes in int8."""

    def __init__(self, linear: nn.Linear, quantised: _Quantised) -> None:
        super().__init__()
        weight = linear.weight.float()
        self._scales = weight.abs().amax(1) / 127
        numbers = (weight / self._scales[:, None]).round().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(numbers, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int)
        self._bias = None if linear.bias is None else linear.bias.float()
        self._quantised = quantised

    def forward(self, x: Tensor) -> Tensor:
        numbers, scale = self._quantised(x)
        return torch.ops.onednn.qlinear_pointwise(
            numbers,
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


class _Fbgemm(nn.Module):
    """A linear layer as `torch.ao.quantization` makes it: float32 in and out."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        torch.backends.quantized.engine = "fbgemm"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces that it will move
            self._linear = torch.ao.quantization.quantize_dynamic(
                nn.Sequential(linear.float()), {nn.Linear}, dtype=torch.qint8
            )

    def forward(self, x: Tensor) -> Tensor:
        return self._linear(x.float()).bfloat16()


def layers(checkpoint: str, depth: int, threads: int) -> Turn:
    """The first layers in every kind, each timed on its own over the same rows."""
    from time import perf_counter

    torch.set_num_threads(threads)
    exact = _layers(Path(checkpoint), depth)
    width = exact[0].embed_dim
    kinds = _kinds(exact)
    rows = torch.randn(1, max(LENGTHS.values()), width, generator=torch.Generator().manual_seed(0))
    cosines: dict[str, float] = {}

    def run(kind: str, length: int) -> float:
        x = rows[:, :length].bfloat16()
        start = perf_counter()
        for layer in kinds[kind]:
            x = layer(x, None, packing=Packing((length,)))
        return (perf_counter() - start) / depth

    with torch.inference_mode():
        for name, length in LENGTHS.items():
            for kind, made in kinds.items():
                x = rows[:, :length]
                lowest = 1.0
                for layer, truth in zip(made, exact, strict=True):
                    cosine, x = _compared(layer, truth, x)
                    lowest = min(lowest, cosine)
                cosines[f"{name}_{kind}"] = lowest

    @torch.inference_mode()
    def turn() -> dict[str, Any]:
        took = {
            f"{name}_{kind}": median([run(kind, length) for _ in range(3)])
            for name, length in LENGTHS.items()
            for kind in kinds
        }
        return {"took": took, "cosines": cosines}

    return turn


def trained(threads: int) -> Turn:
    """The embedded checkpoint's layers over recordings: trained layers have outliers."""
    import qwen_audio as qa

    from .checkpoints import EMBEDDED

    torch.set_num_threads(threads)
    model = qa.load(device="cpu", dtype="float32")
    depth = model.dimensions.encoder_layers
    exact = _layers(EMBEDDED, depth)
    clips = sorted((ROOT / "examples").glob("*.flac"))
    heard = model.activations(clips, taps=[f"encoder.{k}" for k in range(depth)])

    @torch.inference_mode()
    def turn() -> dict[str, Any]:
        cosines = {
            kind: min(
                _compared(layer, exact[k], _rows(frames[f"encoder.{k}"].data))[0]
                for frames in heard
                for k, layer in enumerate(made)
            )
            for kind, made in _kinds(exact).items()
        }
        return {"cosines": cosines}

    return turn


def _rows(data: Any) -> Tensor:
    """At most one window of a clip's frames, as a layer takes them."""
    return torch.from_numpy(data)[None, : max(LENGTHS.values())]


def _kinds(exact: list[Any]) -> dict[str, list[Any]]:
    """The same layers in every kind."""
    return {
        "bfloat16": [copy.deepcopy(layer).bfloat16() for layer in exact],
        "onednn": [_converted(layer, _OneDnn, _Quantised()) for layer in exact],
        "fbgemm": [_converted(layer, _Fbgemm) for layer in exact],
    }


def _compared(layer: nn.Module, exact: nn.Module, rows: Tensor) -> tuple[float, Tensor]:
    """The cosine of what a layer adds to its input against float32, and float32's output."""
    given, packing = rows.bfloat16(), Packing((rows.shape[1],))
    right = exact(given.float(), None, packing=packing)
    added = layer(given, None, packing=packing).float() - given.float()
    cosine = torch.cosine_similarity(added.flatten(), (right - given.float()).flatten(), dim=0)
    return float(cosine), right


def _layers(checkpoint: Path, depth: int) -> list[Any]:
    """transformers' encoder layers in float32, with this package's attention."""
    import json

    from safetensors import safe_open
    from transformers import Qwen2AudioConfig
    from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoderLayer

    config: Any = Qwen2AudioConfig.from_pretrained(checkpoint).audio_config
    config._attn_implementation = ATTENTION
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text(encoding="utf-8"))
    made = []
    for k in range(depth):
        layer = Qwen2AudioEncoderLayer(config)
        prefix = f"audio_tower.layers.{k}."
        state = {}
        for name in layer.state_dict():
            with safe_open(checkpoint / index["weight_map"][prefix + name], "pt") as file:
                state[name] = file.get_tensor(prefix + name).float()
        layer.load_state_dict(state)
        made.append(layer.float().eval().requires_grad_(False))
    return made


def _converted(layer: nn.Module, kind: type[nn.Module], *shared: Any) -> nn.Module:
    """A bfloat16 layer with its six linear layers replaced."""
    made: Any = copy.deepcopy(layer)
    linears = [name for name, module in made.named_modules() if isinstance(module, nn.Linear)]
    replaced = {name: kind(made.get_submodule(name), *shared) for name in linears}
    for name in linears:
        parent, _, last = name.rpartition(".")
        setattr(made.get_submodule(parent), last, nn.Identity())
    made = made.bfloat16()
    for name, module in replaced.items():
        parent, _, last = name.rpartition(".")
        setattr(made.get_submodule(parent), last, module)
    return made
