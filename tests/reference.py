"""transformers' own Qwen2-Audio, recorded at every tap: the reference for this package.

The composite model is the reference: it pads to 30 s, builds the encoder's padding mask, merges the
audio into the prompt and runs the language model. Hooks on its layers record inputs and outputs.
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
    """A checkpoint loaded by transformers, in float32 on the CPU."""

    def __init__(self, folder: Path) -> None:
        self.model = Qwen2AudioForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()
        self.processor = AutoProcessor.from_pretrained(folder)

    def inputs(self, clips: list[np.ndarray], prompts: list[str]) -> Any:
        """The processor's output: audio padded to 30 s, prompts padded on the left."""
        self.processor.tokenizer.padding_side = "left"
        return self.processor(
            text=prompts, audio=clips, sampling_rate=16_000, return_tensors="pt", padding=True
        )

    @torch.inference_mode()
    def taps(
        self, clip: np.ndarray, prompt: str = PLAIN + "Describe the music:"
    ) -> dict[str, np.ndarray]:
        """The rows of one clip at every tap, without padding."""
        inputs = self.inputs([clip], [prompt])
        mel = int(inputs["feature_attention_mask"].sum())
        frames, tokens = (
            int(n) for n in self.tower._get_feat_extract_output_lengths(torch.tensor(mel))
        )
        rows_by_tap: dict[str, Tensor] = {"mel": inputs["input_features"][0].T[:mel]}

        def record(name: str, rows: int | None) -> Callable[[Tensor], None]:
            def store(output: Tensor) -> None:
                rows_by_tap[name] = output[0] if rows is None else output[0, :rows]

            return store

        lm = self.model.model.language_model
        with _recording_hooks() as hooks:
            hooks.input(self.tower.layers[0], record("encoder.0", frames))
            for k, layer in enumerate(self.tower.layers):
                hooks.output(layer, record(f"encoder.{k + 1}", frames))
            hooks.output(self.tower.layer_norm, record("audio_tower", tokens))
            hooks.output(self.model.model.multi_modal_projector, record("projector", tokens))
            hooks.input(lm.layers[0], record("lm.0", None))
            for k, layer in enumerate(lm.layers):
                hooks.output(layer, record(f"lm.{k + 1}", None))
            hooks.output(lm.norm, record("lm.norm", None))
            self.model(**inputs)
        from_16_bit = {
            name: rows.float() for name, rows in rows_by_tap.items() if rows.itemsize == 2
        }
        return {name: rows.numpy() for name, rows in (rows_by_tap | from_16_bit).items()}

    def rounding(self, clip: np.ndarray) -> dict[str, float]:
        """Relative difference of transformers' float32 and float64 results, at every tap."""
        single = self.taps(clip)
        self.model.double()
        try:
            exact = self.taps(clip)
        finally:
            self.model.float()
        return {tap: relative_error(single[tap], exact[tap]) for tap in single}

    @torch.inference_mode()
    def generate(self, clip: np.ndarray, prompt: str, max_new_tokens: int) -> tuple[int, ...]:
        """Greedily generated token ids for one clip and prompt."""
        inputs = self.inputs([clip], [prompt])
        out = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return tuple(out[0, inputs["input_ids"].shape[1] :].tolist())

    @torch.inference_mode()
    def log_probabilities(
        self, clip: np.ndarray, prompt: str, token_ids: tuple[int, ...]
    ) -> np.ndarray:
        """Of the next token, after a prompt and each of the tokens that follow: (1 + tokens,
        vocabulary)."""
        inputs = self.inputs([clip], [prompt])
        new = torch.tensor([token_ids], dtype=torch.long)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], new], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        rows: Tensor = self.model(**inputs).logits[0, -1 - len(token_ids) :].log_softmax(-1)
        return rows.numpy()

    @property
    def tower(self) -> Any:
        """The encoder inside the composite model."""
        return self.model.model.audio_tower


class _RecordingHooks:
    def __init__(self) -> None:
        self.handles: list[Any] = []

    def input(self, module: torch.nn.Module, store: Callable[[Tensor], None]) -> None:
        """Record the input of a module."""

        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            store(args[0] if args else kwargs["hidden_states"])

        self.handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def output(self, module: torch.nn.Module, store: Callable[[Tensor], None]) -> None:
        """Record the output of a module."""

        def hook(_: Any, __: Any, output: Any) -> None:
            store(output[0] if isinstance(output, tuple) else output)

        self.handles.append(module.register_forward_hook(hook))


@contextmanager
def _recording_hooks() -> Iterator[_RecordingHooks]:
    hooks = _RecordingHooks()
    try:
        yield hooks
    finally:
        for handle in hooks.handles:
            handle.remove()


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference, relative to the largest expected value."""
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """A signal that changes from frame to frame: a gliding tone with tremolo and noise."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * 16_000)) / 16_000
    pitch = random.uniform(100, 800) + random.uniform(-200, 400) * t / max(seconds, 0.1)
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / 16_000) * (0.6 + 0.4 * np.sin(9 * t))
    level = 10 ** random.uniform(-2, -0.3)
    return (level * (tone + 0.1 * random.standard_normal(t.size))).astype(np.float32)
