"""Windows decoded as they are needed: those of the whole waveform, in bounded memory."""

from __future__ import annotations

import io
import os
import threading
import tracemalloc
import wave
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from qwen_audio import AudioError, AudioWarning, DecodeLimits, load_waveform
from qwen_audio.audio import source_content
from qwen_audio.audio.load_options import LoadOptions
from qwen_audio.audio.log_mel import SpectrogramPeak
from qwen_audio.audio.source import Source
from qwen_audio.audio.source_content import SourceVersion, stream_source
from qwen_audio.audio.window import WindowConfig
from qwen_audio.audio.window_stream import SampledWindow, stream_windows
from recordings import encode, sound, write_wav

WINDOW_CONFIGS = [(30.0, None), (0.3, 0.1), (0.25, 0.0601), (0.04, None), (0.04, 0.04)]


def mp3_of_two_rates() -> bytes:
    first, second = sound(0.6, 48_000), sound(0.5, 44_100)
    return encode(first, 48_000, "mp3") + encode(second, 44_100, "mp3")


RECORDINGS = {
    "8 kHz": write_wav(sound(1.013, 8_000), 8_000),
    "16 kHz": write_wav(sound(0.9, 16_000), 16_000),
    "44.1 kHz stereo": write_wav(sound(1.0001, 44_100, 2), 44_100),
    "shortest": write_wav(sound(0.04, 16_000), 16_000),
    "a window and a sample": write_wav(sound(0.4, 16_000)[:, :4801], 16_000),
    "flac": encode(sound(0.7, 22_050), 22_050, "flac"),
    "two rates": mp3_of_two_rates(),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_windows_are_those_of_the_whole_waveform(name: str) -> None:
    whole = load_waveform(RECORDINGS[name])
    for window_config in (WindowConfig(*each) for each in WINDOW_CONFIGS):
        for audio in (RECORDINGS[name], whole):
            *others, last = stream_windows(audio, LoadOptions(), window_config)
            assert tuple(w.window for w in (*others, last)) == whole.windows(window_config)
            for window in (*others, last):
                np.testing.assert_array_equal(window.samples, whole.samples_in(window.window))
            assert all(window.recording is None for window in others)
            assert last.recording == whole.info


def test_the_last_window_comes_only_from_a_recording_in_order(tmp_path: Path) -> None:
    truncated, flac = tmp_path / "cut.flac", encode(sound(2.0, 16_000), 16_000, "flac")
    truncated.write_bytes(flac[: 7 * len(flac) // 10])
    windows = stream_windows(truncated, LoadOptions(), WindowConfig(0.5))
    assert [next(windows).window.end_seconds for _ in range(2)] == [0.5, 1.0]
    with pytest.raises(AudioError, match=r"cut\.flac is truncated: it should hold 2\.00 s"):
        list(windows)
    with pytest.warns(AudioWarning, match="is missing at the end of the file"):
        *_, last = stream_windows(truncated, LoadOptions(on_damage="partial"), WindowConfig(0.5))
    assert last.recording is not None
    assert last.window.end_seconds == last.recording.duration_seconds < 1.5
    assert [missing.end_seconds for missing in last.recording.missing] == [2.0]
    limited = LoadOptions(limits=DecodeLimits(max_seconds=1))
    with pytest.raises(AudioError, match="longer than the limit of 1 s"):
        list(stream_windows(RECORDINGS["8 kHz"], limited, WindowConfig(0.5)))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.array([0.0] * 9000 + [np.nan] * 2), "first at 0.5625000 s"),
        (np.full(9000, 200.0), "peaks at 200"),
        (np.zeros(300), "lasts 18.8 ms"),
        (np.zeros(0), "holds no samples"),
    ],
)
def test_samples_are_checked(samples: np.ndarray, message: str, tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(write_wav(samples.astype(np.float32), 16_000, "FLOAT"))
    with pytest.raises(AudioError, match=message):
        list(stream_windows(file, LoadOptions(), WindowConfig(0.1)))
    with pytest.raises(AudioError, match=message):
        load_waveform(file)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    peaks = []
    for minutes in (1, 5):
        file = tmp_path / f"{minutes}.wav"
        with wave.open(str(file), "wb") as writer:
            writer.setparams((1, 2, 8_000, 0, "NONE", ""))
            writer.writeframes(bytes(2 * 8_000 * 60 * minutes))
        tracemalloc.start()
        count = sum(1 for _ in stream_windows(file, LoadOptions(), WindowConfig(10.0, 5.0)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == 12 * minutes - 1
    assert peaks[1] < 1.2 * peaks[0]


class Loudest(SpectrogramPeak):
    """Of all samples, in place of a spectrogram's."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []

    def add(self, samples: np.ndarray) -> None:
        self.parts.append(samples)

    def finish(self) -> float:
        return float(np.concatenate(self.parts).max())


def measured_windows(audio: Any, window_config: WindowConfig) -> list[SampledWindow]:
    return list(stream_windows(audio, LoadOptions(), window_config, Loudest))


@pytest.mark.parametrize("name", RECORDINGS)
def test_windows_of_a_measured_recording(name: str) -> None:
    """The same ones; each knows the samples beside it, and the peak of all."""
    whole = load_waveform(RECORDINGS[name])
    samples, peak = whole.samples, float(whole.samples.max())
    for window_config in (WindowConfig(*each) for each in WINDOW_CONFIGS):
        expected = list(stream_windows(whole, LoadOptions(), window_config))
        for audio in (RECORDINGS[name], whole):
            windows = measured_windows(audio, window_config)
            assert [each.window for each in windows] == [each.window for each in expected]
            assert [each.recording for each in windows] == [each.recording for each in expected]
            for window in windows:
                start, end = (
                    round(seconds * 16_000)
                    for seconds in (window.window.start_seconds, window.window.end_seconds)
                )
                np.testing.assert_array_equal(window.samples, samples[start:end])
                around = window.surroundings
                assert (around is None) == (len(windows) == 1)
                if around is not None:
                    before, after = samples[max(0, start - 200) : start], samples[end : end + 200]
                    np.testing.assert_array_equal(around.before, before)
                    np.testing.assert_array_equal(around.after, after)
                    assert around.peak == peak


def test_what_can_be_read_once_is_measured_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard input, pipes and file objects are kept as bytes."""
    file, config = encode(sound(0.7, 22_050), 22_050, "flac"), WindowConfig(0.3)
    expected = measured_windows(file, config)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file)))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(file,))
    writer.start()
    for audio in (io.BytesIO(file), "-", pipe):
        for window, other in zip(measured_windows(audio, config), expected, strict=True):
            np.testing.assert_array_equal(window.samples, other.samples)
            assert window.surroundings is not None
            assert other.surroundings is not None
            assert window.surroundings.peak == other.surroundings.peak
    writer.join()


