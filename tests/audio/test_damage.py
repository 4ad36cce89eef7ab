"""Odd but valid files are decoded in full; damage is found, named, and can be worked around."""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qwen_audio as qa
from ffmpeg import encode_all, run_ffmpeg
from qwen_audio.audio.decode_limits import ProcessorBudget
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.ogg import _checksum, summarize_ogg
from qwen_audio.audio.waveform import Waveform
from qwen_audio.errors import AudioError, OptionError
from recordings import encode, encode_as, sound, write_wav

NOISE = np.float32(0.1) * np.random.default_rng(0).standard_normal((2, 96_000), np.float32)
SOUND = sound(2.0, 48_000, 2) + NOISE


def error_of(data: bytes) -> str:
    """The error's text; it says how to use the rest."""
    with pytest.raises(AudioError) as caught:
        load_waveform(data)
    message = str(caught.value)
    assert "on_damage='partial'" in message
    return message


def load_partial(data: bytes) -> Waveform:
    """What can be decoded; each missing part is warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        waveform = load_waveform(data, on_damage="partial")
    expected = [(qa.AudioWarning, f"{waveform.name}: {missing}") for missing in waveform.missing]
    assert [(warning.category, str(warning.message)) for warning in caught] == expected
    return waveform


# Ogg.


def pages(data: bytes) -> list[bytes]:
    """The pages of an Ogg file."""
    starts = [k for k in range(len(data)) if data[k : k + 4] == b"OggS"]
    return [data[start:stop] for start, stop in zip(starts, [*starts[1:], len(data)], strict=True)]


def _damaged(file: io.BytesIO) -> int:
    return summarize_ogg(file, ProcessorBudget("file", 60.0)).damaged_pages


def with_checksum(page: bytes) -> bytes:
    """A changed page, made valid again."""
    return page[:22] + _checksum(page).to_bytes(4, "little") + page[26:]


OPUS = pages(encode(SOUND, 48_000, "opus"))


def test_checksums_are_those_of_ffmpeg() -> None:
    assert len(OPUS) >= 4
    assert _damaged(io.BytesIO(b"".join(OPUS))) == 0
    for page in OPUS:
        assert with_checksum(page) == page
    changed = OPUS[2][:300] + bytes([OPUS[2][300] ^ 1]) + OPUS[2][301:]
    assert _damaged(io.BytesIO(b"".join([*OPUS[:2], changed, *OPUS[3:]]))) == 1
    assert _damaged(io.BytesIO(b"no Ogg file, though OggS is in it" * 100)) == 0


def test_ogg_without_an_end_mark() -> None:
    """As voice messages of Telegram and Android."""
    last = with_checksum(OPUS[-1][:5] + bytes([OPUS[-1][5] & ~4]) + OPUS[-1][6:])
    waveform = load_waveform(b"".join([*OPUS[:-1], last]))
    assert waveform.duration_seconds == pytest.approx(2, abs=0.03)


def test_a_capture_that_begins_midway() -> None:
    """Headers, then pages from a later moment on, as a radio stream is recorded."""
    waveform = load_waveform(b"".join([*OPUS[:2], *OPUS[3:]]))
    whole = load_waveform(b"".join(OPUS))
    assert 0.9 < waveform.duration_seconds < 1.2
    size = waveform.samples.size - 4000
    np.testing.assert_allclose(waveform.samples[-size:], whole.samples[-size:], atol=0.02)


def test_a_page_cut_out_of_a_capture_is_missing() -> None:
    data = b"".join(pages(encode(np.tile(SOUND, 2), 48_000, "opus")))
    parts = pages(data)
    message = error_of(b"".join([*parts[:3], *parts[4:]]))
    assert re.search(r"from 1.0\d s to 2.0\d s can't be decoded", message)


@pytest.mark.parametrize("position", [-2, 2])
def test_a_cut_inside_a_full_page(position: int) -> None:
    """FFmpeg drops the page, and what follows inside its stated length, without a word."""
    page = OPUS[position]
    cut = [*OPUS]
    cut[position] = page[: len(page) // 2]
    assert "Ogg pages are wrong" in error_of(b"".join(cut))
    partial = load_partial(b"".join(cut))
    assert partial.duration_seconds < 2
    assert partial.missing or position == 2


@pytest.mark.parametrize("pre_skip", [312, 1920, 3840, 9600])
def test_opus_of_any_pre_skip(pre_skip: int) -> None:
    head = OPUS[0].replace(b"OpusHead\1\2\x38\1", b"OpusHead\1\2" + pre_skip.to_bytes(2, "little"))
    assert head != OPUS[0] or pre_skip == 312
    waveform = load_waveform(b"".join([with_checksum(head), *OPUS[1:]]))
    expected = 2 - (pre_skip - 312) / 48_000
    assert waveform.duration_seconds == pytest.approx(expected, abs=0.005)


# MP3 and ADTS.

MP3 = encode(SOUND, 48_000, "mp3")
ID3 = b"ID3\4\0\0\0\0\x10\0" + bytes(2048)
APE = b"APETAGEX" + (2000).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(16 + 64)
LYRICS = b"LYRICSBEGIN" + b"IND0000200LYR00500" + b"la " * 166 + b"000529LYRICS200"
ID3V1 = b"TAG" + b"Title".ljust(125, b"\0")


@pytest.mark.parametrize(
    "tags", [ID3V1, APE + ID3V1, LYRICS + ID3V1, APE, ID3, LYRICS + APE], ids=len
)
@pytest.mark.parametrize("xing", [True, False])
def test_tags_after_the_last_frame(tags: bytes, xing: bool) -> None:
    data = MP3 if xing else MP3[MP3.index(b"\xff\xfb", MP3.index(b"\xff\xfb") + 4) :]
    waveform = load_waveform(data + tags)
    assert waveform.duration_seconds == pytest.approx(2, abs=0.06)
    decoded = load_waveform(data).samples
    size = decoded.size - 400  # the resampler looks ahead
    np.testing.assert_array_equal(waveform.samples[:size], decoded[:size])


@pytest.mark.parametrize("between", [b"", ID3, LYRICS + ID3V1 + ID3, APE + ID3])
def test_joined_mp3s_are_decoded_in_full(between: bytes) -> None:
    second = MP3[MP3.index(b"\xff\xfb") :]
    waveform = load_waveform(MP3 + between + second)
    assert waveform.duration_seconds == pytest.approx(4, abs=0.1)


def without_xing(data: bytes) -> bytes:
    return data[data.index(b"\xff\xfb", data.index(b"\xff\xfb") + 4) :]


def test_noise_between_frames_is_damage() -> None:
    """Also where nothing is stated about the length."""
    data = bytearray(without_xing(MP3))
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    message = error_of(bytes(data))
    assert "is damaged: its audio from 1.0" in message
    partial = load_partial(bytes(data))
    assert partial.missing
    assert partial.missing[0].start_seconds == pytest.approx(1.0, abs=0.1)
    assert partial.duration_seconds == pytest.approx(2.0, abs=0.15)


@pytest.mark.slow
def test_adts_of_variable_bit_rate(tmp_path: Path) -> None:
    """FFmpeg estimates its length by the bit rate of its beginning."""
    source, file = tmp_path / "source.wav", tmp_path / "vbr.aac"
    quiet = np.zeros((2, 20 * 48_000), np.float32)
    source.write_bytes(write_wav(np.concatenate([quiet, SOUND], axis=1), 48_000))
    encode_all(source, {file: ("-c:a", "aac", "-q:a", "1")})
    assert load_waveform(file).duration_seconds == pytest.approx(22.0, abs=0.06)


def amr(frame_types: list[int]) -> bytes:
    """AMR narrow-band, frames of 20 ms: of random bits at 12.2 kbit/s (7), or empty (15)."""
    random = np.random.default_rng(0)
    frames = (bytes([kind << 3 | 4]) + random.bytes(31 if kind == 7 else 0) for kind in frame_types)
    return b"#!AMR\n" + b"".join(frames)


def test_amr() -> None:
    assert load_waveform(amr([7] * 100)).duration_seconds == 2.0
    pauses = load_waveform(amr([7, 15, 15] * 33 + [7]))
    assert pauses.duration_seconds == 2.0
    assert np.abs(pauses.samples[400:900]).max() < 1e-3


def test_chained_ogg_of_another_codec_is_not_dropped_silently() -> None:
    """FFmpeg decodes the first stream only."""
    vorbis = write_wav(SOUND, 48_000, "VORBIS", container="OGG")
    assert "it should hold 4.0" in error_of(vorbis + b"".join(OPUS))


@pytest.mark.slow
def test_wmv_states_the_duration_of_the_video(tmp_path: Path) -> None:
    source = tmp_path / "source.wav"
    source.write_bytes(write_wav(SOUND, 48_000))
    video = ["-f", "lavfi", "-i", "testsrc=d=4:s=64x64:r=5", "-c:v", "wmv2", "-c:a", "wmav2"]
    run_ffmpeg("-i", source, *video, tmp_path / "film.wmv")
    assert load_waveform(tmp_path / "film.wmv").duration_seconds == pytest.approx(2, abs=0.1)


# Stated lengths.


@pytest.mark.parametrize("stated", [48_000, 95_000, 200_000])
def test_flac_of_another_length_than_stated(stated: int) -> None:
    data = bytearray(write_wav(SOUND, 48_000, container="FLAC"))
    field = int.from_bytes(data[18:26], "big")
    assert field & (1 << 36) - 1 == 96_000
    data[18:26] = (field - 96_000 + stated).to_bytes(8, "big")
    if stated == 95_000:  # less than an audio token
        assert load_waveform(bytes(data)).duration_seconds == 2
        return
    assert f"{stated / 48_000:.2f} s" in error_of(bytes(data))
    waveform = load_partial(bytes(data))
    assert waveform.duration_seconds == 2
    (missing,) = waveform.missing
    assert (missing.start_seconds, missing.end_seconds) == pytest.approx(
        sorted([2.0, stated / 48_000])
    )


def test_flac_of_unknown_length() -> None:
    data = bytearray(write_wav(SOUND, 48_000, container="FLAC"))
    field = int.from_bytes(data[18:26], "big")
    data[18:26] = (field - 96_000).to_bytes(8, "big")
    assert load_waveform(bytes(data)).duration_seconds == 2


def box(name: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return (8 + len(content)).to_bytes(4, "big") + name + content


def with_box(data: bytes, path: list[bytes], addition: bytes) -> bytes:
    """An MP4 with a box added at the end of the one at `path`; nothing that follows is moved."""
    start, stop, sizes = 0, len(data), []
    for name in path:
        start = data.index(name, start, stop) - 4
        stop = start + int.from_bytes(data[start : start + 4], "big")
        sizes.append(start)
    changed = bytearray(data[:stop] + addition + data[stop:])
    for at in sizes:
        size = int.from_bytes(changed[at : at + 4], "big") + len(addition)
        changed[at : at + 4] = size.to_bytes(4, "big")
    return bytes(changed)


def test_priming_stated_by_itunes_alone() -> None:
    data = encode(SOUND, 48_000, "m4a").replace(b"edts", b"free")
    assert data.index(b"mdat") < data.index(b"moov")
    smpb = b" 00000000 00000840 000001C0 0000000000017700" + 8 * b" 00000000"
    note = box(
        b"----",
        box(b"mean", bytes(4), b"com.apple.iTunes"),
        box(b"name", bytes(4), b"iTunSMPB"),
        box(b"data", b"\0\0\0\1", bytes(4), smpb),
    )
    data = with_box(data, [b"moov", b"udta", b"meta", b"ilst"], note)
    waveform = load_waveform(data)
    assert waveform.duration_seconds == pytest.approx(2.0, abs=0.05)
    assert waveform.tags["itunsmpb"]


def element(identifier: str, content: bytes) -> bytes:
    """An EBML element, its length in eight bytes."""
    return bytes.fromhex(identifier) + b"\x01" + len(content).to_bytes(7, "big") + content


def test_matroska_with_lacing() -> None:
    """Eight frames in a block share one time stamp, and have no duration."""
    samples = np.round(SOUND.mean(axis=0) * 32_767).astype("<i2")
    audio = element("b5", np.array(48_000, ">f8").tobytes()) + element("9f", b"\1")
    audio += element("6264", b"\x10")
    track = element("d7", b"\1") + element("73c5", b"\1") + element("83", b"\2")
    track += element("86", b"A_PCM/INT/LIT") + element("e1", audio) + element("9c", b"\1")
    clusters = b""
    frame, laced = 960, 5
    for start in range(0, samples.size, frame * laced):
        data = samples[start : start + frame * laced].tobytes()
        block = b"\x81\0\0\x84" + bytes([laced - 1]) + data
        clusters += element(
            "1f43b675", element("e7", (start // 48).to_bytes(3, "big")) + element("a3", block)
        )
    segment = element("1549a966", element("2ad7b1", (1_000_000).to_bytes(3, "big")))
    segment += element("1654ae6b", element("ae", track)) + clusters
    head = element("4282", b"matroska") + element("4287", b"\4") + element("4285", b"\2")
    waveform = load_waveform(element("1a45dfa3", head) + element("18538067", segment))
    assert waveform.duration_seconds == 2


# Tracks.


@pytest.fixture(scope="module")
def two_tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a low tone in English, one of a high one in French."""
    folder = tmp_path_factory.mktemp("tracks")
    tones = [np.sin(np.arange(16_000 * s) * f / 8)[None] / 2 for s, f in ((3, 1), (1, 3))]
    for name, tone in zip("ab", tones, strict=True):
        (folder / f"{name}.wav").write_bytes(write_wav(tone.astype(np.float32), 16_000))
    options = ["-map", "0:a", "-map", "1:a", "-c:a", "flac"]
    names = ["-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fre"]
    inputs = ["-i", str(folder / "a.wav"), "-i", str(folder / "b.wav")]
    run_ffmpeg(*inputs, *options, *names, folder / "film.mkv")
    return folder / "film.mkv"


