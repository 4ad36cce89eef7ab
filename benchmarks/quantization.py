"""What quantised weights change: captions and probabilities of the embedded checkpoint, and the
outputs of full-width layers with random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .benchmark import Result, Settings, Target
from .checkpoints import SMALL, Shape, random_checkpoint
from .encoder import DTYPE
from .machine import require_packages
from .rounds import ROOT, run_once
from .synthetic_audio import SAMPLING_RATE, synthetic_clip
from .this_package import load_quantized
from .worker import Workload

__all__ = ["captions", "layers", "quantization"]

KINDS = ("float32", "int8", "int4", "int4-g128")
ONE_LAYER = Shape("one_layer", encoder_layers=1, lm_layers=1, vocabulary=1104)
"""Of the 7B's width."""

HELD_OUT = ROOT / "tests" / "data"
"""Fifty clips that the embedded checkpoint was not trained on; see recipes/embedded/held_out.py."""


def quantization(settings: Settings) -> Result:
    require_packages("soundfile")
    options = {"threads": settings.threads, "cache": str(settings.work / "hub")}
    clips = 8 if settings.quick else 200
    output = run_once(settings, ("quantization:captions", {**options, "count": clips}))
    shape = SMALL if settings.quick else ONE_LAYER
    checkpoint = str(random_checkpoint(settings.work, shape))
    cosines = run_once(settings, ("quantization:layers", {**options, "checkpoint": checkpoint}))
    figures = {"clips": clips, **output["figures"], **cosines["figures"]}
    return Result(
        what=f"captions of {clips} clips by the embedded checkpoint in bfloat16 that stay the same "
        "with quantised weights (the ratio: in 4 bits, groups of 32), the Kullback-Leibler "
        "divergence of the next token's probabilities, and the cosine of the output of a "
        "full-width layer with random weights, of the decoder and of the encoder",
        dtype=DTYPE,
        figures=figures,
        ratio=100 * figures["int4_identical"],
        target=Target(90, unit=" %"),
        conditions={
            "int8: 92 % of captions": figures["int8_identical"] >= 0.92,
            "int8: divergence of 2e-4 at most": figures["int8_divergence"] <= 2e-4,
            "int4: divergence of 2e-4 at most": figures["int4_divergence"] <= 2e-4,
            "int8: cosine of .9998 in a decoder layer": figures["int8_decoder_cosine"] >= 0.9998,
            "int4: cosine of .99 in a decoder layer": figures["int4_decoder_cosine"] >= 0.99,
            "int8: cosine of .999 in an encoder layer": figures["int8_encoder_cosine"] >= 0.999,
        },
    )


def captions(threads: int, cache: str, count: int) -> Workload:
    """Share of captions that are those in bfloat16, and the divergence at their tokens."""
    clips = held_out_clips(count)

    def run() -> dict[str, Any]:
        reference = load_quantized("embedded", None, threads, cache)
        expected = reference.describe(clips, sampling_rate=SAMPLING_RATE)
        answers = [text.answers[0].token_ids for text in expected]
        logits = _caption_logits(reference, clips, answers)
        figures: dict[str, float] = {}
        for kind in KINDS:
            quantize, dtype = (None, kind) if kind == "float32" else (kind, DTYPE)
            model = load_quantized("embedded", quantize, threads, cache, dtype)
            texts = model.describe(clips, sampling_rate=SAMPLING_RATE)
            same = sum(a == b for a, b in zip(texts, expected, strict=True))
            divergences = torch.cat(
                [
                    torch.nn.functional.kl_div(
                        b.log_softmax(-1), a.log_softmax(-1), log_target=True, reduction="none"
                    ).sum(-1)
                    for a, b in zip(logits, _caption_logits(model, clips, answers), strict=True)
                ]
            )
            figures |= {
                f"{kind}_identical": same / len(clips),
                f"{kind}_divergence": float(divergences.mean()),
            }
        return {"figures": figures}

    return run


def _caption_logits(model: Any, clips: list[np.ndarray], answers: list[Any]) -> list[Tensor]:
    """For each clip the logits of every token of an answer, given those before it."""
    from qwen_audio.inference.reducers import all_rows
    from qwen_audio.models.tap import Stage, Tap

    pipeline, tap = model.pipeline, Tap(Stage.LM_NORM)
    rows = pipeline.encode_audio([pipeline.log_mel(clip) for clip in clips])
    inputs = pipeline.build_inputs(pipeline.tokenizer.render(None), [[each] for each in rows])
    logits = []
    for item, answer in zip(inputs, answers, strict=True):
        whole = replace(item, token_ids=(*item.token_ids, *answer[:-1]))
        (states,) = pipeline.lm.forward([whole], [tap], all_rows)[tap]
        logits.append(pipeline.lm.logits(states[-len(answer) :]).float())
    return logits


def held_out_clips(count: int) -> list[np.ndarray]:
    """The held-out clips; and, for more than fifty, without their beginning, without their end, and
    at half their amplitude."""
    import soundfile

    samples, _ = soundfile.read(HELD_OUT / "held_out.ogg", dtype="float32")
    entries = json.loads((HELD_OUT / "held_out.json").read_text())
    whole = [samples[each["start"] :][: each["samples"]] for each in entries]
    begins = [clip[: len(clip) * 3 // 4] for clip in whole]
    ends = [clip[len(clip) // 4 :] for clip in whole]
    quiet = [0.5 * clip for clip in whole]
    return [*whole, *begins, *ends, *quiet][:count]


def layers(threads: int, cache: str, checkpoint: str) -> Workload:
    """The cosine of all rows, and the lowest of one, after an encoder layer and a decoder layer."""
    clip = synthetic_clip(5.0)
    tokens = tuple(5 + number % 900 for number in range(200))

    def run() -> dict[str, Any]:
        expected = _layer_outputs(load_quantized(checkpoint, None, threads, cache), clip, tokens)
        figures: dict[str, float] = {}
        for kind in KINDS[1:]:
            model = load_quantized(checkpoint, kind, threads, cache)
            for part, rows in _layer_outputs(model, clip, tokens).items():
                flat, expected_flat = rows.flatten(), expected[part].flatten()
                cosines = torch.cosine_similarity(rows, expected[part], dim=-1)
                figures |= {
                    f"{kind}_{part}_cosine": float(flat @ expected_flat)
                    / float(flat.norm() * expected_flat.norm()),
                    f"{kind}_{part}_lowest_cosine": float(cosines.min()),
                }
        return {"figures": figures}

    return run


def _layer_outputs(model: Any, clip: np.ndarray, tokens: tuple[int, ...]) -> dict[str, Tensor]:
    """Rows after one layer each, of the same input for all models: of audio, and of text alone."""
    from qwen_audio.inference.decoder_input import DecoderInput
    from qwen_audio.inference.reducers import all_rows
    from qwen_audio.models.tap import Stage, Tap

    pipeline, encoder, decoder = model.pipeline, Tap(Stage.ENCODER, 1), Tap(Stage.LM, 1)
    pipeline.fetch_weights(decoder)
    mel = pipeline.log_mel(clip)
    return {
        "encoder": pipeline.encoder.forward([mel], [encoder], all_rows)[encoder][0].float(),
        "decoder": pipeline.lm.forward([DecoderInput(tokens)], [decoder], all_rows)[decoder][
            0
        ].float(),
    }
