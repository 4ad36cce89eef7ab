"""Attention weights: levels, heads and positions that are asked for; equality with transformers'
is in tests/models/test_families.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.errors import AudioError, OptionError, QwenAudioError
from qwen_audio.inference.attention_weights import rows_of_span
from qwen_audio.inference.spans import Segment
from reference import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, dtype="float32")


def test_what_is_chosen_is_that_of_all(model: qa.AudioModel) -> None:
    clip = sound(1.0)
    everything = model.attention(clip, "What is this?", span="all", **RATE)
    levels, heads, queries, keys = everything.weights.shape
    assert (levels, heads) == (model.dimensions.lm_layers, len(everything.heads))
    assert queries == keys == len(everything.keys)
    assert np.allclose(everything.weights.sum(-1), 1, atol=1e-5)
    later = np.triu(np.ones((queries, keys), bool), 1)
    assert not everything.weights[..., later].any()
    last = model.attention(clip, "What is this?", levels=[-1, "lm.1"], heads=[1], **RATE)
    assert last.levels == (1, levels)
    assert np.allclose(last.weights, everything.weights[[0, -1]][:, [1], [-1]][:, :, None])
    prompt = model.attention(clip, "What is this?", span="prompt", **RATE)
    assert set(prompt.queries.span) == {"prompt"}
    rows = np.flatnonzero(everything.keys.span == "prompt")
    assert np.array_equal(prompt.query_positions, rows)
    assert np.allclose(prompt.weights, everything.weights[:, :, rows])
    audio = model.attention(clip, "What is this?", span="audio", **RATE)
    assert np.allclose(audio.on_audio, everything.on_audio[..., everything.is_audio])


def test_generated_tokens_look_at_all_before_them(model: qa.AudioModel) -> None:
    clip = sound(1.0)
    answer = model.describe(clip, max_new_tokens=3, **RATE).answers[0]
    generated = model.attention(clip, generate=3, span="generated", **RATE)
    assert generated.weights.shape[2] == len(answer.token_ids)
    assert set(generated.queries.span) == {"generated"}
    tokens = model.pipeline.tokenizer
    assert generated.queries.token is not None
    assert generated.queries.token.tolist() == [
        tokens.decode_token(token) for token in answer.token_ids
    ]
    assert (generated.weights[..., -1, :] > 0).all(-1).any()
    everything = model.attention(clip, generate=3, span="all", **RATE)
    assert np.allclose(generated.weights, everything.weights[:, :, -len(answer.token_ids) :])


def test_a_token_after_the_last_position_looks_at_nothing(
    model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = sound(1.0)
    given = len(model.attention(clip, **RATE).keys)
    monkeypatch.setattr(type(model.pipeline.lm), "max_positions", given + 2)
    answer = model.describe(clip, max_new_tokens=9, **RATE).answers[0]
    assert (answer.ended_by, len(answer.token_ids)) == ("context", 3)
    generated = model.attention(clip, generate=9, span="generated", **RATE)
    assert (len(generated.queries), len(generated.keys)) == (2, given + 2)


def test_the_last_position_is_the_one_before_the_answer() -> None:
    segments: tuple[Segment, ...] = (("prompt", 2), ("audio", 3), ("prompt", 1), ("generated", 4))
    assert rows_of_span(segments, "last") == (5,)
    assert rows_of_span(segments, "prompt") == (0, 1, 5)


def test_clips_in_several_batches(model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [sound(seconds) for seconds in (1.0, 0.3, 0.7)]
    expected = model.attention(clips, span="audio", **RATE)
    batches = type(model.pipeline.memory).batches

    def small(self: Any, items: Any, sizes: Any) -> Any:
        for part in (items[:1], items[1:]):
            yield from batches(self, part, sizes)

    monkeypatch.setattr(type(model.pipeline.memory), "batches", small)
    for one, other in zip(model.attention(clips, span="audio", **RATE), expected, strict=True):
        assert np.allclose(one.weights, other.weights, atol=1e-6)


def test_means_shares_and_names_of_what_is_known(model: qa.AudioModel) -> None:
    found = model.attention(sound(0.3), "Is it?", span="all", **RATE)
    np.testing.assert_allclose(found.by_level, found.weights.mean(1))
    audio = found.keys.span == "audio"
    assert 0 < audio.sum() < len(audio)
    np.testing.assert_allclose(found.on_audio, found.weights[..., audio].sum(-1), rtol=1e-6)
    tokens = found.keys.token
    assert tokens is not None
    row = found.table()[-2]
    assert (row["query"], row["key"]) == (len(audio) - 1, len(audio) - 2)
    assert (row["query_token"], row["key_token"]) == (tokens[-1], tokens[-2])
    assert tokens[-1] != tokens[-2]
    assert row["weight"] == pytest.approx(found.weights[-1, -1, -1, -2])
    names = found.query_names()
    first = int(audio.argmax())
    assert names[first : first + 2] == ["0.00 s", "0.04 s"]
    assert names[-1] == tokens[-1].strip()
    with pytest.raises(ValueError, match="weights of shape"):
        replace(found, heads=(0,))


@pytest.mark.slow
def test_streamed_and_in_16_bits(checkpoint: Path, model: qa.AudioModel) -> None:
    clips = [sound(seconds) for seconds in (1.0, 0.3)]
    expected = model.attention(clips, **RATE)
    streamed = qa.load(checkpoint, dtype="float32")
    streamed.pipeline.modules.max_bytes = 0
    for one, other in zip(streamed.attention(clips, **RATE), expected, strict=True):
        assert np.allclose(one.weights, other.weights, atol=1e-6)
    for one, other in zip(
        qa.load(checkpoint, dtype="bfloat16").attention(clips, **RATE), expected, strict=True
    ):
        assert one.dtype == "bfloat16"
        assert np.abs(one.weights - other.weights).max() < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": [0]}, r"level 0: attention weights are of lm.1 to lm"),
        ({"levels": ["encoder.1"]}, "level encoder.1: attention weights are of lm.1"),
        ({"levels": 3}, r"levels=3: give a list, such as \[3\]"),
        ({"levels": []}, "levels is empty"),
        ({"levels": [99]}, "level=99: use a whole number"),
        ({"heads": [99]}, "head=99: use a whole number from 0"),
        ({"heads": []}, "heads is empty"),
        ({"heads": 1}, r"heads=1: give a list, such as \[1\]"),
        ({"span": "words"}, "span='words': use one of last, prompt, audio, generated, all"),
        ({"span": "generated"}, "span='generated', but generate=0"),
        ({"generate": 3}, "generate=3 has no effect on span='last'"),
    ],
)
def test_invalid_options(model: qa.AudioModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(QwenAudioError, match=message) as caught:
        model.attention(sound(0.3), **RATE, **options)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, OptionError)


def test_recordings_of_several_windows(model: qa.AudioModel) -> None:
    with pytest.raises(AudioError, match="is longer than a window of 1 s, and attention is of one"):
        model.attention(sound(1.3), window_seconds=1.0, **RATE)


@pytest.mark.slow
def test_files_and_plots(model: qa.AudioModel, tmp_path: Path) -> None:
    found = model.attention(sound(1.0), span="prompt", **RATE)
    table = found.to_pandas()
    sums = table.groupby(["level", "head", "query"])["weight"].sum()
    assert np.allclose(sums, 1, atol=1e-5)
    assert table[table.span == "audio"].start_seconds.notna().all()
    with np.load(found.save(tmp_path / "attention.npz")) as arrays:
        assert np.array_equal(arrays["weights"], found.weights)
        assert arrays["key_span"].tolist() == found.keys.span.tolist()
    saved = json.loads(found.save(tmp_path / "attention.json").read_text(encoding="utf-8"))
    assert len(saved["rows"]) == len(table)
    assert qa.save_plot(found, tmp_path / "attention.png").stat().st_size > 10_000
    page = qa.save_plot(model.attention(sound(1.0), **RATE), tmp_path / "a.html").read_text()
    assert "where it looks, not why" in page
    assert "of it on the audio" in repr(found)
    assert "<img" in found._repr_html_()
