"""Speed of other families than Qwen2-Audio against transformers' own models."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .benchmark import Result, Settings, Target, log_progress
from .checkpoints import EMBEDDED
from .rounds import run_interleaved
from .synthetic_audio import SAMPLING_RATE, synthetic_clips
from .worker import Workload

__all__ = ["omni_encoder", "omni_tower"]

DTYPE = "bfloat16"
_PROCESSOR = ("generation_config.json", "tokenizer.json", "tokenizer_config.json")


def omni_encoder(settings: Settings) -> Result:
    checkpoint = _omni_checkpoint(settings)
    figures: dict[str, float] = {}
    for name, count in (("clips", 2 if settings.quick else 4), ("one_clip", 1)):
        options = {
            "checkpoint": str(checkpoint),
            "seconds": 5.0,
            "count": count,
            "dtype": DTYPE,
            "threads": settings.threads,
        }
        rounds = run_interleaved(
            settings,
            {
                "transformers": ("families:omni_tower", options),
                "ours": ("this_package:encode_clips", options),
            },
        )
        a, b = (np.array(rounds.outputs(each)[0]["first"]) for each in rounds.names)
        figures |= {
            f"{name}_ours_seconds": rounds.median_seconds("ours"),
            f"{name}_transformers_seconds": rounds.median_seconds("transformers"),
            f"{name}_ratio": rounds.median_ratio("transformers", "ours"),
            f"{name}_cosine": float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)),
        }
    return Result(
        what="4 clips of 5 s, and one, tap audio_tower of Qwen2.5-Omni's encoder: this package "
        "against transformers' thinker, whose features are padded to the longest clip only (its "
        "processor pads to 300 s), and whose encoder doesn't pad",
        dtype=DTYPE,
        figures=figures,
        ratio=figures["clips_ratio"],
        target=Target(1.1),
    )


def omni_tower(checkpoint: str, seconds: float, count: int, dtype: str, threads: int) -> Workload:
    """Mean of the projector's input of clips in memory, by transformers."""
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration, WhisperFeatureExtractor
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    thinker: Any = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        checkpoint, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    )
    thinker.eval()
    extractor = WhisperFeatureExtractor.from_pretrained(checkpoint)
    clips = synthetic_clips(seconds, count)
    seen: list[torch.Tensor] = []
    projector = thinker.model.audio_tower.proj
    projector.register_forward_pre_hook(lambda _, args: seen.append(args[0]))

    @torch.inference_mode()
    def run() -> dict[str, Any]:
        inputs = extractor(
            clips,
            sampling_rate=SAMPLING_RATE,
            padding="longest",
            truncation=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        features = inputs["input_features"].to(projector.weight.dtype)
        thinker.get_audio_features(features, inputs["attention_mask"])
        means = [rows.float().mean(0) for rows in seen.pop().chunk(count)]
        return {"first": np.round(means[0].numpy(), 5).tolist()}

    run()
    return run


def _omni_checkpoint(settings: Settings) -> Path:
    """The 7B's whole encoder with a small language model, in random weights; written once."""
    from transformers import (
        Qwen2_5OmniThinkerConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
        WhisperFeatureExtractor,
    )

    folder = settings.work / ("small_omni" if settings.quick else "full_omni_encoder")
    if (folder / "config.json").is_file():
        return folder
    log_progress(f"writing {folder}")
    tokenizer = json.loads((EMBEDDED / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    width = 64
    small = {"d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4}
    config = Qwen2_5OmniThinkerConfig(
        audio_config={
            "output_dim": width,
            **({**small, "encoder_ffn_dim": 256} if settings.quick else {}),
        },
        text_config={
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": max(ids.values()) + 1,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [2, 3, 3],
            },
        },
        vision_config={"depth": 0, "out_hidden_size": width},
        audio_token_index=ids["<|AUDIO|>"],
        dtype=DTYPE,
    )
    model: Any = Qwen2_5OmniThinkerForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "embed" not in name:
            gain = 1.5 if "q_proj" in name or "k_proj" in name else 1.0
            deviation = gain / math.sqrt(parameter[0].numel())
            parameter.data.normal_(0, deviation, generator=generator)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(partial)
    bins = config.audio_config.num_mel_bins
    WhisperFeatureExtractor(feature_size=bins, chunk_length=300).save_pretrained(partial)
    for name in _PROCESSOR:
        shutil.copy(EMBEDDED / name, partial / name)
    partial.rename(folder)
    return folder
