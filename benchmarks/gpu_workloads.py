"""Workloads of a GPU: this package and transformers' composite model, from the same samples.

Times are of the whole call, and end when results are in the processor's memory. A peak is of the
GPU's memory that torch allocates.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import torch

from .peers import Composite
from .synthetic_audio import SAMPLING_RATE, synthetic_clips
from .this_package import load_model
from .worker import Workload

__all__ = ["encode", "generate", "transformers_encode", "transformers_generate"]

PROMPT = "<|audio_bos|><|AUDIO|><|audio_eos|>Describe what you hear in detail."
"""Used as it is by both, as it says where the audio is."""
TAP = "audio_tower"


def encode(
    checkpoint: str,
    seconds: float,
    count: int,
    dtype: str,
    threads: int,
    device: str,
    **options: Any,
) -> Workload:
    """Mean of `audio_tower` of clips: from samples, and the encoder alone (`encoder_seconds`)."""
    from qwen_audio.inference.reducers import all_rows

    model = load_model(checkpoint, dtype, threads, device=device, **options)
    clips, tap = synthetic_clips(seconds, count), model.dimensions.tap(TAP)
    mels = [model.pipeline.log_mel(clip) for clip in clips]

    def run() -> dict[str, Any]:
        start = perf_counter()
        vectors = model.encode(clips, tap=TAP, pooling="mean", sampling_rate=SAMPLING_RATE)
        end = perf_counter()
        rows = model.pipeline.encoder.forward(mels, [tap], all_rows)[tap]
        torch.stack([each.float().mean(0) for each in rows]).cpu()
        times = {"seconds": end - start, "encoder_seconds": perf_counter() - end}
        return times | {"first": np.round(vectors[0], 5).tolist()} | _peak(device)

    run()  # reads the weights
    return run


def transformers_encode(
    checkpoint: str, seconds: float, count: int, dtype: str, threads: int, device: str
) -> Workload:
    """The same by transformers: one batch, padded to 30 s."""
    model = Composite(checkpoint, dtype, threads, device)
    clips = synthetic_clips(seconds, count)
    processed = model.features(clips)

    def run() -> dict[str, Any]:
        start = perf_counter()
        vectors = model.means(clips)
        end = perf_counter()
        model.means_of(*processed)
        times = {"seconds": end - start, "encoder_seconds": perf_counter() - end}
        return times | {"first": np.round(vectors[0], 5).tolist()} | _peak(device)

    run()
    return run


def generate(
    checkpoint: str,
    batches: list[tuple[float, int]],
    new_tokens: int,
    dtype: str,
    threads: int,
    device: str,
    **options: Any,
) -> Workload:
    """Captions of batches of clips, (seconds, count) each: see `_timed`."""
    model = load_model(checkpoint, dtype, threads, device=device, **options)

    def caption(clips: list[np.ndarray], count: int) -> int:
        texts = model.describe(
            clips, prompt=PROMPT, max_new_tokens=count, sampling_rate=SAMPLING_RATE
        )
        return max(len(answer.token_ids) for text in texts for answer in text.answers)

    return _timed(caption, batches, new_tokens, device)


def transformers_generate(
    checkpoint: str,
    batches: list[tuple[float, int]],
    new_tokens: int,
    dtype: str,
    threads: int,
    device: str,
) -> Workload:
    """The same by transformers' `generate`, greedily, with its default cache."""
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    model: Any = Qwen2AudioForConditionalGeneration.from_pretrained(
        checkpoint, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    )
    model = model.eval().to(device)
    processor: Any = AutoProcessor.from_pretrained(checkpoint)
    processor.tokenizer.padding_side = "left"

    @torch.inference_mode()
    def caption(clips: list[np.ndarray], count: int) -> int:
        inputs = processor(
            text=[PROMPT] * len(clips),
            audio=clips,
            sampling_rate=SAMPLING_RATE,
            return_tensors="pt",
            padding=True,
        )
        prompt_tokens = inputs["input_ids"].shape[1]
        tokens = model.generate(
            **inputs.to(device), min_new_tokens=count, max_new_tokens=count, do_sample=False
        )
        return int(tokens.cpu().shape[1] - prompt_tokens)

    return _timed(caption, batches, new_tokens, device)


def _timed(
    caption: Any, batches: list[tuple[float, int]], new_tokens: int, device: str
) -> Workload:
    """For each batch, as lists in their order: seconds to the first token (log-mel, encoder and
    prompt), and for each step after it.

    Args:
        caption: from clips and a number of tokens, returns the number generated.
    """
    inputs = [synthetic_clips(seconds, count) for seconds, count in batches]

    def run() -> dict[str, Any]:
        first, steps = [], []
        for clips in inputs:
            start = perf_counter()
            caption(clips, 1)
            end = perf_counter()
            count = caption(clips, new_tokens)
            first.append(end - start)
            steps.append((perf_counter() - end - first[-1]) / max(1, count - 1))
        return {"first_token_seconds": first, "step_seconds": steps} | _peak(device)

    run()
    return run


def _peak(device: str) -> dict[str, float]:
    if device == "cpu":
        return {"peak_gb": 0.0}
    return {"peak_gb": torch.cuda.max_memory_allocated(device) / 1e9}
