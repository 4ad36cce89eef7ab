"""Text generation: a step of full-width decoder layers, and the whole 7B in 4 bits."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import torch

from .benchmark import Result, Settings, Target
from .checkpoints import SEVEN_B, SMALL, Shape, random_checkpoint
from .encoder import DTYPE
from .machine import require_linux
from .resources import peak_bytes
from .rounds import run_interleaved, run_once
from .synthetic_audio import SAMPLING_RATE, synthetic_clip
from .this_package import load_quantized
from .worker import Workload

__all__ = [
    "decode_step",
    "quantized_7b",
    "quantized_caption",
    "step",
    "transformers_step",
]

FULL_DECODER = Shape("full_decoder", encoder_layers=2, lm_layers=4, vocabulary=1104)
"""Four of the 7B's decoder layers: their bfloat16 weights, 1.6 GB, are in no processor's cache."""

KINDS = ("bfloat16", "int8", "int4", "int4-g128")
PROMPT_POSITIONS, POSITIONS, STEPS = 760, 800, 12
"""Of a window of 30 s with its prompt, and with part of an answer; steps timed in each round."""

CAPTION_TOKENS = 60


def decode_step(settings: Settings) -> Result:
    shape = SMALL if settings.quick else FULL_DECODER
    options = {
        "checkpoint": str(random_checkpoint(settings.work, shape)),
        "threads": settings.threads,
    }
    jobs: dict[str, tuple[str, dict[str, Any]]] = {
        kind: ("decoding:step", {**options, "kind": kind, "cache": str(settings.work / "hub")})
        for kind in KINDS
    }
    rounds = run_interleaved(
        settings, {**jobs, "transformers": ("decoding:transformers_step", options)}
    )
    figures: dict[str, Any] = {"positions": POSITIONS, "layers": shape.lm_layers}
    for kind in rounds.names:
        figures[f"{kind}_step_seconds"] = rounds.median_seconds(kind)
        figures[f"{kind}_prompt_seconds"] = rounds.median_seconds(kind, "prompt_seconds")
    prompts = {kind: figures[f"{kind}_prompt_seconds"] for kind in KINDS}
    figures |= {
        "transformers_over_bfloat16": rounds.median_ratio("transformers", "bfloat16"),
        "int4_prompt_ratio": prompts["int4"] / prompts["bfloat16"],
        **{f"{kind}_ratio": rounds.median_ratio(kind, "bfloat16") for kind in KINDS[1:]},
    }
    return Result(
        what=f"one step of text generation after {POSITIONS} positions, {shape.lm_layers} decoder "
        "layers of the 7B's width: weights in 4 bits against bfloat16; transformers' bfloat16 with "
        f"its default cache against ours; a prompt of {PROMPT_POSITIONS} positions",
        dtype=DTYPE,
        figures=figures,
        ratio=figures["int4_ratio"],
        target=Target(0.5, at_most=True),
        conditions={
            "bfloat16 1.8 times as fast as transformers": figures["transformers_over_bfloat16"]
            >= 1.8,
            "the prompt in 4 bits takes 1.4 times as long at most": figures["int4_prompt_ratio"]
            <= 1.4,
        },
    )


def step(checkpoint: str, kind: str, threads: int, cache: str) -> Workload:
    """Seconds of a step, the least of several (other programs only add to it), and of a prompt."""
    from qwen_audio.inference.decoder_input import DecoderInput
    from qwen_audio.inference.reducers import last_row
    from qwen_audio.models.tap import Stage, Tap

    quantize = None if kind == DTYPE else kind
    model = load_quantized(checkpoint, quantize, threads, cache)
    model.pipeline.fetch_weights(None)
    lm = model.pipeline.lm
    tokens = [5 + number % 900 for number in range(POSITIONS)]
    keys = lm.new_cache()
    slot = keys.add()

    def forward(part: list[int]) -> None:
        with keys.extend([slot], [len(part)]) as cached:
            lm.forward([DecoderInput(tuple(part))], [Tap(Stage.LM_NORM)], last_row, cached)

    def crop(length: int) -> None:
        keys.truncate(slot, length)

    return _timed_steps(forward, crop, tokens)


def transformers_step(checkpoint: str, threads: int) -> Workload:
    """The same by transformers' language model, with its `DynamicCache`."""
    from transformers import DynamicCache, Qwen2AudioForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    model: Any = Qwen2AudioForConditionalGeneration.from_pretrained(
        checkpoint, dtype=getattr(torch, DTYPE), attn_implementation="sdpa"
    )
    language_model = model.eval().model.language_model
    tokens = [5 + number % 900 for number in range(POSITIONS)]
    cache = DynamicCache(config=model.config.text_config)

    def forward(part: list[int]) -> None:
        with torch.inference_mode():
            language_model(input_ids=torch.tensor([part]), past_key_values=cache, use_cache=True)

    def crop(length: int) -> None:
        if (count := cache.get_seq_length() - length) > 0:
            cache.crop(-count)

    return _timed_steps(forward, crop, tokens)


