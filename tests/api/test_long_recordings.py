"""Long recordings: results while they are decoded, and errors that are found at their end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.audio.decode import AudioDecoder
from qwen_audio.audio.frames import AudioChunk
from recordings import encode, write_wav
from reference import sound


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint)


@pytest.mark.slow
def test_answers_come_while_the_recording_is_decoded(
    model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = write_wav(sound(360.0), 16_000)
    decoded_seconds: list[float] = []
    chunks = AudioDecoder.chunks

    def counted(decoder: AudioDecoder) -> Iterator[AudioChunk]:
        for chunk in chunks(decoder):
            decoded_seconds.append(len(chunk.samples) / chunk.rate_hz)
            yield chunk

    monkeypatch.setattr(AudioDecoder, "chunks", counted)
    answers = model.describe_windows(audio, max_new_tokens=1)
    assert next(answers).end_seconds == 30
    assert 60 <= math.fsum(decoded_seconds) < 330


def test_a_recording_whose_end_is_missing_fails_as_a_whole(
    model: qa.AudioModel, tmp_path: Path
) -> None:
    """Results of the windows before the error are discarded."""
    cut, whole = tmp_path / "cut.flac", tmp_path / "whole.flac"
    flac = encode(sound(2.0)[None], 16_000, "flac")
    whole.write_bytes(flac)
    cut.write_bytes(flac[: 7 * len(flac) // 10])
    for per in ("recording", "window"):
        options: dict[str, Any] = {"window_seconds": 0.2, "per": per}
        found = list(model.encode_each([cut, whole, cut], errors="yield", **options))
        assert [isinstance(each, qa.AudioError) for each in found] == [True, False, True]
        np.testing.assert_array_equal(found[1], model.encode(whole, **options))
    with pytest.raises(qa.AudioError, match=r"cut\.flac is truncated"):
        model.describe([whole, cut], window_seconds=0.2, max_new_tokens=1)
    answers = tuple(model.describe_windows(whole, window_seconds=0.2, max_new_tokens=1))
    assert len(answers) == 10
    description = model.describe(whole, window_seconds=0.2, max_new_tokens=1)
    assert description.answers == answers
    with pytest.raises(qa.AudioError, match=r"cut\.flac is truncated"):
        list(model.describe_windows(cut, window_seconds=0.2, max_new_tokens=1))
    with pytest.raises(qa.OptionError, match="one recording at a time"):
        model.describe_windows([cut])  # type: ignore[arg-type]