@pytest.mark.slow
def test_any_of_several_tracks(two_tracks: Path) -> None:
    with pytest.warns(qa.AudioWarning, match="2 audio tracks, of which 0 was used: 0 .*; 1 .fre"):
        default = load_waveform(two_tracks)
    first, second = (load_waveform(two_tracks, track=track) for track in (0, 1))
    assert default.track == first.track == 0
    np.testing.assert_array_equal(default.samples, first.samples)
    assert (first.duration_seconds, second.duration_seconds) == (3, 1)
    assert [track.language for track in first.tracks] == ["eng", "fre"]
    (note,) = second.info.notes
    assert note.startswith(
        f"{two_tracks}: 2 audio tracks, of which 1 was used: 0 (eng, flac, 16000"
    )
    with pytest.raises(OptionError, match=r"track=2: .*film\.mkv has the audio tracks 0 \(eng"):
        load_waveform(two_tracks, track=2)
    with pytest.raises(OptionError, match="track=-1"):
        load_waveform(two_tracks, track=-1)


def test_one_track_needs_no_note() -> None:
    data = write_wav(SOUND, 48_000)
    waveform = load_waveform(data, track=0)
    assert waveform.info.notes == ()
    assert len(waveform.tracks) == 1
    with pytest.raises(OptionError, match="has one audio track 0"):
        load_waveform(data, track=1)
    with pytest.raises(OptionError, match="has no tracks"):
        load_waveform(np.zeros(1600, np.float32), sampling_rate=16_000, track=0)


