"""A checkpoint's language model as a GGUF file, quantised as llama.cpp's `llama-quantize` does.

Runs in the environment of llama-cpp-python: numpy and gguf alone are imported. A tensor at a time
is in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .ggml_library import Ggml
from .worker import Workload

__all__ = ["write_gguf"]

_PREFIX = "language_model."
_LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
_CHUNK_VALUES = 1 << 22
"""That a thread converts at a time: 17 MB in float32."""


def write_gguf(
    checkpoint: str, target: str, kind: str, config: dict[str, Any], threads: int
) -> Workload:
    """Write a file.

    Args:
        kind: Q4_0, Q4_K_M, or F32.
        config: of the text model, with the names of transformers.
    """
    import gguf

    ggml = Ggml(threads)
    layers = config["num_hidden_layers"]

    def run() -> None:
        writer = gguf.GGUFWriter(target, "qwen2")
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_block_count(layers)
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(config["rope_theta"])
        writer.add_vocab_size(config["vocab_size"])
        writer.add_tokenizer_model("none")  # token ids go in and out
        tensors = [
            (name, values, _type(ggml, name, values.shape, kind, layers))
            for name, values in _tensors(Path(checkpoint), layers)
        ]
        for name, values, type_name in tensors:
            columns = values.shape[-1]
            row_bytes = ggml.row_bytes(type_name, columns)
            writer.add_tensor_info(
                name,
                values.shape,
                np.dtype(np.float32),
                math.prod(values.shape[:-1]) * row_bytes,
                raw_dtype=gguf.GGMLQuantizationType(ggml.type_number(type_name)),
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        with ThreadPoolExecutor(threads) as pool:
            for _, values, type_name in tensors:
                matrix = values.reshape(-1, values.shape[-1])
                rows = max(1, _CHUNK_VALUES // matrix.shape[1])
                parts = [matrix[first : first + rows] for first in range(0, len(matrix), rows)]
                converted = pool.map(lambda part: _converted(ggml, type_name, part), parts)  # noqa: B023
                writer.write_tensor_data(np.concatenate(list(converted)))
        writer.close()

    return run


def _type(ggml: Ggml, name: str, shape: tuple[int, ...], kind: str, layers: int) -> str:
    """The type of a tensor: as in `llama_tensor_get_type_impl`, where rows are whole blocks; else
    8 bits."""
    if len(shape) == 1 or kind == "F32":
        return "f32"
    chosen = "q4_0" if kind == "Q4_0" else "q4_K"
    if name == "output.weight":
        chosen = "q6_K"
    elif kind == "Q4_K_M" and name.endswith(("attn_v.weight", "ffn_down.weight")):
        layer, eighth = int(name.split(".")[1]), layers // 8
        if layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2:
            chosen = "q6_K"
    return chosen if ggml.fits(chosen, shape[-1]) else "q8_0"


def _converted(ggml: Ggml, type_name: str, stored: np.ndarray) -> np.ndarray:
    """Rows of bfloat16, as 16-bit integers, in a type."""
    values = (stored.astype(np.uint32) << 16).view(np.float32)
    return values if type_name == "f32" else ggml.quantize(type_name, values)


def _tensors(folder: Path, layers: int) -> Iterator[tuple[str, np.ndarray]]:
    """GGUF's names, and the numbers in the checkpoint's files, bfloat16 as 16-bit integers."""
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    stored: dict[str, np.ndarray] = {}
    for file in sorted(set(index["weight_map"].values())):
        path = folder / file
        with path.open("rb") as opened:
            header_bytes = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(header_bytes))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            if name.startswith(_PREFIX):
                stored[name] = np.memmap(
                    path,
                    dtype="<u2",
                    mode="r",
                    offset=8 + header_bytes + entry["data_offsets"][0],
                    shape=tuple(entry["shape"]),
                )
    yield "token_embd.weight", stored[f"{_PREFIX}model.embed_tokens.weight"]
    yield "output_norm.weight", stored[f"{_PREFIX}model.norm.weight"]
    yield "output.weight", stored[f"{_PREFIX}lm_head.weight"]
    for layer in range(layers):
        for name, gguf_name in _LAYER_NAMES.items():
            yield f"blk.{layer}.{gguf_name}", stored[f"{_PREFIX}model.layers.{layer}.{name}"]
