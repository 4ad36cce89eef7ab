"""Waveforms from arrays, and their windows. Files are in test_decode.py."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import librosa_functions
from qwen_audio.audio.decode import AudioDecoder
from qwen_audio.audio.decode_limits import DecodeLimits
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import Window, WindowConfig, WindowLimits
from qwen_audio.errors import AudioError, OptionError
from recordings import sound, write_wav

RATES = [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]
HALF = sound(0.5, 16_000)[0]


def message_of(audio: Any, **options: Any) -> str:
    with pytest.raises(AudioError) as caught:
        load_waveform(audio, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert ": " in message
    return message


# Arrays.


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_arrays_match_librosa(rate: int, channels: int) -> None:
    samples = sound(0.777, rate, channels)
    mono = samples.mean(axis=0)
    expected = librosa_functions.resample(mono, orig_sr=rate, target_sr=16_000, res_type="soxr_hq")
    actual = load_waveform(samples, sampling_rate=rate)
    assert actual.samples.shape == expected.shape
    np.testing.assert_allclose(actual.samples, expected, atol=1e-4, rtol=0)
    assert (actual.source_rate_hz, actual.source_channels) == (rate, channels)
    assert (actual.source_format, actual.name) == ("array", f"array {samples.shape}")


@pytest.mark.slow
@given(st.integers(700, 50_000), st.sampled_from(RATES))
@example(640 * 44_100 // 16_000 + 1, 44_100)
def test_resampled_length(samples: int, rate: int) -> None:
    length = -(-samples * 16_000 // rate)  # rounded up
    if length < 640:
        message_of(np.zeros(samples, np.float32), sampling_rate=rate)
    else:
        waveform = load_waveform(np.zeros(samples, np.float32), sampling_rate=rate)
        assert waveform.samples.size == length
        assert waveform.duration_seconds == pytest.approx(samples / rate, abs=1 / 16_000)


def test_samples_at_16_khz_are_unchanged() -> None:
    np.testing.assert_array_equal(load_waveform(HALF, sampling_rate=16_000).samples, HALF)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
def test_integers_are_divided_by_full_scale(dtype: str) -> None:
    limits = np.iinfo(dtype)
    array = np.tile(np.array([limits.min, 0, limits.max], dtype), 300)
    samples = load_waveform(array, sampling_rate=16_000).samples
    np.testing.assert_allclose(samples[:3], [-1, 0, limits.max / -float(limits.min)], rtol=1e-7)


@pytest.mark.parametrize(("dtype", "scale"), [("int64", 2**62), ("uint64", 2**62), ("int32", 9000)])
def test_integers_of_unknown_full_scale(dtype: str, scale: int) -> None:
    """16-bit samples in a wider type would be nearly silent."""
    array = (scale * (1 + HALF)).astype(dtype)
    if dtype == "int32":
        array -= scale
        assert load_waveform(array << 16, sampling_rate=16_000).samples.max() > 0.1
    assert "full scale" in message_of(array, sampling_rate=16_000)
    assert load_waveform(np.zeros(800, "int32"), sampling_rate=16_000).samples.max() == 0


def test_batches_are_rejected() -> None:
    assert "give several recordings as a list" in message_of(
        np.zeros((16, 8000)), sampling_rate=16_000
    )
    assert load_waveform(np.zeros((8, 8000)), sampling_rate=16_000).source_channels == 8


def test_a_datasets_dict_states_its_rate() -> None:
    decoded = {"array": HALF, "sampling_rate": 16_000, "path": None}
    np.testing.assert_array_equal(load_waveform(decoded).samples, HALF)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_unsigned_integers_are_centred(dtype: str) -> None:
    limits = np.iinfo(dtype)
    middle = 2 ** (limits.bits - 1)
    array = np.tile(np.array([0, middle, limits.max], dtype), 300)
    samples = load_waveform(array, sampling_rate=16_000).samples
    np.testing.assert_allclose(samples[:3], [-1, 0, (limits.max - middle) / middle], rtol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", ">i2"])
def test_float_dtypes_and_byte_orders(dtype: str) -> None:
    scale = 32_768 if "i" in dtype else 1
    array = (HALF * scale).astype(dtype)
    samples = load_waveform(array, sampling_rate=16_000).samples
    np.testing.assert_allclose(samples, HALF, atol=1e-3, rtol=0)
    assert samples.dtype == np.float32


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int16]
)
def test_tensors(dtype: torch.dtype) -> None:
    scale = 32_768 if dtype == torch.int16 else 1
    tensor = (torch.from_numpy(HALF) * scale).to(dtype).expand(2, -1)
    waveform = load_waveform(tensor, sampling_rate=16_000)
    np.testing.assert_allclose(waveform.samples, HALF, atol=4e-3, rtol=0)
    assert waveform.source_channels == 2


def test_a_tensor_with_a_gradient() -> None:
    tensor = torch.from_numpy(HALF.copy()).requires_grad_()
    np.testing.assert_array_equal(load_waveform(tensor, sampling_rate=16_000).samples, HALF)


class Array:
    """Anything with `__array__`: a pandas Series, a JAX array, a datasets' audio column."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return HALF.astype(np.float64)


