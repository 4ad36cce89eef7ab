"""A parity certificate: this package against transformers' composite model, on this very machine.

The composite model is run as transformers runs it: padded to 30 s, its own masks, its own merge of
audio and text, one clip at a time. Only its weights are this package's to give, and only as many
of its decoder's layers are built as memory holds.
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float, Float32
from torch import Tensor, nn
from transformers import Qwen2AudioForConditionalGeneration
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from qwen_audio.audio.waveform import SAMPLE_RATE_HZ, Waveform
from qwen_audio.audio.window import WINDOW_SECONDS, WindowConfig
from qwen_audio.errors import AudioError, OptionError
from qwen_audio.inference.cost import estimate_cost
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.reader import read
from qwen_audio.inference.reducers import rows_and_segments
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.weights.device import available_bytes
from qwen_audio.weights.module_store import empty_module

__all__ = ["ParityReport", "TapParity", "check_parity", "synthetic_clips"]

# Float32 differs by the order of its sums. In 16 bits both sides round every product, and differ
# from each other as each does from the truth: there the direction is what can be held.
_LARGEST_ERROR = {torch.float32: 1e-4}
_LEAST_COSINE = {torch.float32: 0.999999, torch.float16: 0.999, torch.bfloat16: 0.99}

_SHARE_OF_MEMORY = 0.8


@dataclass(frozen=True)
class TapParity:
    """How alike the rows of one tap are, over all clips.

    Attributes:
        rows: compared.
        cosine: the lowest of any row with its counterpart.
        relative_error: the largest difference of a number, relative to the largest number.
    """

    tap: str
    rows: int
    cosine: float
    relative_error: float


@dataclass(frozen=True)
class ParityReport:
    """What was compared, on what, and with which result. `dataclasses.asdict` gives plain data."""

    model: str
    revision: str
    dtype: str
    device: str
    machine: str
    torch: str
    transformers: str
    clips: tuple[str, ...]
    taps: tuple[TapParity, ...]
    left_out: tuple[str, ...]
    """Taps too deep for this machine's memory."""
    least_cosine: float
    largest_error: float | None

    @property
    def holds(self) -> bool:
        """Whether every tap compared lies within the bounds for its numbers."""
        limit = float("inf") if self.largest_error is None else self.largest_error
        return all(
            tap.cosine >= self.least_cosine and tap.relative_error <= limit for tap in self.taps
        )


def check_parity(
    pipeline: Pipeline, clips: Sequence[Waveform], prompt: str | None = None
) -> ParityReport:
    """Compare every tap, as deep as memory allows, on some clips of at most 30 s.

    Raises:
        AudioError: for a clip that transformers would cut.
        OptionError: where not even one layer of the language model fits.
    """
    for clip in clips:
        if clip.duration_seconds > WINDOW_SECONDS:
            raise AudioError(
                f"{clip.name} lasts {clip.duration_seconds:.1f} s, but transformers hears "
                f"{WINDOW_SECONDS:g} s at most: give a shorter clip"
            )
    taps = pipeline.checkpoint.dimensions.taps()
    depth = _depth(pipeline)
    compared = [
        tap for tap in taps if _within(tap, depth, pipeline.checkpoint.dimensions.lm_layers)
    ]
    prompt_text = pipeline.prompts.render(prompt)
    readings = read(
        pipeline,
        clips,
        compared,
        rows_and_segments,
        prompt_text=prompt_text,
        window_config=WindowConfig(),
    )
    ours: list[dict[Tap, Float32[np.ndarray, "_rows _width"]]] = []
    for reading in readings:
        if isinstance(reading, AudioError):
            raise reading
        ours.append({tap: reading.kept[0][tap][0] for tap in compared})
    pipeline.modules.release()
    composite = _Composite(pipeline, depth)
    theirs = [composite.taps(clip, prompt_text) for clip in clips]
    return ParityReport(
        model=pipeline.checkpoint.name,
        revision=pipeline.checkpoint.revision,
        dtype=pipeline.dtype_name,
        device=str(pipeline.device),
        machine=f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        torch=torch.__version__,
        transformers=transformers.__version__,
        clips=tuple(f"{clip.name}, {clip.duration_seconds:.2f} s" for clip in clips),
        taps=tuple(
            _parity(str(tap), [of[tap] for of in ours], [of[str(tap)] for of in theirs])
            for tap in compared
        ),
        left_out=tuple(str(tap) for tap in taps if tap not in compared),
        least_cosine=_LEAST_COSINE[pipeline.dtype],
        largest_error=_LARGEST_ERROR.get(pipeline.dtype),
    )


def synthetic_clips() -> list[Waveform]:
    """Three clips of different lengths that change from frame to frame: glides, tremolo, noise."""
    clips = []
    for number, seconds in enumerate((5.0, 1.23, 12.5)):
        random = np.random.default_rng(number)
        times = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        phase = np.cumsum(200.0 * (number + 1) + 300.0 * times / seconds) / SAMPLE_RATE_HZ
        tone = np.sin(2 * np.pi * phase) * (0.6 + 0.4 * np.sin(9 * times))
        sound = 0.3 * (tone + 0.1 * random.standard_normal(times.size))
        name = f"test sound {number + 1}"
        clips.append(Waveform(sound.astype(np.float32), name, SAMPLE_RATE_HZ, 1, "synthetic"))
    return clips


