"""Parity report: this package against transformers' own model, on this machine.

The composite model is run as transformers runs it: padded, its own masks, its own merge of
audio and text, one clip at a time. Only its weights are loaded by this package, and only as many of
its decoder layers are built as fit in memory.
"""

from __future__ import annotations

import itertools
import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import transformers
from jaxtyping import Float32
from torch import Tensor

from qwen_audio.audio.waveform import SAMPLE_RATE_HZ, Waveform
from qwen_audio.errors import AudioError, OptionError
from qwen_audio.inference.cost import estimate_cost
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.progress_bars import OnProgress
from qwen_audio.inference.reader import capture_recordings
from qwen_audio.inference.reducers import rows_and_segments
from qwen_audio.inference.spans import Segment, WindowRows
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.models.tensors import EMBEDDINGS
from qwen_audio.weights.device import available_bytes

from .transformers_model import TransformersModel

__all__ = ["ParityReport", "TapParity", "check_parity", "synthetic_clips"]

# Float32 differs by the order of sums. In 16 bits both sides round every product, and differ from
# each other as much as each does from exact arithmetic: there only the direction can be compared.
_MAX_ERROR = {torch.float32: 1e-4}
_MIN_COSINE = {torch.float32: 0.999999, torch.float16: 0.999, torch.bfloat16: 0.99}

_SHARE_OF_MEMORY = 0.8


@dataclass(frozen=True)
class TapParity:
    """Differences between the rows of one tap and transformers', over all clips.

    Attributes:
        rows: number compared.
        cosine: the lowest cosine similarity of a row and its counterpart.
        relative_error: the largest absolute difference, relative to the largest absolute value.
    """

    tap: str
    rows: int
    cosine: float
    relative_error: float


@dataclass(frozen=True)
class ParityReport:
    """Result of a parity check; `dataclasses.asdict` gives plain data."""

    model: str
    revision: str
    adapter: str | None
    """Its content hash; None without one."""
    dtype: str
    quantization: str | None
    """How the weights are quantised here; transformers computes with those that they were made
    from or, of a checkpoint that is stored quantised, with the same, dequantised."""
    device: str
    machine: str
    torch: str
    transformers: str
    clips: tuple[str, ...]
    taps: tuple[TapParity, ...]
    skipped_taps: tuple[str, ...]
    """Taps too deep for this machine's memory."""
    min_cosine: float
    """Bound for every tap's `cosine`; −1 for quantised weights, whose differences have no bound."""
    max_error: float | None
    """Bound for every tap's `relative_error`; None in 16 bits, and for quantised weights."""

    @property
    def holds(self) -> bool:
        """Whether every tap compared is within the bounds."""
        limit = float("inf") if self.max_error is None else self.max_error
        return all(
            tap.cosine >= self.min_cosine and tap.relative_error <= limit for tap in self.taps
        )


