"""Decoding of uploads: limits, and turns of what takes long."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.serve import decoding
from qwen_audio.serve.asgi import RequestError
from qwen_audio.serve.decoding import UploadDecoder
from qwen_audio.serve.limits import ServerLimits
from recordings import write_wav

LIMITS = ServerLimits(recording_seconds=2)
SECOND, TWO_SECONDS, THREE_SECONDS = (
    write_wav(np.zeros((1, 8_000 * seconds), np.float32), 8_000) for seconds in (1, 2, 3)
)


@pytest.fixture
def quick_is_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_QUICK_CHANNEL_SAMPLES", 8_000)


@pytest.mark.usefixtures("quick_is_a_second")
def test_long_recordings_are_decoded_in_full() -> None:
    decoder = UploadDecoder(LIMITS)
    for data, seconds in ((SECOND, 1), (TWO_SECONDS, 2)):
        waveform = decoder.decode("a.wav", data)
        assert (waveform.name, waveform.duration_seconds) == ("a.wav", seconds)
    with pytest.raises(qa.AudioError, match=r"^a\.wav is longer than 2 seconds, the limit"):
        decoder.decode("a.wav", THREE_SECONDS)


def test_a_name_is_not_an_address() -> None:
    """Of an upload it is text: nothing is fetched."""
    for name in ("https://127.0.0.1:1/a.wav", "memory://a.wav", "zip://a.wav::b.zip"):
        assert UploadDecoder(LIMITS).decode(name, SECOND).name == name


def test_rate_times_channels_is_limited() -> None:
    many = write_wav(np.zeros((9, 48_000 * 2), np.float32), 48_000)
    with pytest.raises(qa.AudioError, match="48000 Hz × 9 channels"):
        UploadDecoder(LIMITS).decode("a.wav", many)


@pytest.mark.usefixtures("quick_is_a_second")
def test_long_recordings_wait_for_each_other_and_short_ones_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(UploadDecoder, "waiting_limit", 2)
    begun, finish = threading.Semaphore(0), threading.Event()
    load = qa.load_waveform

    def load_slowly(file: Any, *, limits: qa.DecodeLimits) -> qa.Waveform:
        if limits == LIMITS.decoding:
            begun.release()
            finish.wait(30)
        return load(file, limits=limits)

    monkeypatch.setattr(decoding, "load_waveform", load_slowly)
    decoder = UploadDecoder(LIMITS)
    with ThreadPoolExecutor(2) as threads:
        long = [threads.submit(decoder.decode, "long.wav", TWO_SECONDS) for _ in range(2)]
        assert begun.acquire(timeout=30)
        assert decoder.decode("short.wav", SECOND).duration_seconds == 1
        with pytest.raises(qa.AudioError, match=r"^broken\.wav"):
            decoder.decode("broken.wav", b"broken")
        assert not begun.acquire(blocking=False)
        finish.set()
        assert [each.result().duration_seconds for each in long] == [2, 2]


@pytest.mark.usefixtures("quick_is_a_second")
def test_too_many_long_recordings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UploadDecoder, "waiting_limit", 1)
    decoder = UploadDecoder(LIMITS)
    with decoder._waiting, pytest.raises(RequestError, match="try again in a moment"):
        decoder.decode("long.wav", TWO_SECONDS)
    assert decoder.decode("long.wav", TWO_SECONDS).duration_seconds == 2


def test_files_that_take_long_to_read_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_QUICK_READING_SECONDS", 1e-9)
    decoder = UploadDecoder(LIMITS)
    assert decoder.decode("a.wav", SECOND).duration_seconds == 1
    for _ in range(UploadDecoder.waiting_limit):
        decoder._waiting.acquire()
    with pytest.raises(RequestError):
        decoder.decode("a.wav", SECOND)
