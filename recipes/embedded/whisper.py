"""Whisper tiny.en's encoder weights, from CTranslate2's file, under Qwen2-Audio's names.

The file is a sequence of (name, shape, type, bytes); only the encoder's float16 tensors are read.
Qwen2AudioEncoder has the same layers as Whisper's encoder, so the tensors correspond one to one.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

_FLOAT16 = 4
_ALIASES = {"beta": "bias", "gamma": "weight"}


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<H", file.read(2))
    return file.read(length).rstrip(b"\0").decode()


def _number(file: BinaryIO) -> int:
    return int(struct.unpack("<I", file.read(4))[0])


def read_encoder(path: Path) -> dict[str, torch.Tensor]:
    """Encoder tensors in float32, by CTranslate2's names without the prefix `encoder/`.

    Raises:
        ValueError: if the file is not a Whisper model.
    """
    tensors: dict[str, torch.Tensor] = {}
    with path.open("rb") as file:
        version = _number(file)
        kind, _revision = _text(file), _number(file)
        if kind != "WhisperSpec":
            raise ValueError(f"{path} is a {kind} model (format {version}), not a Whisper model")
        for _ in range(_number(file)):
            name = _text(file)
            rank = file.read(1)[0]
            shape = [_number(file) for _ in range(rank)]
            dtype = file.read(1)[0]
            data = file.read(_number(file))
            if name.startswith("encoder/") and dtype == _FLOAT16:
                array = np.frombuffer(data, dtype=np.float16).reshape(shape)
                tensors[name.removeprefix("encoder/")] = torch.from_numpy(array.astype(np.float32))
    return tensors


def _qwen_names(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    parts = name.split("/")
    leaf = _ALIASES.get(parts[-1], parts[-1])
    if parts[0] == "position_encodings":
        return {"embed_positions.weight": tensor}
    if parts[0] in ("conv1", "conv2", "layer_norm"):
        return {f"{parts[0]}.{leaf}": tensor}
    layer = f"layers.{parts[0].removeprefix('layer_')}"
    match parts[1:-1]:
        case ["ffn", "layer_norm"]:
            return {f"{layer}.final_layer_norm.{leaf}": tensor}
        case ["ffn", linear]:
            return {f"{layer}.fc{int(linear[-1]) + 1}.{leaf}": tensor}
        case ["self_attention", "layer_norm"]:
            return {f"{layer}.self_attn_layer_norm.{leaf}": tensor}
        case ["self_attention", "linear_1"]:
            return {f"{layer}.self_attn.out_proj.{leaf}": tensor}
    query, key, value = tensor.chunk(3)
    named = {f"{layer}.self_attn.q_proj.{leaf}": query, f"{layer}.self_attn.v_proj.{leaf}": value}
    if leaf == "weight":
        named[f"{layer}.self_attn.k_proj.weight"] = key
    elif key.abs().max() > 0:
        raise ValueError(f"{name}: the key projection has a bias, but Whisper's has none")
    return named


def encoder_weights(path: Path) -> dict[str, torch.Tensor]:
    """Encoder weights under the names of `Qwen2AudioEncoder.state_dict()`."""
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in read_encoder(path).items():
        weights |= _qwen_names(name, tensor)
    return weights