def _timed_steps(
    forward: Callable[[list[int]], None], crop: Callable[[int], None], tokens: list[int]
) -> Workload:
    def run() -> dict[str, Any]:
        crop(0)
        start = perf_counter()
        forward(tokens[:PROMPT_POSITIONS])
        prompt_seconds = perf_counter() - start
        forward(tokens[PROMPT_POSITIONS:])
        seconds = []
        for _ in range(STEPS):
            start = perf_counter()
            forward(tokens[-1:])
            seconds.append(perf_counter() - start)
            crop(POSITIONS)
        return {"seconds": min(seconds), "prompt_seconds": prompt_seconds}

    forward(tokens[:8])  # reads the weights
    return run


def quantized_7b(settings: Settings) -> Result:
    require_linux()
    shape = SMALL if settings.quick else SEVEN_B
    options = {
        "checkpoint": str(random_checkpoint(settings.work, shape)),
        "threads": settings.threads,
        "cache": str(settings.work / "hub"),
    }
    figures: dict[str, Any] = {}
    for kind in ("int4", "int4-g128"):
        job = ("decoding:quantized_caption", {**options, "kind": kind})
        run_once(settings, job)  # quantises, the first time
        output = run_once(settings, job)
        for name, value in output.items():
            figures[f"{kind}_{name}"] = value
    return Result(
        what="peak memory of a process that captions a clip of 5 s with the 7B in 4 bits, from the "
        f"cache of quantised weights: start, first token, {CAPTION_TOKENS} tokens",
        dtype=DTYPE,
        figures=figures,
        ratio=figures["int4_peak_gb"],
        target=Target(7.5, at_most=True, unit=" GB"),
        conditions={
            "int4-g128 takes 6.3 GB at most": figures["int4-g128_peak_gb"] <= 6.3,
            "it starts within 30 s of processor time": figures["int4_start_cpu_seconds"] <= 30,
        },
    )


def quantized_caption(checkpoint: str, kind: str, threads: int, cache: str) -> Workload:
    """A caption by a model that is loaded anew."""
    clip = synthetic_clip(5.0)

    def run() -> dict[str, Any]:
        before = process_time()
        model = load_quantized(checkpoint, kind, threads, cache)

        def caption(tokens: int) -> tuple[float, float]:
            start, cpu_start = perf_counter(), process_time()
            model.describe(clip, max_new_tokens=tokens, sampling_rate=SAMPLING_RATE)
            return perf_counter() - start, process_time() - cpu_start

        caption(1)
        loaded = process_time() - before
        first_seconds, first_cpu_seconds = caption(1)
        seconds, _ = caption(CAPTION_TOKENS)
        return {
            "start_cpu_seconds": loaded - first_cpu_seconds,
            "first_token_seconds": first_seconds,
            "step_seconds": (seconds - first_seconds) / (CAPTION_TOKENS - 1),
            "caption_seconds": seconds,
            "peak_gb": peak_bytes() / 1e9,
        }

    return run
