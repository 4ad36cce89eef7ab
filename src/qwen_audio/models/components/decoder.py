"""Decoders as transformers builds most of them: layers that take rotary cosines and sines, a norm,
and a head. What differs are the modules, which a family names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from qwen_audio.errors import CheckpointError
from qwen_audio.models.family import Family
from qwen_audio.models.packed_attention import Packing
from qwen_audio.models.row_times import RowTimes
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.models.tensors import DECODER_LAYERS, LM_HEAD, TensorGroup, shapes_of
from qwen_audio.weights.module_store import ModuleStore

__all__ = ["DecoderFamily"]

_ROPE_TYPES = ("default", "linear", "yarn", "llama3")
"""Of rotary embeddings by which a position doesn't depend on how many there are."""


class DecoderFamily(Family):
    """A family with a language model of decoder layers."""

    text_model_type: ClassVar[str]
    """transformers' name for the language model, such as "qwen2"."""
    decoder_layer: ClassVar[Any]
    """transformers' decoder layer; takes the configuration and `layer_idx`."""
    norm: ClassVar[Any]
    """transformers' norm; takes the width and `eps`."""
    rotary: ClassVar[Any]
    """transformers' rotary embedding; takes the configuration."""

    def check_config(self, name: str) -> None:
        """Raises CheckpointError for another language model, for attention in windows, or for
        positions that depend on the input's length."""
        text = self.text_config
        kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
        if text.model_type != self.text_model_type or kinds != {"full_attention"}:
            raise CheckpointError(
                f"{name} has a language model of type {text.model_type!r} with {kinds} layers; "
                f"only {self.text_model_type!r} with full attention is supported"
            )
        rope = (getattr(text, "rope_parameters", None) or {}).get("rope_type", "default")
        if rope not in _ROPE_TYPES:
            raise CheckpointError(
                f"{name} has rotary position embeddings of type {rope!r}, which differ with the "
                f"length of the input; only {', '.join(_ROPE_TYPES)} are supported"
            )

    def lm_row_times(self, audio_tokens: RowTimes) -> dict[Stage, RowTimes]:
        """Of the language model's stages."""
        return {Stage.LM: audio_tokens, Stage.LM_NORM: audio_tokens}

    def lm_sizes(self) -> dict[str, int]:
        """The language model's part of `LayerSizes`."""
        text = self.text_config
        heads = text.num_attention_heads
        return {
            "lm_ffn_width": text.intermediate_size,
            "lm_heads": heads,
            "lm_kv_heads": text.num_key_value_heads,
            "lm_head_dim": getattr(text, "head_dim", None) or text.hidden_size // heads,
            "max_positions": text.max_position_embeddings,
        }

    def heads_width(self) -> int:
        """Of the outputs of all attention heads, side by side."""
        sizes = self.lm_sizes()
        return sizes["lm_heads"] * sizes["lm_head_dim"]

    def lm_groups(self) -> Iterator[TensorGroup]:
        """Tensors of the language model."""
        text = self.text_config
        width, table = text.hidden_size, (text.vocab_size, text.hidden_size)
        prefix, layer = "language_model.model.", shapes_of(lambda: self.build_decoder_layer(0))
        yield TensorGroup(prefix, Tap(Stage.LM, 0), {"embed_tokens.weight": table})
        for k in range(text.num_hidden_layers):
            yield TensorGroup(f"{DECODER_LAYERS}{k}.", Tap(Stage.LM, k + 1), layer)
        yield TensorGroup(f"{prefix}norm.", Tap(Stage.LM_NORM), {"weight": (width,)})
        yield TensorGroup("language_model.lm_head.", None, {"weight": table})

    def build_decoder_layer(self, number: int) -> nn.Module:
        """transformers' layer."""
        layer: nn.Module = self.decoder_layer(self.text_config, layer_idx=number)
        return layer

    def rotary_embedding(self) -> nn.Module:
        """transformers' module."""
        module: nn.Module = self.rotary(self.text_config)
        return module

    def decoder_layers(self, modules: ModuleStore, depth: int) -> Iterator[nn.Module]:
        """transformers' modules."""
        return modules.layers(DECODER_LAYERS, depth, self.build_decoder_layer)

    def run_decoder_layer(
        self,
        layer: nn.Module,
        rows: Float[Tensor, "rows width"],
        position_embeddings: Any,
        packing: Packing,
    ) -> Float[Tensor, "rows width"]:
        """Causal attention within each sequence."""
        output: Tensor = layer(
            rows[None], position_embeddings=position_embeddings, packing=packing
        )[0]
        return output

    def layer_parts(self, layer: Any) -> dict[str, nn.Module]:
        """transformers' modules."""
        attention = layer.self_attn
        return {"heads": attention.o_proj, "attention": attention, "mlp": layer.mlp}

    def final_norm(self, modules: ModuleStore) -> nn.Module:
        """transformers' module."""
        text = self.text_config
        norm: nn.Module = modules.get(
            "language_model.model.norm.",
            lambda: self.norm(text.hidden_size, eps=text.rms_norm_eps),
        )
        return norm

    def lm_head(self, modules: ModuleStore) -> nn.Module:
        """A matrix, of as many tokens as are stored."""
        tokens = modules.tensors.shape(LM_HEAD)[0]
        width = self.text_config.hidden_size
        head: nn.Module = modules.get(
            "language_model.lm_head.", lambda: nn.Linear(width, tokens, bias=False)
        )
        return head