def _depth(pipeline: Pipeline) -> int:
    """How many decoder layers of the composite model fit, its table of embeddings included."""
    checkpoint, free = pipeline.checkpoint, available_bytes(pipeline.device)
    table = checkpoint.text_config.vocab_size * checkpoint.text_config.hidden_size
    for depth in range(checkpoint.dimensions.lm_layers, 0, -1):
        plan = estimate_cost(checkpoint, Tap(Stage.LM, depth), pipeline.dtype, pipeline.device)
        if plan.peak_memory_bytes + table * pipeline.dtype.itemsize <= _SHARE_OF_MEMORY * free:
            return depth
    raise OptionError(
        f"{free / 1e9:.1f} GB of memory are free, which does not hold the ear and one layer of "
        f"{checkpoint.name} in {pipeline.dtype_name}: close other programs, or use a 16-bit dtype"
    )


def _within(tap: Tap, depth: int, layers: int) -> bool:
    if tap.stage is Stage.LM_NORM:
        return depth == layers
    return tap.stage is not Stage.LM or (tap.level or 0) <= depth


def _parity(
    tap: str,
    ours: Iterable[Float32[np.ndarray, "_rows width"]],
    theirs: Iterable[Float32[np.ndarray, "_rows width"]],
) -> TapParity:
    a, b = np.concatenate(list(ours)), np.concatenate(list(theirs))
    if a.shape != b.shape:
        raise OptionError(f"{tap} has {a.shape} numbers here and {b.shape} in transformers")
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    error = np.abs(a - b).max() / np.abs(b).max()
    return TapParity(tap, len(a), float(cosines.min()), float(error))


class _Composite:
    """transformers' model of one checkpoint, with `depth` decoder layers and hooks at every tap."""

    def __init__(self, pipeline: Pipeline, depth: int) -> None:
        self.pipeline = pipeline
        checkpoint = pipeline.checkpoint
        config: Any = copy.deepcopy(checkpoint.config)
        config.text_config.num_hidden_layers = depth
        config.text_config.layer_types = config.text_config.layer_types[:depth]
        config._attn_implementation = "sdpa"
        model: Any = empty_module(lambda: Qwen2AudioForConditionalGeneration(config))
        model.lm_head = nn.Identity()
        text = model.model.language_model
        text.rotary_emb = Qwen2RotaryEmbedding(config.text_config)  # holds no weights, but numbers
        for prefix, module in (
            ("audio_tower.", model.model.audio_tower),
            ("multi_modal_projector.", model.model.multi_modal_projector),
            ("language_model.model.embed_tokens.", text.embed_tokens),
            ("language_model.model.norm.", text.norm),
            *((f"language_model.model.layers.{k}.", text.layers[k]) for k in range(depth)),
        ):
            tensors = checkpoint.tensors.read(
                prefix, convert=lambda t: t.to(pipeline.device, pipeline.dtype)
            )
            module.load_state_dict(tensors, strict=True, assign=True)
        self._model = model.eval().requires_grad_(False).to(pipeline.device)

    @torch.inference_mode()
    def taps(
        self, clip: Waveform, prompt_text: str
    ) -> dict[str, Float32[np.ndarray, "_rows _width"]]:
        """Every tap of one clip: the rows that are its own, without padding."""
        pipeline, model = self.pipeline, self._model
        features = pipeline.checkpoint.extractor(
            clip.samples,
            sampling_rate=SAMPLE_RATE_HZ,
            return_attention_mask=True,
            padding="max_length",
            return_tensors="pt",
        )
        mel = int(features["attention_mask"].sum())
        tower, text = model.model.audio_tower, model.model.language_model
        frames, tokens = map(int, tower._get_feat_extract_output_lengths(torch.tensor(mel)))
        kept: dict[str, Tensor] = {"mel": features["input_features"][0].T[:mel]}
        hooks = []

        def on(module: nn.Module, name: str, rows: int | None, *, entering: bool = False) -> None:
            def keep(value: Float[Tensor, "..."]) -> None:
                kept[name] = value[0] if rows is None else value[0, :rows]

            hooks.append(_hook(module, keep, entering))

        on(tower.layers[0], "encoder.0", frames, entering=True)
        for k, layer in enumerate(tower.layers, start=1):
            on(layer, f"encoder.{k}", frames)
        on(tower.layer_norm, "audio_tower", tokens)
        on(model.model.multi_modal_projector, "projector", tokens)
        on(text.layers[0], "lm.0", None, entering=True)
        for k, layer in enumerate(text.layers, start=1):
            on(layer, f"lm.{k}", None)
        on(text.norm, "lm.norm", None)
        ids = torch.tensor([pipeline.prompts.merged(pipeline.prompts.ids(prompt_text), [tokens])])
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
        return {name: rows.float().cpu().numpy() for name, rows in kept.items()}


def _hook(module: nn.Module, keep: Callable[[Tensor], None], entering: bool) -> Any:
    """Hand what a module is given, or what it gives, to `keep`."""

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(args[0] if args else kwargs["hidden_states"])

    def after(_: Any, __: Any, output: Any) -> None:
        keep(output[0] if isinstance(output, tuple) else output)

    if entering:
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)
