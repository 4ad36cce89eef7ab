"""LoRA adapters in PEFT's format and the models that they make, both written by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

TARGETS = ("q_proj", "v_proj", "fc1", "up_proj", "linear")


def write_adapter(
    folder: Path,
    model: Any,
    *,
    targets: tuple[str, ...] = TARGETS,
    rank: int = 4,
    seed: int = 0,
    prefix: str = "base_model.model.",
    infix: str = "",
    replaced: dict[str, torch.Tensor] | None = None,
    **settings: Any,
) -> Path:
    """Write an adapter with random factors for some modules of transformers' model, and add its
    terms to the model, as PEFT's merge_and_unload does.

    Args:
        targets: last parts of the names of the modules.
        prefix: of the tensors' names.
        infix: the adapter's name in the tensors' names, such as ".default".
        replaced: parameters that the adapter has as a whole, by the model's names.
        settings: of adapter_config.json: lora_alpha, use_rslora, alpha_pattern, …
    """
    generator = torch.Generator().manual_seed(seed)
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "owner/base",
        "r": rank,
        "lora_alpha": 8,
        "target_modules": list(targets),
        "bias": "none",
        "use_dora": False,
        **settings,
    }
    tensors: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if name.rpartition(".")[2] not in targets:
            continue
        own_rank = _by_pattern(config.get("rank_pattern"), name, rank)
        alpha = _by_pattern(config.get("alpha_pattern"), name, config["lora_alpha"])
        scale = alpha / (math.sqrt(own_rank) if config.get("use_rslora") else own_rank)
        weight = module.weight.data
        a = torch.randn(own_rank, *weight.shape[1:], generator=generator) * 0.1
        b = torch.randn(weight.shape[0], own_rank, *(1,) * (weight.ndim - 2), generator=generator)
        key = f"{prefix}{name}.lora_{{}}{infix}.weight"
        if isinstance(module, nn.Embedding):
            a, b = torch.randn(own_rank, len(weight), generator=generator) * 0.1, a.T
            b = torch.randn(weight.shape[1], own_rank, generator=generator)
            key = f"{prefix}{name}.lora_embedding_{{}}{infix}"
            weight += scale * (b @ a).T
        else:
            weight += scale * (b.flatten(1) @ a.flatten(1)).view(weight.shape)
        tensors |= {key.format("A"): a, key.format("B"): b}
    parameters = dict(model.named_parameters())
    for name, value in (replaced or {}).items():
        parameters[name].data.copy_(value)
        tensors[f"{prefix}{name}"] = value
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / WEIGHTS)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


WEIGHTS = "adapter_model.safetensors"


def _by_pattern(pattern: dict[str, int] | None, name: str, default: int) -> int:
    """The value of the pattern that the end of a name matches."""
    return next((value for key, value in (pattern or {}).items() if name.endswith(key)), default)
