"""transformers' own Qwen2-Audio, read at every tap: what this package must equal.

The composite model is the reference: it pads to 30 s, builds the encoder's padding mask, merges the
audio into the prompt and runs the language model. Hooks on its layers read what passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration
from transformers.utils import logging

logging.disable_progress_bar()

PLAIN = "<|audio_bos|><|AUDIO|><|audio_eos|>"


class Reference:
    """A checkpoint in transformers, in float32 on the CPU."""

    def __init__(self, folder: Path) -> None:
        self.model = Qwen2AudioForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()
        self.processor = AutoProcessor.from_pretrained(folder)

    def inputs(self, clips: list[np.ndarray], prompts: list[str]) -> Any:
        """What the processor makes: padded to 30 s, prompts padded on the left."""
        self.processor.tokenizer.padding_side = "left"
        return self.processor(
            text=prompts, audio=clips, sampling_rate=16_000, return_tensors="pt", padding=True
        )

    @torch.inference_mode()
    def taps(
        self, clip: np.ndarray, prompt: str = PLAIN + "Describe the music:"
    ) -> dict[str, np.ndarray]:
        """Every tap of one clip: the rows that are its own, without padding."""
        inputs = self.inputs([clip], [prompt])
        mel = int(inputs["feature_attention_mask"].sum())
        frames, tokens = (
            int(n) for n in self.tower._get_feat_extract_output_lengths(torch.tensor(mel))
        )
        read: dict[str, Tensor] = {"mel": inputs["input_features"][0].T[:mel]}

        def keep(name: str, rows: int | None) -> Callable[[Tensor], None]:
            def store(output: Tensor) -> None:
                read[name] = output[0] if rows is None else output[0, :rows]

            return store

        lm = self.model.model.language_model
        with _reading() as on:
            on.input(self.tower.layers[0], keep("encoder.0", frames))
            for k, layer in enumerate(self.tower.layers):
                on.output(layer, keep(f"encoder.{k + 1}", frames))
            on.output(self.tower.layer_norm, keep("audio_tower", tokens))
            on.output(self.model.model.multi_modal_projector, keep("projector", tokens))
            on.input(lm.layers[0], keep("lm.0", None))
            for k, layer in enumerate(lm.layers):
                on.output(layer, keep(f"lm.{k + 1}", None))
            on.output(lm.norm, keep("lm.norm", None))
            self.model(**inputs)
        coarse = {name: rows.float() for name, rows in read.items() if rows.itemsize == 2}
        return {name: rows.numpy() for name, rows in (read | coarse).items()}

    def rounding(self, clip: np.ndarray) -> dict[str, float]:
        """How far float32 takes transformers from its own result in float64, at every tap."""
        single = self.taps(clip)
        self.model.double()
        try:
            exact = self.taps(clip)
        finally:
            self.model.float()
        return {tap: relative_error(single[tap], exact[tap]) for tap in single}

    @torch.inference_mode()
    def generate(self, clip: np.ndarray, prompt: str, max_new_tokens: int) -> tuple[int, ...]:
        """Greedy tokens after one clip and its prompt."""
        inputs = self.inputs([clip], [prompt])
        out = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return tuple(out[0, inputs["input_ids"].shape[1] :].tolist())

    @property
    def tower(self) -> Any:
        """The encoder inside the composite model."""
        return self.model.model.audio_tower


class _Hooks:
    def __init__(self) -> None:
        self.handles: list[Any] = []

    def input(self, module: torch.nn.Module, store: Callable[[Tensor], None]) -> None:
        """Read what a module is given."""

        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            store(args[0] if args else kwargs["hidden_states"])

        self.handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def output(self, module: torch.nn.Module, store: Callable[[Tensor], None]) -> None:
        """Read what a module gives."""

        def hook(_: Any, __: Any, output: Any) -> None:
            store(output[0] if isinstance(output, tuple) else output)

        self.handles.append(module.register_forward_hook(hook))


@contextmanager
def _reading() -> Iterator[_Hooks]:
    hooks = _Hooks()
    try:
        yield hooks
    finally:
        for handle in hooks.handles:
            handle.remove()


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Something that changes from frame to frame: a gliding tone, tremolo and noise."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * 16_000)) / 16_000
    pitch = random.uniform(100, 800) + random.uniform(-200, 400) * t / max(seconds, 0.1)
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / 16_000) * (0.6 + 0.4 * np.sin(9 * t))
    level = 10 ** random.uniform(-2, -0.3)
    return (level * (tone + 0.1 * random.standard_normal(t.size))).astype(np.float32)
