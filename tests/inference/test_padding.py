"""A model that encodes padding and gives it to its language model: what is padding is no audio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.audio.log_mel import LogMel
from qwen_audio.cli.tables import inspection_tables
from qwen_audio.inference.decoder_input import DecoderInput
from qwen_audio.models.families.qwen2_audio import Qwen2Audio
from reference import sound

CLIP = sound(1.0)
RATE: dict[str, Any] = {"sampling_rate": 16_000}
LOG_MEL = Qwen2Audio.log_mel


@pytest.fixture
def model(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> qa.AudioModel:
    """One of 2 s, to which all clips are padded."""

    def padded(family: Any, samples: np.ndarray, extractor: Any) -> LogMel:
        mel = LOG_MEL(family, np.pad(samples, (0, 32_000 - samples.size)), extractor)
        return LogMel(mel.input_features, samples.size // 160)

    monkeypatch.setattr(Qwen2Audio, "log_mel", padded)
    monkeypatch.setattr(Qwen2Audio, "encoder_rows", lambda *_: 100)
    monkeypatch.setattr(Qwen2Audio, "audio_tokens", lambda *_: 50)
    return qa.load(checkpoint, dtype="float32")


def test_padding_is_a_span_of_its_own(model: qa.AudioModel) -> None:
    taps = ["mel", "encoder.0", "encoder.3", "audio_tower", "projector", "lm.2"]
    states = model.activations(CLIP, taps=taps, **RATE)
    assert [len(states[tap]) for tap in taps[:5]] == [100, 50, 50, 25, 50]
    spans = [(span.kind, len(span)) for span in states["projector"].spans]
    assert spans == [("audio", 25), ("padding", 25)]
    prompt = model.pipeline.tokenizer.text_tokens(model.pipeline.tokenizer.render(None))
    counts = {kind: len(states["lm.2"].indices(kind)) for kind in ("audio", "padding", "prompt")}
    assert counts == {"audio": 25, "padding": 25, "prompt": prompt}
    padding = states["lm.2"].mask("padding")
    assert np.isnan(states["lm.2"].start_seconds[padding]).all()
    assert states["lm.2"].end_seconds[states["lm.2"].mask("audio")][-1] == 1.0


@pytest.mark.parametrize("tap", ["projector", "lm.2"])
def test_padding_is_not_pooled(tap: str, model: qa.AudioModel) -> None:
    states = model.activations(CLIP, taps=[tap], **RATE)[tap]
    audio = states.data[states.mask("audio")]
    mean, rows = (model.encode(CLIP, tap=tap, pooling=each, **RATE) for each in ("mean", "none"))
    np.testing.assert_allclose(mean, audio.mean(0), atol=1e-5)
    np.testing.assert_allclose(rows, audio, atol=1e-6)


def test_numbers_are_those_of_the_padded_clip(model: qa.AudioModel, checkpoint: Path) -> None:
    """Attention reaches the padding, which the language model is given, too."""
    padded = np.pad(CLIP, (0, 16_000))
    whole = model.activations(padded, taps=["encoder.3", "lm.2"], **RATE)
    short = model.activations(CLIP, taps=["encoder.3", "lm.2"], **RATE)
    np.testing.assert_allclose(short["lm.2"].data, whole["lm.2"].data, atol=1e-5)
    np.testing.assert_allclose(short["encoder.3"].data, whole["encoder.3"].data[:50], atol=1e-5)


def test_padding_is_not_shuffled(model: qa.AudioModel) -> None:
    """Nor taken for audio by edits: where all audio is the same, its order changes nothing."""
    options: dict[str, Any] = {"answers": ["a"], "others": [sound(0.5, 2)], **RATE}
    with model.edit("lm.0", qa.edits.zero(), span="audio"):
        heard, shuffled, *_ = model.audio_ablation(CLIP, **options).log_probability[0]
    assert shuffled == pytest.approx(heard, abs=1e-5)
    heard, shuffled, *_ = model.audio_ablation(CLIP, **options).log_probability[0]
    assert abs(shuffled - heard) > 1e-4


def test_padding_is_not_counted_as_audio(model: qa.AudioModel) -> None:
    """Neither in answers and scores nor in `inspect`."""
    message = {"role": "user", "content": [{"type": "audio", "audio": CLIP}] * 2}
    session, trace = model.session(CLIP, **RATE), model.inspect(CLIP, **RATE)
    window = trace.windows[0]
    described, asked = model.describe(CLIP, max_new_tokens=2, **RATE), session.ask(max_new_tokens=2)
    counted: list[Any] = [*described.answers, *asked.answers, session, window]
    for answer in counted:
        assert (answer.audio_tokens, answer.padding_tokens) == (25, 25)
    assert window.positions == 50 + window.prompt_tokens
    rows = {tap.tap: tap.rows for tap in trace.taps}
    assert (rows["audio_tower"], rows["projector"], rows["lm.1"]) == (25, 50, window.positions)
    chatted = model.chat([message], max_new_tokens=2, **RATE)
    assert (chatted.audio_tokens, chatted.padding_tokens) == (50, 50)
    (rows_of_audio,) = model.pipeline.encode_audio([model.pipeline.log_mel(CLIP)])
    prompt_text = model.pipeline.tokenizer.render(None)
    (scores,) = model.pipeline.score(prompt_text, [[rows_of_audio]], [(5,), (6,)])
    assert (scores.audio_tokens, scores.padding_tokens) == (25, 25)
    assert scores.prompt_tokens == window.prompt_tokens
    _, table, note, *_ = inspection_tables(trace)
    headers = [column.header for column in table.columns]  # type: ignore[union-attr]
    assert headers[4:] == ["audio tokens", "padding", "prompt tokens", "positions"]
    assert "audio, padding and prompt tokens" in str(note)


def test_segments_of_an_input() -> None:
    item = DecoderInput((1, 9, 9, 9, 2, 9))
    assert item.segments(9) == (("prompt", 1), ("audio", 3), ("prompt", 1), ("audio", 1))
    assert item.segments(9, 2)[:3] == (("prompt", 1), ("audio", 2), ("padding", 1))