# No other file is opened.


@pytest.mark.parametrize("how", ["path", "bytes", "named.wav"])
def test_a_list_of_files_opens_none(how: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(write_wav(SOUND, 48_000))
    texts = [
        f"ffconcat version 1.0\nfile {name}\n" for name in ("secret.wav", secret, f"file:{secret}")
    ]
    texts += [f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{secret}\n#EXT-X-ENDLIST\n"]
    for text in texts:
        listing = tmp_path / ("list.wav" if how == "named.wav" else "list.ffconcat")
        listing.write_text(text)
        with pytest.raises(AudioError, match="it is not audio"):
            load_waveform(text.encode() if how == "bytes" else listing)


# Whatever happens to a file: all of its audio, or an error.

MAKERS: dict[str, Callable[[], bytes]] = {
    name: functools.partial(encode, SOUND, 48_000, name)
    for name in ("flac", "mp3", "ogg", "opus", "m4a", "webm")
} | {
    "opus in mp4": functools.partial(encode_as, SOUND, 48_000, "mp4", "libopus"),
    "ac3 in wav": functools.partial(encode_as, SOUND, 48_000, "wav", "ac3"),
    "mp3 in wav": functools.partial(encode_as, SOUND, 48_000, "wav", "libmp3lame"),
    "adpcm in wav": functools.partial(encode_as, SOUND, 48_000, "wav", "adpcm_ms"),
    "mp3 in avi": functools.partial(encode_as, SOUND, 48_000, "avi", "libmp3lame"),
    "wav": lambda: write_wav(SOUND, 48_000),
    "rf64": lambda: write_wav(SOUND, 48_000, container="RF64"),
    "w64": lambda: write_wav(SOUND, 48_000, container="W64"),
    "aiff": lambda: write_wav(SOUND, 48_000, container="AIFF"),
    "caf": lambda: write_wav(SOUND, 48_000, container="CAF"),
}


@pytest.fixture(scope="module")
def whole_files() -> dict[str, bytes]:
    return {name: make() for name, make in MAKERS.items()}


@pytest.mark.slow
@settings(max_examples=150)
@given(
    st.sampled_from(sorted(MAKERS)),
    st.sampled_from(["zero", "remove", "cut"]),
    st.floats(0.05, 0.95),
    st.floats(0.12, 0.5),
)
def test_nothing_is_lost_silently(
    whole_files: dict[str, bytes], name: str, change: str, position: float, share: float
) -> None:
    data = bytearray(whole_files[name])
    start = 600 + int(position * (len(data) - 600))
    stop = min(len(data), start + int(share * len(data)))
    pcm = ("wav", "rf64", "w64", "aiff", "caf", "adpcm in wav")
    if change == "zero" and name not in pcm:  # whose zeros are audio
        data[start:stop] = bytes(stop - start)
    elif change == "remove":
        del data[start:stop]
    else:
        del data[start:]
    try:
        waveform = load_waveform(bytes(data))
    except qa.AudioError:
        return
    if name in ("ogg", "opus") and change in ("cut", "remove"):
        last = data.rfind(b"OggS")  # pages may be missing at the end: nothing states that
        assert int.from_bytes(data[last + 6 : last + 14], "little") / 48_000 == pytest.approx(
            waveform.duration_seconds, abs=0.05
        )
        return
    assert waveform.duration_seconds == pytest.approx(2.0, abs=0.1)
