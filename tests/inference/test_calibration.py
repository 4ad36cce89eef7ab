"""Calibration: the moments of what transformers' own layers multiply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qwen_audio as qa
from checkpoints import random_checkpoint
from qwen_audio.inference import calibration as module
from qwen_audio.inference.calibration import Calibration, caption_rows
from qwen_audio.weights.gptq import InputMoments
from reference import Reference, sound


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"width": 32, "encoder_layers": 1, "encoder_heads": 2, "lm_width": 32, "lm_layers": 3}
    return random_checkpoint(tmp_path_factory.mktemp("base"), shards=1, **sizes)


def transformers_moments(base: Path, clips: list[Tensor]) -> dict[str, Tensor]:
    """Sums of products of the inputs of all linear layers of the language model, by module."""
    model = Reference(base).model
    sums: dict[str, Tensor] = {}

    def add(name: str, inputs: Any) -> None:
        rows = inputs[0].flatten(0, -2)
        sums[name] = sums.get(name, 0) + rows.T @ rows

    language_model: Any = model.model.language_model
    parts = {**dict(language_model.named_modules()), "lm_head": model.lm_head}
    for name, part in parts.items():
        if isinstance(part, nn.Linear):
            part.register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs))
    with torch.inference_mode():
        for rows in clips:
            model.lm_head(language_model(inputs_embeds=rows[None]).last_hidden_state)
    return sums


@pytest.mark.slow
def test_moments_are_of_what_transformers_layers_multiply(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_POSITIONS", 150)  # some batches
    model = qa.load(base, dtype="float32")
    recordings = [qa.Waveform(sound(seconds), name="a") for seconds in (0.4, 1.2, 0.7)]
    clips = [rows for windows in caption_rows(model.pipeline, recordings) for rows in windows]
    prompt = len(model.pipeline.tokenizer.encode(model.pipeline.tokenizer.render(None))) - 1
    answers = [each.answers[0].token_ids for each in model.describe(recordings)]
    audio = [len(model.activations(each, taps=["projector"])["projector"]) for each in recordings]
    assert [len(rows) for rows in clips] == [
        prompt + count + len(answer) for count, answer in zip(audio, answers, strict=True)
    ]
    expected = transformers_moments(base, clips)
    calibration = Calibration(model.pipeline, clips)
    assert calibration.positions == sum(map(len, clips))
    assert calibration.of_module("audio_tower.layers.0.") == {}
    found: dict[str, InputMoments] = {}
    for prefix in (*(f"model.layers.{k}." for k in range(3)), "lm_head."):
        for name, moments in calibration.of_module(f"language_model.{prefix}").items():
            found[(prefix + name).removeprefix("model.").removesuffix(".weight")] = moments
        assert len(model.pipeline.modules._resident) <= 1  # the norm: layers are streamed
    assert found.keys() == expected.keys()
    assert len(found) == 3 * 7 + 1
    for name, sums in expected.items():
        error = (found[name]._sums - sums).norm() / sums.norm()
        assert error < 1e-4, name
    assert found["layers.0.self_attn.q_proj"] is found["layers.0.self_attn.v_proj"]
    assert found["layers.0.mlp.gate_proj"] is not found["layers.0.self_attn.q_proj"]