def test_objects_with_array_protocol() -> None:
    np.testing.assert_array_equal(load_waveform(Array(), sampling_rate=16_000).samples, HALF)


def test_input_array_is_not_modified() -> None:
    array = sound(0.5, 48_000, 2)
    before = array.copy()
    load_waveform(array, sampling_rate=48_000)
    np.testing.assert_array_equal(array, before)


def test_arrays_without_a_rate() -> None:
    assert message_of(HALF) == "array (8000,) has no sampling rate: pass sampling_rate= in Hz"
    assert "has no sampling rate" in message_of(torch.from_numpy(HALF))


@pytest.mark.parametrize(
    "rate",
    [0, -1, -16_000, 1, 999, 768_001, 1e9, 10**30, float("nan"), float("inf"), float("-inf")],
)
def test_implausible_rates(rate: float) -> None:
    message = message_of(HALF, sampling_rate=rate)
    assert f"sampling rate {float(rate)} Hz, but 1000 to 768000 Hz is supported" in message


def test_fractional_rates() -> None:
    assert load_waveform(HALF, sampling_rate=15_999.5).samples.size == 8001


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(8000, bool),
        np.zeros(8000, complex),
        np.zeros(8000, object),
        np.zeros(8000, "U1"),
        np.zeros(8000, "datetime64[s]"),
        np.zeros((2, 2, 8000), np.float32),
        np.float32(0.5) * np.ones(()),
        torch.zeros(8000, dtype=torch.bool),
        torch.zeros(8000, dtype=torch.complex64),
    ],
    ids=["bool", "complex", "object", "text", "time", "3-D", "0-D", "torch-bool", "torch-complex"],
)
def test_arrays_of_wrong_shape_or_dtype(array: Any) -> None:
    message = message_of(array, sampling_rate=16_000)
    assert "is not audio: use numbers of shape (samples,) or (channels, samples)" in message
    assert message.startswith(f"array {tuple(array.shape)} of ")


def test_transposed_arrays() -> None:
    """soundfile's layout; taken as it is, 8000 channels of 2 samples."""
    message = message_of(np.zeros((8000, 2), np.float32), sampling_rate=16_000)
    assert "8000 rows" in message
    assert "transpose it" in message


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 8000), (0, 0)])
def test_empty_arrays(shape: tuple[int, ...]) -> None:
    message = message_of(np.zeros(shape, np.float32), sampling_rate=16_000)
    assert message.startswith(f"array {shape}")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_arrays_that_are_not_finite(value: float, rate: int) -> None:
    array = sound(0.5, rate)[0].astype(np.float64)
    array[rate // 4] = value
    message = message_of(array, sampling_rate=rate)
    assert "holds NaN or infinite samples" in message
    assert rate != 16_000 or "first at 0.250 s" in message


def test_unscaled_pcm() -> None:
    message = message_of((HALF * 32_768).astype(np.float32), sampling_rate=16_000)
    assert "but float samples lie in [-1, 1]" in message
    assert "32768 for 16 bit" in message


def test_samples_above_full_scale_are_accepted() -> None:
    """Mixes of many tracks, and overshoots of lossy codecs, go beyond 1."""
    assert load_waveform(HALF * 8, sampling_rate=16_000).samples.max() > 4


@pytest.mark.parametrize(
    ("rate", "too_few", "enough"),
    [(16_000, 639, 640), (48_000, 1917, 1918), (8_000, 319, 320), (44_100, 1761, 1762)],
)
def test_minimum_length_is_one_audio_token(rate: int, too_few: int, enough: int) -> None:
    assert load_waveform(np.zeros(enough, np.float32), sampling_rate=rate).samples.size == 640
    message = message_of(np.zeros(too_few, np.float32), sampling_rate=rate)
    assert message == (
        f"array ({too_few},) lasts 39.9 ms, but one audio token takes 40 ms: give a longer clip"
    )


def test_sampling_rate_with_files_is_an_error() -> None:
    data = write_wav(HALF[None], 16_000)
    for audio in ("song.wav", data, io.BytesIO(data)):
        message = message_of(audio, sampling_rate=16_000)
        assert message.startswith("sampling_rate=16000 was given with ")
        assert "leave sampling_rate out" in message
    waveform = load_waveform(data)
    assert "given with a Waveform" in message_of(waveform, sampling_rate=16_000)


def test_text_files(tmp_path: Any) -> None:
    file = tmp_path / "song.wav"
    file.write_bytes(write_wav(HALF[None], 16_000))
    with file.open(encoding="utf-8") as opened:
        assert message_of(opened) == f"{file} gives text, not bytes: open the file with mode 'rb'"
    assert message_of(io.StringIO("song")).startswith("StringIO gives text, not bytes")

    class Odd:
        def read(self, _: int) -> str:
            return "song"

    assert message_of(Odd()).startswith("Odd gives text, not bytes")


def test_files_that_cannot_be_read(tmp_path: Any) -> None:
    file = tmp_path / "song.wav"
    file.write_bytes(write_wav(HALF[None], 16_000))
    with file.open("rb") as opened:
        pass
    assert message_of(opened).startswith(f"{file} can't be read (")
    with (tmp_path / "new.wav").open("wb") as opened_for_writing:
        assert "can't be read (" in message_of(opened_for_writing)


@pytest.mark.parametrize("audio", [None, [0.0] * 8000, object(), len])
def test_unsupported_types(audio: Any) -> None:
    message = message_of(audio)
    assert message.startswith(f"{type(audio).__name__!r} is not audio: give a path, bytes")


@pytest.mark.parametrize("audio", [5, 0.5])
def test_single_numbers_are_rejected(audio: float) -> None:
    assert message_of(audio).startswith(f"{audio} is a number, not audio: a list holds several rec")


def test_a_generator_is_not_a_list() -> None:
    assert "for several, give a list" in message_of(name for name in ("a.wav", "b.wav"))


@pytest.mark.parametrize("rate", ["16000", True, 16_000j, [16_000], "'array'"])
def test_sampling_rates_that_are_not_numbers(rate: Any) -> None:
    with pytest.raises(OptionError, match="use a number of Hz"):
        load_waveform(HALF, sampling_rate=rate)


def test_standard_input() -> None:
    script = (
        "import sys; from qwen_audio.audio.load import load_waveform\n"
        "waveform = load_waveform('-'); "
        "sys.stdout.buffer.write(waveform.samples.tobytes()); print(waveform, file=sys.stderr)"
    )
    data = write_wav(sound(0.5, 44_100, 2), 44_100, container="FLAC")
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True)
    np.testing.assert_array_equal(
        np.frombuffer(done.stdout, np.float32), load_waveform(data).samples
    )
    assert done.stderr.decode().startswith("Waveform('standard input', 0.50 s, 8000 samples")


