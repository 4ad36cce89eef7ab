"""What is Voxtral's own: prompts as mistral-common makes them, and features of a whole window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.integrations.mistral.tokenizer import MistralConverter

import qwen_audio as qa
from checkpoints import edit_json
from families import CASES, VOXTRAL_PROMPTS, TransformersReference
from qwen_audio.errors import CheckpointError, OptionError
from qwen_audio.models.components.tekken import read_tekken
from qwen_audio.models.components.whisper_encoder import POSITIONS
from qwen_audio.models.tap import Tap
from reference import relative_error, sound

_DATA = Path(__file__).parent.parent / "data"
TEXTS = json.loads((_DATA / "voxtral_texts.json").read_text(encoding="utf-8"))
"""What mistral-common makes of texts to be continued: see make_voxtral_prompts.py beside it."""
RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voxtral")
    CASES["voxtral"].write(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> qa.AudioModel:
    return qa.load(folder, dtype="float32")


@pytest.mark.parametrize("prompt", VOXTRAL_PROMPTS)
def test_prompts_are_those_of_mistral_common(model: qa.AudioModel, prompt: Any) -> None:
    tokenizer, messages = model.pipeline.tokenizer, prompt["messages"]
    parts = [
        part for each in messages if isinstance(each["content"], list) for part in each["content"]
    ]
    audios = sum(part["type"] == "audio" for part in parts)
    ids = tokenizer.encode(tokenizer.apply_chat_template(messages))
    assert [*tokenizer.expand_audio_tokens(ids, [375] * audios)] == prompt["ids"]


@pytest.mark.parametrize("text", TEXTS)
def test_plain_prompts_begin_as_texts_of_mistral_common(model: qa.AudioModel, text: str) -> None:
    tokenizer, (start, *text_ids) = model.pipeline.tokenizer, TEXTS[text]
    prompt = tokenizer.render(text, chat=False)
    assert prompt == f"<s>[BEGIN_AUDIO][AUDIO]{text}"
    assert tokenizer.encode(prompt) == (start, 25, 24, *text_ids)
    named = tokenizer.render("</s> and <s>", chat=False)  # control tokens in it are text
    assert tokenizer.encode(named).count(start) == 1


def test_a_converted_tokenizer_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = tmp_path / "assets"
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", assets)
    converted = read_tekken(folder / "tekken.json")
    (kept,) = assets.rglob("tokenizer.json")
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    with monkeypatch.context() as patch:
        patch.setattr(MistralConverter, "__init__", None)  # can't be called
        assert read_tekken(folder / "tekken.json").to_str() == converted.to_str()
    content = kept.read_bytes()
    for damaged in (b"", content[: len(content) // 2]):
        kept.write_bytes(damaged)
        assert read_tekken(folder / "tekken.json").to_str() == converted.to_str()
        assert kept.read_bytes() == content
    other = tmp_path / "tekken.json"
    other.write_text((folder / "tekken.json").read_text().replace("[ARGS]", "[ARGUMENTS]"))
    assert read_tekken(other).token_to_id("[ARGUMENTS]") is not None
    assert len([*assets.rglob("tokenizer.json")]) == 2


def test_a_tokenizer_is_converted_without_a_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for assets in (tmp_path / "file", tmp_path / "file" / "below"):  # no folders
        monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", assets)
        assert read_tekken(folder / "tekken.json").token_to_id("[AUDIO]") == 24


def test_a_system_message_with_audio_is_refused(model: qa.AudioModel) -> None:
    """As mistral-common does."""
    audio = {"type": "audio", "audio": ""}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [audio]},
    ]
    with pytest.raises(OptionError, match="Voxtral takes no system message with audio"):
        model.pipeline.tokenizer.apply_chat_template(messages)


def test_no_tokenizer(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.name != "tekken.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(
        CheckpointError, match=r"has no tokenizer \(tokenizer.json or tekken.json\)"
    ):
        qa.load(tmp_path)


def test_a_recording_is_normalised_as_a_whole(model: qa.AudioModel, folder: Path) -> None:
    """Its quiet chunk by the loud one's maximum, in one window and in two."""
    loud, quiet = sound(30.0), 1e-3 * sound(10.0, 1)
    clip = np.concatenate([loud, quiet])
    reference = TransformersReference(CASES["voxtral"], folder)
    prompt_text = model.pipeline.tokenizer.render(None)
    together = model.activations(clip, taps=["mel"], window_seconds=60, **RATE)["mel"].data
    assert relative_error(together, reference.taps(clip, prompt_text)["mel"]) < 1e-6
    apart = model.activations(clip, taps=["mel"], **RATE)["mel"].data
    assert relative_error(apart, together) < 1e-6
    assert relative_error(apart[3000:], reference.taps(quiet, prompt_text)["mel"]) > 0.1


def test_the_language_model_is_given_padding(model: qa.AudioModel) -> None:
    states = model.activations(sound(1.0), taps=["audio_tower", "projector", "lm.1"], **RATE)
    window = model.inspect(sound(1.0), **RATE).windows[0]
    assert (window.audio_tokens, window.padding_tokens) == (13, 375 - 13)
    assert len(states["audio_tower"]) == 13  # the last has half a row of audio
    for name in ("projector", "lm.1"):
        assert len(states[name].indices("audio")) == 13
        assert len(states[name].indices("padding")) == 375 - 13
    assert states["projector"].end_seconds[12] == 1.0
    longer = model.activations(sound(31.4), taps=["projector"], window_seconds=60, **RATE)
    assert len(longer["projector"]) == 750


def test_positions_are_counted_and_kept_in_float32(folder: Path) -> None:
    """In a 16-bit model, as transformers keeps them."""
    model = qa.load(folder, dtype="bfloat16")
    model.activations(sound(0.5), taps=["encoder.0"], **RATE)
    modules, checkpoint = model.pipeline.modules, model.pipeline.checkpoint
    assert modules._resident[POSITIONS].weight.dtype is torch.float32
    width = model.dimensions.width(Tap.parse("encoder.0"))
    assert modules._weight_bytes(POSITIONS) == 1500 * width * 4
    assert checkpoint.weight_bytes(f"{POSITIONS}weight", torch.bfloat16) == 1500 * width * 4


def test_a_transcription_request_is_a_raw_prompt(model: qa.AudioModel) -> None:
    prompt = "<s>[INST][BEGIN_AUDIO][AUDIO][/INST]lang:en[TRANSCRIBE]"
    tokenizer = model.pipeline.tokenizer
    assert tokenizer.render(prompt) == prompt
    assert tokenizer.encode(prompt)[:5] == (1, 3, 25, 24, 4)
    assert tokenizer.encode(prompt)[-1] == 34


def test_an_audio_token_of_another_id_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    edit_json(tmp_path / "config.json", audio_token_id=25)
    with pytest.raises(CheckpointError, match="the tokenizer has \\[AUDIO\\] as 24"):
        _ = qa.load(tmp_path).pipeline.tokenizer
