"""`qa.connect`: the methods of a model on a server return what the model's own do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from families import CASES
from qwen_audio.serve.launch import RunningServer, launch_server
from qwen_audio.serve.limits import ApiLimits
from recordings import sound, write_wav

pytestmark = pytest.mark.slow

SAMPLES = sound(0.9, 16_000, seed=1)[0]
WINDOWS: dict[str, Any] = {"window_seconds": 0.4, "hop_seconds": 0.3}


@pytest.fixture(scope="module")
def server(model: qa.AudioModel) -> Iterator[RunningServer]:
    running = launch_server(model, api_keys=["a-key"], limits=ApiLimits(recording_seconds=5))
    running.wait_until_ready()
    yield running
    running.close()


@pytest.fixture(scope="module")
def remote(server: RunningServer) -> Iterator[qa.RemoteModel]:
    with qa.connect(server.url, api_key="a-key") as connected:
        yield connected


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("clips") / "a clip.wav"
    file.write_bytes(write_wav(sound(0.7, 22_050, 2), 22_050))
    return file


def test_the_model(remote: qa.RemoteModel, model: qa.AudioModel) -> None:
    assert (remote.name, remote.dtype, remote.taps) == (model.name, model.dtype, model.taps)
    assert repr(remote).startswith("RemoteModel('embedded' at http://127.0.0.1:")


@pytest.mark.parametrize("options", [{}, {"prompt": "Are there drums?", **WINDOWS}])
def test_describe(
    remote: qa.RemoteModel, model: qa.AudioModel, path: Path, options: dict[str, Any]
) -> None:
    expected = model.describe(path, **options, max_new_tokens=20)
    pieces: list[str] = []
    for stream in (None, pieces.append):
        found = remote.describe(path, **options, max_new_tokens=20, stream=stream)
        assert found == expected
        assert found.answers == expected.answers
        assert (found.source, found.notes) == (expected.source, expected.notes)
    assert "".join(pieces) == expected
    audio: list[Any] = [path, path.read_bytes(), qa.Waveform(SAMPLES, "chord")]
    assert remote.describe(audio, max_new_tokens=5) == model.describe(audio, max_new_tokens=5)


@pytest.mark.parametrize(
    "options", [{}, {"tap": "lm.1", "span": "all", "pooling": "max", **WINDOWS}]
)
def test_encode(
    remote: qa.RemoteModel, model: qa.AudioModel, path: Path, options: dict[str, Any]
) -> None:
    for found, expected in (
        (remote.encode(path, **options), model.encode(path, **options)),
        (
            remote.encode([SAMPLES], sampling_rate=16_000, **options),
            model.encode([SAMPLES], sampling_rate=16_000, **options),
        ),
    ):
        assert found.shape == expected.shape
        assert np.array_equal(found, expected)
        assert found.spec == expected.spec
        for name, column in expected.index.columns().items():
            assert np.array_equal(found.index.columns()[name], column)


def test_activations(remote: qa.RemoteModel, model: qa.AudioModel, path: Path) -> None:
    options: dict[str, Any] = {"taps": ["mel", "encoder.1", "lm.-1"], "generate": 2, **WINDOWS}
    (found,), (expected,) = (
        remote.activations([path], **options),
        model.activations([path], **options),
    )
    assert list(found) == list(expected)
    for tap, states in expected.items():
        for field in dataclasses.fields(states):
            ours, theirs = getattr(found[tap], field.name), getattr(states, field.name)
            if isinstance(theirs, np.ndarray):
                assert np.array_equal(ours, theirs, equal_nan=True)
            else:
                assert ours == theirs, field.name


def test_errors(remote: qa.RemoteModel, server: RunningServer, path: Path) -> None:
    with pytest.raises(qa.AudioError, match=r"^bytes \(4\) can't be decoded"):
        remote.encode(b"abcd")
    with pytest.raises(qa.AudioError, match=r"^array \(96000,\) is longer than 5 seconds"):
        remote.describe(np.zeros(16_000 * 6), sampling_rate=16_000)
    with pytest.raises(qa.OptionError, match="tap"):
        remote.encode(path, tap="lm.99")
    with pytest.raises(qa.OptionError, match="one tap"):
        remote.activations(path, taps="mel")
    with pytest.raises(qa.OptionError, match=r"^stream= takes one recording"):
        remote.describe([path], stream=print)
    with pytest.raises(qa.QwenAudioError, match="API key"):
        qa.connect(server.url)
    with pytest.raises(qa.QwenAudioError, match=r"^http://127\.0\.0\.1:9/ doesn't answer"):
        qa.connect("http://127.0.0.1:9")


def test_a_model_without_a_language_model(tmp_path: Path, path: Path) -> None:
    """Its vectors and hidden states; it answers nothing."""
    CASES["whisper"].write(tmp_path / "whisper")
    model = qa.load(tmp_path / "whisper", dtype="float32")
    running = launch_server(model)
    try:
        running.wait_until_ready()
        with qa.connect(running.url) as remote:
            assert remote.name == "whisper"
            tap = str(remote.taps[-1])
            vector = remote.encode(path, tap=tap)
            assert np.array_equal(vector, model.encode(path, tap=tap))
            states = remote.activations(path, taps=["mel", tap])
            for name, expected in model.activations(path, taps=["mel", tap]).items():
                assert np.array_equal(states[name], expected)
            with pytest.raises(qa.OptionError, match="has no language model"):
                remote.describe(path)
    finally:
        running.close()