def test_empty_standard_input() -> None:
    script = (
        "from qwen_audio.audio.load import load_waveform\n"
        "try: load_waveform('-')\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=b"", capture_output=True)
    assert done.stdout.startswith(b"standard input is empty (0 bytes)")


# Waveforms.


def test_repr_shows_shapes() -> None:
    waveform = load_waveform(write_wav(sound(1.5, 44_100, 2), 44_100, container="FLAC"))
    assert repr(waveform).endswith(", 1.50 s, 24000 samples, from 44100 Hz × 2 flac)")
    assert len(repr(waveform)) < 100


def test_waveform_validation() -> None:
    with pytest.raises(AudioError, match="holds no samples"):
        Waveform(np.zeros(0, np.float32))
    with pytest.raises(AudioError, match=r"lasts 39\.9 ms"):
        Waveform(np.zeros(639, np.float32))
    with pytest.raises(AudioError, match=r"my clip holds NaN .* \(first at 0\.100 s\)"):
        Waveform(np.where(np.arange(8000) == 1600, np.nan, 0).astype(np.float32), name="my clip")
    with pytest.raises(AudioError, match=r"first at 0\.0001875 s\)"):  # the fourth sample
        Waveform(np.where(np.arange(8000) == 3, np.inf, 0).astype(np.float32))
    with pytest.raises(AudioError, match="peaks at 17"):
        Waveform(np.full(640, 17, np.float32))


# Windows.


@st.composite
def window_configs(draw: st.DrawFn) -> WindowConfig:
    window = draw(st.one_of(st.sampled_from([30, 10, 5, 1, 0.04]), st.floats(0.04, 30)))
    hop = draw(st.none() | st.just(window) | st.floats(max(0.04, window / 50), window))
    return WindowConfig(window, hop)


@pytest.mark.slow
@given(window_configs(), st.integers(640, 2_000_000))
@example(WindowConfig(), 480_000)
@example(WindowConfig(), 480_001)
@example(WindowConfig(0.04), 641)
@example(WindowConfig(1.0, 0.04), 640)
def test_windows_cover_every_sample(window_config: WindowConfig, size: int) -> None:
    waveform = Waveform(np.arange(size, dtype=np.float32) / size)
    windows = waveform.windows(window_config)
    longest = round(window_config.window_seconds * 16_000)
    hop = round(window_config.resolved_hop_seconds * 16_000)
    ends = [(round(w.start_seconds * 16_000), round(w.end_seconds * 16_000)) for w in windows]

    assert ends[0][0] == 0
    assert ends[-1][1] == size
    for start, stop in ends:
        assert 640 <= stop - start <= longest
    for (start, stop), (next_start, next_stop) in itertools.pairwise(ends):
        assert start < next_start <= stop
        assert next_start - start <= hop
        assert stop - start == longest
        assert stop < next_stop  # none lies inside another
    for number, (start, _) in enumerate(ends[:-1]):
        assert start == number * hop
    for window, (start, stop) in zip(windows, ends, strict=True):
        cut = waveform.samples_in(window)
        np.testing.assert_array_equal(cut, waveform.samples[start:stop])
        assert Fraction(cut.size, 16_000) == Fraction(stop - start, 16_000)
        assert window.duration_seconds == pytest.approx(cut.size / 16_000)


def seconds_of(
    size: int, window: float = 30, hop: float | None = None
) -> list[tuple[float, float]]:
    windows = Waveform(np.zeros(size, np.float32)).windows(WindowConfig(window, hop))
    return [(w.start_seconds, w.end_seconds) for w in windows]


def test_windows_of_examples() -> None:
    assert seconds_of(16_000) == [(0, 1)]
    assert seconds_of(480_000) == [(0, 30)]
    assert seconds_of(75 * 16_000) == [(0, 30), (30, 60), (60, 75)]
    assert seconds_of(75 * 16_000, 30, 15) == [(0, 30), (15, 45), (30, 60), (45, 75)]
    assert seconds_of(5 * 16_000, 2) == [(0, 2), (2, 4), (4, 5)]


def test_short_last_window_starts_earlier() -> None:
    assert seconds_of(480_000 + 1) == [(0, 30), (30 + 1 / 16_000 - 0.04, 30 + 1 / 16_000)]


@pytest.mark.parametrize("window", [0, -1, 0.039, 30.001, 1e9, float("nan"), float("inf")])
def test_window_lengths_outside_the_limits(window: float) -> None:
    with pytest.raises(OptionError, match=r"the encoder processes 0\.04 to 30 s at once"):
        WindowConfig(window)


def test_other_limits() -> None:
    limits = WindowLimits(0.08, 600.0)
    config = WindowConfig(60, 30, limits)
    windows = Waveform(np.zeros(90 * 16_000 + 1, np.float32)).windows(config)
    assert [window.duration_seconds for window in windows] == [60.0, 60.0, 30 + 1 / 16_000]
    windows = Waveform(np.zeros(60 * 16_000 + 1, np.float32)).windows(WindowConfig(60, 60, limits))
    assert windows[-1].duration_seconds == pytest.approx(0.08)
    with pytest.raises(OptionError, match=r"the encoder processes 0\.08 to 600 s at once"):
        WindowConfig(601, None, limits)
    with pytest.raises(AudioError, match=r"lasts 50\.0 ms, but one audio token takes 80 ms"):
        Waveform(np.zeros(800, np.float32)).windows(config)


@pytest.mark.parametrize("hop", [0, -1, 0.039, 10.001, float("nan"), float("inf")])
def test_hops_longer_than_the_window(hop: float) -> None:
    with pytest.raises(OptionError, match="audio between windows would be left out"):
        WindowConfig(10, hop)


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (Window(0, 30), "0:00–0:30"),
        (Window(59.999, 61.25), "1:00–1:01.25"),
        (Window(0.04, 0.08), "0:00.04–0:00.08"),
        (Window(3599, 3723), "59:59–1:02:03"),
        (Window(36_000, 36_000.5), "10:00:00–10:00:00.50"),
    ],
)
def test_windows_print_as_timecodes(window: Window, text: str) -> None:
    assert str(window) == text


def test_limits_stop_decoding_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "long.wav"
    clip.write_bytes(write_wav(sound(3.0, 16_000), 16_000))
    assert load_waveform(clip, limits=DecodeLimits(max_seconds=3)).duration_seconds == 3.0
    chunk_sizes: list[int] = []
    chunks = AudioDecoder.chunks

    def counted(self: AudioDecoder) -> Any:
        for chunk in chunks(self):
            chunk_sizes.append(chunk.samples.size)
            yield chunk

    monkeypatch.setattr(AudioDecoder, "chunks", counted)
    with pytest.raises(AudioError, match=r"long\.wav is longer than the limit of 1 s"):
        load_waveform(clip, limits=DecodeLimits(max_seconds=1))
    assert sum(chunk_sizes) < 2 * 16_000
    with pytest.raises(AudioError, match="is longer than the limit of 1 s"):
        load_waveform(
            np.zeros(17_000, np.float32), sampling_rate=16_000, limits=DecodeLimits(max_seconds=1)
        )
