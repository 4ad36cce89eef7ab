"""transformers' composite model on this package's weights, with hooks at every tap."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from transformers import Qwen2AudioForConditionalGeneration
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from qwen_audio.audio.waveform import SAMPLE_RATE_HZ, Waveform
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.progress_bars import OnProgress
from qwen_audio.models.qwen2_audio.tensors import EMBEDDINGS
from qwen_audio.weights.module_store import empty_module

__all__ = ["TransformersModel"]


class TransformersModel:
    """transformers' composite model, with `depth` decoder layers and hooks at every tap.

    Args:
        on_progress: called as its parts are read.
    """

    def __init__(
        self, pipeline: Pipeline, depth: int, on_progress: OnProgress | None = None
    ) -> None:
        self.pipeline, checkpoint = pipeline, pipeline.checkpoint
        config: Any = copy.deepcopy(checkpoint.config)
        config.text_config.num_hidden_layers = depth
        config.text_config.vocab_size = checkpoint.tensors.shape(EMBEDDINGS)[0]
        del config.text_config.layer_types[depth:]
        config._attn_implementation = "sdpa"
        config.audio_config.dtype = config.text_config.dtype = None  # would set torch's default
        model: Any = empty_module(lambda: Qwen2AudioForConditionalGeneration(config))
        model.lm_head = nn.Identity()
        text = model.model.language_model
        text.rotary_emb = Qwen2RotaryEmbedding(config.text_config)  # has buffers, but no weights
        parts = (
            ("audio_tower.", model.model.audio_tower),
            ("multi_modal_projector.", model.model.multi_modal_projector),
            ("language_model.model.embed_tokens.", text.embed_tokens),
            ("language_model.model.norm.", text.norm),
            *((f"language_model.model.layers.{k}.", text.layers[k]) for k in range(depth)),
        )
        for number, (prefix, module) in enumerate(parts):
            if on_progress is not None:
                on_progress("reading weights for transformers", number, len(parts), "modules")
            tensors = checkpoint.tensors.read(prefix, device=pipeline.device, dtype=pipeline.dtype)
            module.load_state_dict(tensors, strict=True, assign=True)
        self._model = model.eval().requires_grad_(False).to(pipeline.device)

    @torch.inference_mode()
    def taps(
        self, clip: Waveform, prompt_text: str
    ) -> dict[str, Float32[np.ndarray, "_rows _width"]]:
        """The rows of every tap for one clip, without those of the padding."""
        pipeline, model = self.pipeline, self._model
        features = pipeline.checkpoint.feature_extractor(
            clip.samples,
            sampling_rate=SAMPLE_RATE_HZ,
            return_attention_mask=True,
            padding="max_length",
            return_tensors="pt",
        )
        mel = int(features["attention_mask"].sum())
        tower, text = model.model.audio_tower, model.model.language_model
        frames, tokens = map(int, tower._get_feat_extract_output_lengths(torch.tensor(mel)))
        rows_by_tap: dict[str, Tensor] = {"mel": features["input_features"][0].T[:mel]}
        hooks = []

        def add_hook(
            module: nn.Module, tap: str, rows: int | None, *, on_input: bool = False
        ) -> None:
            def store(value: Float[Tensor, "..."]) -> None:
                rows_by_tap[tap] = value[0] if rows is None else value[0, :rows]

            hooks.append(_register_hook(module, store, on_input))

        add_hook(tower.layers[0], "encoder.0", frames, on_input=True)
        for k, layer in enumerate(tower.layers, start=1):
            add_hook(layer, f"encoder.{k}", frames)
        add_hook(tower.layer_norm, "audio_tower", tokens)
        add_hook(model.model.multi_modal_projector, "projector", tokens)
        add_hook(text.layers[0], "lm.0", None, on_input=True)
        for k, layer in enumerate(text.layers, start=1):
            add_hook(layer, f"lm.{k}", None)
        add_hook(text.norm, "lm.norm", None)
        ids = torch.tensor(
            [
                pipeline.tokenizer.expand_audio_tokens(
                    pipeline.tokenizer.encode(prompt_text), [tokens]
                )
            ]
        )
        try:
            model(
                input_ids=ids.to(pipeline.device),
                attention_mask=torch.ones_like(ids).to(pipeline.device),
                input_features=features["input_features"].to(pipeline.device, pipeline.dtype),
                feature_attention_mask=features["attention_mask"].to(pipeline.device),
                use_cache=False,
            )
        finally:
            for hook in hooks:
                hook.remove()
        return {name: rows.float().cpu().numpy() for name, rows in rows_by_tap.items()}


def _register_hook(module: nn.Module, store: Callable[[Tensor], None], on_input: bool) -> Any:
    """Call `store` with a module's input or output hidden states."""

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        store(args[0] if args else kwargs["hidden_states"])

    def after(_: Any, __: Any, output: Any) -> None:
        store(output[0] if isinstance(output, tuple) else output)

    if on_input:
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)
