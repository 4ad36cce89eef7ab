"""transformers' composite model on this package's weights, with hooks at every tap."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from qwen_audio.audio.waveform import Waveform
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.progress_bars import OnProgress
from qwen_audio.models.tap import Stage
from qwen_audio.models.tensors import EMBEDDINGS
from qwen_audio.weights.meta_device import empty_module

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
        family = checkpoint.family
        has_table = checkpoint.dimensions.has_language_model
        vocabulary = checkpoint.tensors.shape(EMBEDDINGS)[0] if has_table else 0
        config = family.transformers_config(depth, vocabulary)
        config._attn_implementation = "sdpa"
        for name in ("audio_config", "text_config"):
            if (part := getattr(config, name, None)) is not None:
                part.dtype = None  # would set torch's default
        model: Any = empty_module(lambda: family.transformers_class(config))
        model.lm_head = nn.Identity()
        self._modules = family.transformers_modules(model)
        text: Any = self._modules.get("language_model.model.")
        parts = [(prefix, each) for prefix, each in self._modules.items() if each is not text]
        if text is not None:
            text.rotary_emb = family.rotary_embedding()  # has buffers, but no weights
            parts += [
                ("language_model.model.embed_tokens.", text.embed_tokens),
                ("language_model.model.norm.", text.norm),
                *((f"language_model.model.layers.{k}.", text.layers[k]) for k in range(depth)),
            ]
        for number, (prefix, module) in enumerate(parts):
            if on_progress is not None:
                on_progress("reading weights for transformers", number, len(parts), "modules")
            tensors = checkpoint.tensors.read(prefix, device=pipeline.device, dtype=pipeline.dtype)
            for name in (each for each in family.float32_names if each.startswith(prefix)):
                kept = checkpoint.tensors.read(name, device=pipeline.device, dtype=torch.float32)
                tensors |= {name.removeprefix(prefix) + end: each for end, each in kept.items()}
            # Not strict, as one part may be inside another: what has no weights in the end can't be
            # moved to the device.
            own = family.transformers_tensors(tensors)
            module.load_state_dict(own, strict=False, assign=True)
        self._model = model.eval().requires_grad_(False).to(pipeline.device)

    @torch.inference_mode()
    def taps(
        self, clip: Waveform, prompt_text: str | None
    ) -> dict[str, Float32[np.ndarray, "_rows _width"]]:
        """The rows of every tap for one clip, without those of the padding.

        Args:
            prompt_text: None where there is no language model.
        """
        pipeline, family = self.pipeline, self.pipeline.checkpoint.family
        inputs = family.transformers_inputs(clip.samples, pipeline.checkpoint.feature_extractor)
        mel = family.mel_frames(clip.samples.size)
        frames, pooled = (family.rows(stage, mel) for stage in (Stage.ENCODER, Stage.AUDIO_TOWER))
        tokens = family.audio_tokens(mel)
        tower: Any = self._modules["audio_tower."]
        projector, text = (
            cast(Any, self._modules.get(prefix))
            for prefix in ("multi_modal_projector.", "language_model.model.")
        )
        rows_by_tap: dict[str, Tensor] = {
            "mel": inputs["input_features"].transpose(1, 2).flatten(0, 1)[:mel]
        }
        hooks = []

        def add_hook(
            module: nn.Module, tap: str, rows: int | None, *, on_input: bool = False
        ) -> None:
            def store(value: Float[Tensor, "..."]) -> None:
                rows_by_tap[tap] = value.reshape(-1, value.shape[-1])[:rows]  # of all chunks

            hooks.append(_register_hook(module, store, on_input))

        add_hook(tower.layers[0], "encoder.0", frames, on_input=True)
        for k, layer in enumerate(tower.layers, start=1):
            add_hook(layer, f"encoder.{k}", frames)
        features = inputs.pop("input_features").to(pipeline.device, pipeline.dtype)
        masks = {name: mask.to(pipeline.device) for name, mask in inputs.items()}
        if prompt_text is None:
            add_hook(tower, "audio_tower", pooled)
            run = partial(tower, features, **masks)
        else:
            add_hook(projector, "audio_tower", pooled, on_input=True)
            add_hook(projector, "projector", tokens)
            add_hook(text.layers[0], "lm.0", None, on_input=True)
            for k, layer in enumerate(text.layers, start=1):
                add_hook(layer, f"lm.{k}", None)
            add_hook(text.norm, "lm.norm", None)
            prompt_ids = pipeline.tokenizer.encode(prompt_text)
            ids = torch.tensor([pipeline.tokenizer.expand_audio_tokens(prompt_ids, [tokens])])
            run = partial(
                self._model,
                input_ids=ids.to(pipeline.device),
                attention_mask=torch.ones_like(ids).to(pipeline.device),
                input_features=features,
                **masks,
                use_cache=False,
            )
        try:
            run()
        finally:
            for hook in hooks:
                hook.remove()
        return {name: rows.float().cpu().numpy() for name, rows in rows_by_tap.items()}


def _register_hook(module: nn.Module, store: Callable[[Tensor], None], on_input: bool) -> Any:
    """Call `store` with a module's input or output hidden states."""

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        store(args[0] if args else kwargs["hidden_states"])

    def after(_: Any, __: Any, output: Any) -> None:
        store(output if isinstance(output, Tensor) else output[0])

    if on_input:
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)