def test_what_is_wrong_with_a_measured_recording(tmp_path: Path) -> None:
    """It is found before any window is given, and once only; so is a change between the passes."""
    path, config = tmp_path / "a.wav", WindowConfig(0.1)
    samples = sound(0.5, 16_000)[0]
    path.write_bytes(write_wav(np.append(samples, np.nan).astype(np.float32), 16_000, "FLOAT"))
    with pytest.raises(AudioError, match=r"first at 0\.500 s"):
        next(stream_windows(path, LoadOptions(), config, Loudest))
    flac = encode(sound(2.0, 16_000), 16_000, "flac")
    path.write_bytes(flac[: 7 * len(flac) // 10])
    with pytest.raises(AudioError, match="is truncated"):
        next(stream_windows(path, LoadOptions(), config, Loudest))
    with pytest.warns(AudioWarning) as warned:
        list(stream_windows(path, LoadOptions(on_damage="partial"), config, Loudest))
    assert len(warned) == 1
    path.write_bytes(write_wav(samples, 16_000))

    class Shortened(Loudest):
        def finish(self) -> float:
            path.write_bytes(write_wav(samples[:-1600], 16_000))
            return super().finish()

    with pytest.raises(AudioError, match=r"a\.wav changes while it is read"):
        list(stream_windows(path, LoadOptions(), config, Shortened))


def windows_and_version(source: Source) -> tuple[list[SampledWindow], SourceVersion]:
    versions: list[SourceVersion] = []
    windows = list(stream_source(source, WindowConfig(0.1), on_version=versions.append))
    return windows, versions[-1]


def test_a_file_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short one is read again; of a longer one windows were given, and it is an error."""
    path = tmp_path / "a.wav"
    one, two = (write_wav(sound(0.5, 16_000, seed=seed), 16_000) for seed in (1, 2))
    path.write_bytes(one)
    changes = [two]

    def change_first(*args: Any) -> Any:
        if changes:
            path.write_bytes(changes.pop())
        return stream_windows(*args)

    monkeypatch.setattr(source_content, "stream_windows", change_first)
    windows, version = windows_and_version(Source(str(path)))
    expected = load_waveform(two).samples
    np.testing.assert_array_equal(np.concatenate([w.samples for w in windows]), expected)
    monkeypatch.undo()
    assert version.content_hash == source_content.hash_source(Source(str(path)))
    monkeypatch.setattr(source_content, "_HELD_SECONDS", 0.1)
    given = stream_source(Source(str(path)), WindowConfig(0.1), on_version=lambda _: None)
    first = next(given)
    path.write_bytes(one)
    rest = []
    with pytest.raises(AudioError, match=r"a\.wav changes while it is read"):
        rest += list(given)
    assert first.recording is None
    assert rest == []


def test_addresses_of_file_systems(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/streamed/a.wav", RECORDINGS["16 kHz"])
    loaded = load_waveform("memory://streamed/a.wav")
    np.testing.assert_array_equal(loaded.samples, load_waveform(RECORDINGS["16 kHz"]).samples)
    assert loaded.name == "memory://streamed/a.wav"
    memory.rm("/streamed", recursive=True)
    archive = tmp_path / "takes.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a.flac", RECORDINGS["flac"])
    assert load_waveform(f"zip://a.flac::{archive}").duration_seconds == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://gone/a.wav", "memory://gone/a.wav can't be found: check the address"),
        ("zip://a.wav::/gone.zip", "can't be found"),
        ("nowhere://a.wav", "Protocol not known: nowhere"),
        ("missing://a.wav", "install that beside this package"),
    ],
)
def test_addresses_that_cannot_be_opened(address: str, message: str) -> None:
    fsspec.register_implementation(
        "missing", "no_such_module.System", errtxt="Install x", clobber=True
    )
    with pytest.raises(AudioError, match=message):
        load_waveform(address)
