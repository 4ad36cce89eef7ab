"""Families whose encoder attends to padding: a short clip is 30 s of work, and has its own rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import qwen_audio as qa
from families import CASES, TransformersReference
from qwen_audio.models.tap import Stage
from qwen_audio.models.tensors import LM_HEAD
from reference import relative_error, sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}
PADDED = [kind for kind in ("glmasr", "voxtral") if kind in CASES]


@pytest.fixture(scope="module", params=PADDED)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    CASES[request.param].write(folder)
    return folder


def test_a_short_clip_costs_thirty_seconds(folder: Path) -> None:
    model = qa.load(folder, dtype="float32")
    family = model.pipeline.checkpoint.family
    assert model.cost("projector").padded_seconds == 30.0
    assert [family.encoder_rows(frames) for frames in (8, 3000, 3001)] == [1500, 1500, 3000]
    states = model.activations(sound(1.0), taps=["mel", "encoder.1", "audio_tower"], **RATE)
    rows = [len(each.indices("audio")) for each in states.values()]
    assert rows == [100, 50, family.rows(Stage.AUDIO_TOWER, 100)]
    assert [len(each) for each in states.values()] == rows


def test_padding_changes_the_rows_of_a_clip(folder: Path) -> None:
    """So they must be computed with it: a clip that is followed by silence has the same rows."""
    model = qa.load(folder, dtype="float32")
    clip = sound(1.0)
    silence = np.zeros(29 * 16_000, np.float32)
    tap = f"encoder.{model.dimensions.encoder_layers}"
    padded = model.activations(np.concatenate([clip, silence]), taps=[tap], **RATE)[tap]
    assert relative_error(model.activations(clip, taps=[tap], **RATE)[tap].data, padded[:50]) < 1e-5
    half = model.activations(np.concatenate([clip, sound(29.0, 1)]), taps=[tap], **RATE)[tap]
    assert relative_error(half[:50].data, padded[:50].data) > 1e-2


@pytest.mark.slow
def test_a_16_bit_encoder_equals_transformers(folder: Path) -> None:
    """With the positions that transformers keeps in float32."""
    model = qa.load(folder, dtype="bfloat16")
    case = next(case for kind, case in CASES.items() if kind in folder.name)
    reference = TransformersReference(case, folder, torch.bfloat16)
    prompt_text, clip = model.pipeline.tokenizer.render(None), sound(30.0)
    expected = reference.taps(clip, prompt_text)
    states = model.activations(clip, taps=["encoder.0", "encoder.2"], **RATE)
    for tap, bound in (("encoder.0", 1e-6), ("encoder.2", 0.02)):
        assert relative_error(states[tap].data, expected[tap]) < bound, tap


def test_rotary_frequencies_stay_in_float32(tmp_path: Path) -> None:
    """In bfloat16, the angle of the last position would be off by 0.02."""
    CASES["glmasr"].write(tmp_path)
    pipeline = qa.load(tmp_path, dtype="bfloat16").pipeline
    family: Any = pipeline.checkpoint.family
    reference = TransformersReference(CASES["glmasr"], tmp_path, torch.bfloat16)
    rotary = reference.model.model.audio_tower.rotary_emb
    like, positions = torch.empty(0, dtype=torch.bfloat16), torch.arange(1500)[None]
    ours = family.encoder_positions(pipeline.modules, (1500, 1500))
    for given, expected in zip(ours, rotary(like, positions), strict=True):
        assert torch.equal(given, torch.cat([expected, expected], dim=1))


def test_glm_asr_has_no_head_on_disk(tmp_path: Path) -> None:
    CASES["glmasr"].write(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert not any("lm_head" in name for name in stored)
    checkpoint = qa.load(tmp_path, dtype="float32").pipeline.checkpoint
    assert checkpoint.family.ties_head
    (table,) = (tensor for name, tensor in stored.items() if "embed_tokens" in name)
    assert torch.equal(checkpoint.tensors.read(LM_HEAD)[""], table)
