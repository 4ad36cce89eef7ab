"""Checkpoints as other programs store them quantised, written by the published layouts.

Matrices get random values, scales and zero points. Packing is written out value by value, apart
from the code that reads it; `tests/models/test_stored_quantization.py` says which real programs'
files it has been compared with.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from checkpoints import edit_json

Parts = dict[str, Any]
"""By names in the layer: "qweight", "weight.absmax"."""

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The values of nf4, from the paper's code."""


class Method(NamedTuple):
    """One way to store matrices.

    Attributes:
        spec: of a checkpoint in which all linear layers of the language model are stored so.
        settings: quantization_config of config.json.
        write: a random matrix of shape (rows, columns): its parts, and the matrix itself.
    """

    spec: str
    settings: dict[str, Any]
    write: Callable[[np.random.Generator, int, int], tuple[Parts, np.ndarray]]


def packed(values: np.ndarray, order: tuple[int, ...] = tuple(range(8))) -> np.ndarray:
    """Values of 4 bits (n, 8m) → int32 (n, m): from the lowest bits on those at `order`."""
    result = np.zeros((len(values), values.shape[1] // 8), np.uint32)
    for place, number in enumerate(order):
        for word in range(result.shape[1]):
            result[:, word] |= values[:, 8 * word + number].astype(np.uint32) << (4 * place)
    return result.view(np.int32)


def grouped(
    random: np.random.Generator, rows: int, columns: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Values (rows, columns), zero points and scales (rows, groups), and the matrix."""
    values = random.integers(0, 16, (rows, columns))
    zeros = random.integers(1, 16, (rows, columns // size))
    zeros[0, 0] = 0
    scales = (random.random(zeros.shape) + 0.5).astype(np.float16) / np.float16(5 * columns**0.5)
    weight = np.empty((rows, columns), np.float32)
    for column in range(columns):
        group = column // size
        weight[:, column] = (values[:, column] - zeros[:, group]) * scales[:, group].astype("f4")
    return values, zeros, scales, weight


def gptq(size: int = 32, version: int = 1) -> Any:
    def write(random: np.random.Generator, rows: int, columns: int) -> tuple[Parts, np.ndarray]:
        values, zeros, scales, weight = grouped(random, rows, columns, size or columns)
        packed_zeros = packed(zeros.T)
        if version == 1:  # as gptqmodel stores it: less one in each, with borrowing
            packed_zeros = packed_zeros - np.int32(0x11111111)
        return {
            "qweight": packed(values).T,
            "qzeros": packed_zeros,
            "scales": scales.T,
            "g_idx": (np.arange(columns) // (size or columns)).astype(np.int32),
        }, weight

    return write


def awq(random: np.random.Generator, rows: int, columns: int) -> tuple[Parts, np.ndarray]:
    values, zeros, scales, weight = grouped(random, rows, columns, 32)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    parts = {"qweight": packed(values.T, order), "qzeros": packed(zeros.T, order)}
    return {**parts, "scales": scales.T}, weight


def compressed4(*, symmetric: bool, size: int = 32) -> Any:
    def write(random: np.random.Generator, rows: int, columns: int) -> tuple[Parts, np.ndarray]:
        values, zeros, scales, weight = grouped(random, rows, columns, size or columns)
        parts = {
            "weight_packed": packed(values),
            "weight_scale": scales,
            "weight_shape": np.array([rows, columns]),
        }
        if symmetric:
            scale = np.repeat(scales.astype("f4"), size or columns, 1)
            return parts, ((values - 8) * scale).astype("f4")
        filled = np.zeros((-(-rows // 8) * 8, zeros.shape[1]), int)
        filled[:rows] = zeros
        return {**parts, "weight_zero_point": packed(filled.T).T}, weight

    return write


def int8(random: np.random.Generator, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Values, and their scales (rows, 1)."""
    values = random.integers(-127, 128, (rows, columns)).astype(np.int8)
    return values, ((random.random((rows, 1)) + 0.5) / (73 * columns**0.5)).astype("f4")


def compressed8(random: np.random.Generator, rows: int, columns: int) -> tuple[Parts, np.ndarray]:
    values, scales = int8(random, rows, columns)
    return {"weight": values, "weight_scale": scales}, values * scales


def compressed8_packed(
    random: np.random.Generator, rows: int, columns: int
) -> tuple[Parts, np.ndarray]:
    values, scales = int8(random, rows, columns)
    words = np.zeros((rows, columns // 4), np.uint32)
    for place in range(4):
        words |= (values[:, place::4].astype(int) + 128).astype(np.uint32) << (8 * place)
    parts = {"weight_packed": words.view(np.int32), "weight_scale": scales}
    return {**parts, "weight_shape": np.array([rows, columns])}, values * scales


def bnb8(random: np.random.Generator, rows: int, columns: int) -> tuple[Parts, np.ndarray]:
    values, scales = int8(random, rows, columns)
    parts = {"weight": values, "SCB": 127 * scales[:, 0], "weight_format": np.uint8(0)}
    return parts, values * scales


def nf4(*, nested: bool) -> Any:
    def write(random: np.random.Generator, rows: int, columns: int) -> tuple[Parts, np.ndarray]:
        codes = random.integers(0, 16, rows * columns)
        blocks = rows * columns // 64
        state = {
            "quant_type": "nf4",
            "blocksize": 64,
            "dtype": "float16",
            "shape": [rows, columns],
        }
        parts: Parts = {
            "weight": (codes[0::2] << 4 | codes[1::2]).astype(np.uint8)[:, None],
            "weight.quant_map": np.array(NF4, "f4"),
        }
        scales = ((random.random(blocks) + 0.5) * 2 / columns**0.5).astype("f4")
        if nested:
            state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.125}
            quantized = random.integers(0, 256, blocks)
            code = np.linspace(-1, 1, 256, dtype="f4")
            outer = (random.random(-(-blocks // 256)) / 8).astype("f4")
            scales = np.array(
                [code[value] * outer[block // 256] for block, value in enumerate(quantized)]
            ) + np.float32(0.125)
            parts |= {
                "weight.absmax": quantized.astype(np.uint8),
                "weight.nested_absmax": outer,
                "weight.nested_quant_map": code,
            }
        else:
            parts["weight.absmax"] = scales
        data = json.dumps(state).encode()
        parts["weight.quant_state.bitsandbytes__nf4"] = np.frombuffer(data, np.uint8)
        weight = [np.float32(NF4[code]) * scales[n // 64] for n, code in enumerate(codes)]
        rounded = np.array(weight, "f4").astype(np.float16).astype("f4")
        return parts, rounded.reshape(rows, columns)

    return write


def compressed_settings(**weights: Any) -> dict[str, Any]:
    group = {
        "targets": ["Linear"],
        "weights": {"num_bits": 4, "type": "int", "symmetric": True, **weights},
        "input_activations": None,
    }
    bits8 = weights.get("num_bits") == 8
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if bits8 else "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head", "re:.*audio_tower.*"],
    }


_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}
_GROUPS = {"strategy": "group", "group_size": 32}

METHODS = {
    "gptq": Method("gptq-int4-g32", _GPTQ, gptq()),
    "gptq v2": Method("gptq-int4-g32", {**_GPTQ, "checkpoint_format": "gptq_v2"}, gptq(version=2)),
    "gptq rows": Method("gptq-int4", {**_GPTQ, "group_size": -1}, gptq(0)),
    "awq": Method(
        "awq-int4-g32",
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True},
        awq,
    ),
    "ct 4": Method("ct-int4-g32", compressed_settings(**_GROUPS), compressed4(symmetric=True)),
    "ct 4 asymmetric": Method(
        "ct-int4-g32", compressed_settings(**_GROUPS, symmetric=False), compressed4(symmetric=False)
    ),
    "ct 4 rows": Method(
        "ct-int4", compressed_settings(strategy="channel"), compressed4(symmetric=True, size=0)
    ),
    "ct 8": Method("ct-int8", compressed_settings(strategy="channel", num_bits=8), compressed8),
    "ct 8 packed": Method(
        "ct-int8",
        {**compressed_settings(strategy="channel", num_bits=8), "format": "pack-quantized"},
        compressed8_packed,
    ),
    "bnb 8": Method("bnb-int8", {"quant_method": "bitsandbytes", "load_in_8bit": True}, bnb8),
    "nf4": Method(
        "bnb-nf4", {"quant_method": "bitsandbytes", "load_in_4bit": True}, nf4(nested=False)
    ),
    "nf4 nested": Method(
        "bnb-nf4", {"quant_method": "bitsandbytes", "load_in_4bit": True}, nf4(nested=True)
    ),
}


def quantize_checkpoint(base: Path, folder: Path, method: Method, *, inner: bool = False) -> Path:
    """Store the linear layers of a checkpoint's language model in `folder`, with others' values.

    Args:
        base: of one file, in float32.
        inner: with the names of transformers 5's modules.

    Returns:
        A folder with the same weights in float32.
    """
    dense = folder.with_name(f"{folder.name} dense")
    for copy in (folder, dense):
        shutil.copytree(base, copy)
    random = np.random.default_rng(0)
    tensors = load_file(base / "model.safetensors")
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        as_stored = name
        if inner:
            as_stored = f"model.{name}".replace(
                "model.language_model.model.", "model.language_model."
            )
            as_stored = as_stored.replace("model.language_model.lm_head", "lm_head")
        if "language_model.model.layers" not in name or tensor.ndim != 2:
            stored[as_stored] = tensor
            continue
        parts, weight = method.write(random, *tensor.shape)
        tensors[name] = torch.from_numpy(weight)
        if method.settings.get("group_size") == -1 and f"{name[:-6]}bias" not in tensors:
            parts["bias"] = np.zeros(len(weight), np.float16)  # as earlier AutoGPTQ
        for part, values in parts.items():
            stored[as_stored.removesuffix("weight") + part] = torch.from_numpy(
                np.array(values)
            ).contiguous()
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    save_file(tensors, dense / "model.safetensors", {"format": "pt"})
    edit_json(folder / "config.json", quantization_config=method.settings)
    return dense