def check_parity(
    pipeline: Pipeline,
    clips: Sequence[Waveform],
    prompt: str | None = None,
    on_progress: OnProgress | None = None,
) -> ParityReport:
    """Compare every tap, as deep as memory allows, on some clips of at most one window.

    Args:
        on_progress: called for every tap of every clip here, then for what transformers does.

    Raises:
        AudioError: for a clip that transformers would truncate.
        OptionError: where not even one decoder layer fits in memory.
    """
    longest = pipeline.checkpoint.family.window_limits.max_seconds
    for clip in clips:
        if clip.duration_seconds > longest:
            raise AudioError(
                f"{clip.name} lasts {clip.duration_seconds:.1f} s, but transformers takes "
                f"{longest:g} s at most: give a shorter clip"
            )
    taps = pipeline.checkpoint.dimensions.taps()
    depth = _depth(pipeline)
    compared = [
        tap for tap in taps if _is_within(tap, depth, pipeline.checkpoint.dimensions.lm_layers)
    ]
    has_prompt = pipeline.checkpoint.dimensions.has_language_model or prompt is not None
    prompt_text = pipeline.tokenizer.render(prompt) if has_prompt else None
    done = itertools.count()

    def keep_rows(rows: Tensor, segments: tuple[Segment, ...]) -> WindowRows:
        if on_progress is not None:
            on_progress("computing here", next(done), len(clips) * len(compared), "taps")
        return rows_and_segments(rows, segments)

    recordings = capture_recordings(
        pipeline,
        clips,
        compared,
        keep_rows,
        prompt_text=prompt_text,
        window_config=pipeline.window_config(longest),
    )
    ours: list[dict[Tap, Float32[np.ndarray, "_rows _width"]]] = []
    for captured in recordings:
        if isinstance(captured, AudioError):
            raise captured
        ours.append({tap: captured.outputs[0][tap][0] for tap in compared})
    pipeline.modules.release()
    reference = TransformersModel(pipeline, depth, on_progress)
    expected = []
    for number, clip in enumerate(clips):
        if on_progress is not None:
            seconds = sum(clip.duration_seconds for clip in clips[:number])
            on_progress("computing with transformers", number, len(clips), "recordings", seconds)
        expected.append(reference.taps(clip, prompt_text))
    is_quantized = bool(pipeline.checkpoint.formats)
    return ParityReport(
        model=pipeline.checkpoint.name,
        revision=pipeline.checkpoint.revision,
        adapter=pipeline.checkpoint.adapter_hash,
        dtype=pipeline.dtype_name,
        quantization=pipeline.checkpoint.quantization,
        device=str(pipeline.device),
        machine=f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        torch=torch.__version__,
        transformers=transformers.__version__,
        clips=tuple(f"{clip.name}, {clip.duration_seconds:.2f} s" for clip in clips),
        taps=tuple(
            _tap_parity(
                str(tap), [rows[tap] for rows in ours], [rows[str(tap)] for rows in expected]
            )
            for tap in compared
        ),
        skipped_taps=tuple(str(tap) for tap in taps if tap not in compared),
        min_cosine=-1.0 if is_quantized else _MIN_COSINE[pipeline.dtype],
        max_error=None if is_quantized else _MAX_ERROR.get(pipeline.dtype),
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
        name = f"synthetic clip {number + 1}"
        clips.append(Waveform(sound.astype(np.float32), name, SAMPLE_RATE_HZ, 1, "synthetic"))
    return clips


def _depth(pipeline: Pipeline) -> int:
    """How many decoder layers of transformers' model fit in memory, with the embedding table; 0
    where there are none."""
    checkpoint, free = pipeline.checkpoint, available_bytes(pipeline.device)
    if not checkpoint.dimensions.has_language_model:
        return 0
    table = math.prod(checkpoint.tensors.shape(EMBEDDINGS))
    for depth in range(checkpoint.dimensions.lm_layers, 0, -1):
        tap = Tap(Stage.LM, depth)
        cost = estimate_cost(
            checkpoint, tap, pipeline.dtype, pipeline.device, base_bytes=pipeline.base_bytes
        )
        reference = sum(
            math.prod(tensor.shape) * pipeline.dtype.itemsize
            - checkpoint.weight_bytes(name, pipeline.dtype)
            for name, tensor in checkpoint.required_tensors(tap).items()
        )
        growth = cost.peak_memory_bytes - pipeline.base_bytes + reference
        growth += table * pipeline.dtype.itemsize
        if growth <= _SHARE_OF_MEMORY * free:
            return depth
    raise OptionError(
        f"{free / 1e9:.1f} GB of memory are free, which do not hold the audio encoder and one "
        f"decoder layer of {checkpoint.name} in {pipeline.dtype_name}: close other programs, or "
        "use a 16-bit dtype"
    )


def _is_within(tap: Tap, depth: int, layers: int) -> bool:
    if tap.stage is Stage.LM_NORM:
        return depth == layers
    return tap.stage is not Stage.LM or (tap.layer or 0) <= depth


def _tap_parity(
    tap: str,
    ours: Iterable[Float32[np.ndarray, "_rows width"]],
    expected: Iterable[Float32[np.ndarray, "_rows width"]],
) -> TapParity:
    a, b = np.concatenate(list(ours)), np.concatenate(list(expected))
    if a.shape != b.shape:
        raise OptionError(f"{tap} has shape {a.shape} here and {b.shape} in transformers")
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    error = np.abs(a - b).max() / np.abs(b).max()
    return TapParity(tap, len(a), float(cosines.min()), float(error))
