"""transformers' own model at each tap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from .base import Case


class TransformersReference:
    """transformers' own model and processor of a checkpoint, one clip at a time."""

    def __init__(self, case: Case, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.case = case
        self.model: Any = getattr(transformers, case.model_class).from_pretrained(
            folder, dtype=dtype, attn_implementation="sdpa"
        )
        self.model.eval()
        self.processor: Any = case.read_processor(folder)

    def inputs(self, clip: np.ndarray, prompt_text: str) -> dict[str, Tensor]:
        """The processor's output for a rendered prompt; that of a feature extractor alone where
        there is no language model."""
        if not self.case.language_model:
            options = {"sampling_rate": 16_000, "return_attention_mask": True}
            return dict(self.processor(clip, **options, return_tensors="pt"))
        return self.case.inputs(self.processor, clip, prompt_text)

    @torch.inference_mode()
    def taps(self, clip: np.ndarray, prompt_text: str) -> dict[str, np.ndarray]:
        """The rows of every tap, without padding: what hooks see of modules' inputs and outputs."""
        case, inputs = self.case, self.inputs(clip, prompt_text)
        inputs["input_features"] = inputs["input_features"].to(self.model.dtype)
        seen: dict[str, Tensor] = {}
        tower, projector, text = map(
            self.model.get_submodule, (case.tower, case.projector, case.language_model)
        )
        hooks = _layer_hooks(seen, "encoder", tower.layers)
        if case.language_model:
            end = self.model.get_submodule(case.projector_end or case.projector)
            hooks += [
                _hook(seen, "audio_tower", projector, on_input=True),
                _hook(seen, "projector", end),
                *_layer_hooks(seen, "lm", text.layers),
                _hook(seen, "lm.norm", text.norm),
            ]
        else:
            hooks.append(_hook(seen, "audio_tower", tower.layer_norm))
        try:
            (self.model if case.language_model else tower)(**inputs)
        finally:
            for hook in hooks:
                hook.remove()
        features = inputs["input_features"]  # of each chunk, (bins, frames)
        seen["mel"] = features.transpose(1, 2).reshape(-1, features.shape[1])
        counts = self.row_counts(inputs, clip)
        return {
            tap: rows[: counts[tap.split(".")[0]]].float().numpy() for tap, rows in seen.items()
        }

    def row_counts(self, inputs: Mapping[str, Tensor], clip: np.ndarray) -> dict[str, int]:
        """Rows of each stage that aren't padding."""
        case, mel = self.case, self.case.mel_frames(inputs, clip)
        rows = case.encoder_rows(mel)
        counts = {"mel": mel, "encoder": rows, "audio_tower": rows}
        if case.language_model:
            tokens = int((inputs["input_ids"] == self.audio_token_id).sum())
            pooled = tokens if case.tower_rows is None else case.tower_rows(mel)
            counts |= {"audio_tower": pooled, "projector": tokens}
            counts["lm"] = inputs["input_ids"].shape[1]
        return counts

    @torch.inference_mode()
    def generate(self, clip: np.ndarray, prompt_text: str, max_new_tokens: int) -> tuple[int, ...]:
        """Greedily generated token ids."""
        inputs = self.inputs(clip, prompt_text)
        out = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return tuple(out[0, inputs["input_ids"].shape[1] :].tolist())

    @torch.inference_mode()
    def attention_weights(self, clip: np.ndarray, prompt_text: str) -> np.ndarray:
        """Of the language model's eager attention: (layers, heads, positions, positions)."""
        seen: list[Tensor] = []
        text = self.model.get_submodule(self.case.language_model)
        before = text.config._attn_implementation
        text.config._attn_implementation = "eager"
        hooks = [
            layer.self_attn.register_forward_hook(lambda _, __, output: seen.append(output[1]))
            for layer in text.layers
        ]
        try:
            self.model(**self.inputs(clip, prompt_text))
        finally:
            text.config._attn_implementation = before
            for hook in hooks:
                hook.remove()
        return torch.cat(seen).float().numpy()

    @torch.inference_mode()
    def log_probabilities(
        self, clip: np.ndarray, prompt_text: str, token_ids: tuple[int, ...]
    ) -> np.ndarray:
        """Of the next token, after a prompt and each of the tokens that follow: (1 + tokens,
        vocabulary)."""
        inputs = self.inputs(clip, prompt_text)
        new = torch.tensor([token_ids], dtype=torch.long)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], new], dim=1)
        for name in ("attention_mask", "mm_token_type_ids"):
            if name in inputs:
                value = int(name == "attention_mask")
                inputs[name] = torch.cat([inputs[name], torch.full_like(new, value)], dim=1)
        rows: Tensor = self.model(**inputs).logits[0, -1 - len(token_ids) :].log_softmax(-1)
        return rows.numpy()

    @property
    def audio_token_id(self) -> int:
        """Of the placeholder for a row of audio."""
        return int(self.processor.tokenizer.convert_tokens_to_ids(self.processor.audio_token))


def _layer_hooks(seen: dict[str, Tensor], stage: str, layers: Sequence[nn.Module]) -> list[Any]:
    outputs = [_hook(seen, f"{stage}.{k}", layer) for k, layer in enumerate(layers, start=1)]
    return [_hook(seen, f"{stage}.0", layers[0], on_input=True), *outputs]


def _hook(seen: dict[str, Tensor], tap: str, module: nn.Module, *, on_input: bool = False) -> Any:
    """Record a module's input or output as rows, the chunks of a clip one after another."""

    def store(value: Any) -> None:
        rows = value[0] if isinstance(value, tuple) else value
        seen[tap] = rows.reshape(-1, rows.shape[-1]).clone()

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        store(args[0] if args else kwargs["hidden_states"])

    if on_input:
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(lambda _, __, output: store(output))
