"""Audio as other libraries hold it: heard, and neither misread nor taken for a list."""

from __future__ import annotations

import array
import io
from collections import UserDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import qwen_audio as qa
from qwen_audio.audio.inputs import as_input_list
from qwen_audio.audio.manifest import source_from_row
from recordings import sound

RATE = 22_050
SAMPLES = sound(0.5, RATE, channels=2, seed=3)
EXPECTED = qa.load_waveform(SAMPLES, sampling_rate=RATE).samples


class Decoder:
    """As torchcodec's AudioDecoder, also in the form in which `datasets` returns it."""

    def __init__(self, path: str | None = "clip.wav", error: Exception | None = None) -> None:
        self.metadata = SimpleNamespace(path=path)
        self.error = error

    def get_all_samples(self) -> Any:
        if self.error is not None:
            raise self.error
        return SimpleNamespace(
            data=torch.from_numpy(SAMPLES), pts_seconds=0.0, duration_seconds=0.5, sample_rate=RATE
        )


def wav(samples: Any = SAMPLES) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.T, RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


DECODED: dict[str, Any] = {"path": None, "array": SAMPLES.tolist(), "sampling_rate": RATE}


@pytest.mark.parametrize(
    "audio",
    [
        DECODED,
        UserDict(DECODED),
        {"array": torch.from_numpy(SAMPLES), "sampling_rate": torch.tensor(RATE)},
        {"array": SAMPLES, "sampling_rate": np.int64(RATE)},
        {"raw": SAMPLES, "sampling_rate": RATE},
        {"bytes": wav(), "path": None},
        {"bytes": bytearray(wav()), "path": "folder/clip.wav"},
        {"audio": DECODED, "genre": "jazz"},
        {"audio": {"bytes": wav(), "path": "clip.wav"}, "label": 1},
        {"audio": SAMPLES, "sampling_rate": RATE},
        {"audio": SAMPLES.tolist(), "sampling_rate": RATE},
        Decoder(),
        {"audio": Decoder()},
        Decoder().get_all_samples(),
        (torch.from_numpy(SAMPLES), RATE),
        (SAMPLES, np.float64(RATE)),
        (SAMPLES.tolist(), RATE),
        (RATE, SAMPLES),
    ],
)
def test_is_heard(audio: Any) -> None:
    waveform = qa.load_waveform(audio)
    np.testing.assert_allclose(waveform.samples, EXPECTED, atol=1e-6)
    assert (waveform.source_rate_hz, waveform.source_channels) == (RATE, 2)
    assert as_input_list(audio) == ([audio], True)
    with pytest.raises(qa.AudioError, match="states its own rate"):
        qa.load_waveform(audio, sampling_rate=RATE)


def test_a_path_where_there_are_no_bytes(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(wav())
    for audio in ({"bytes": None, "path": str(path)}, {"audio": {"path": str(path)}}):
        np.testing.assert_allclose(qa.load_waveform(audio).samples, EXPECTED, atol=1e-6)
    with pytest.raises(qa.AudioError, match=r"gone\.wav: no such file"):
        qa.load_waveform({"bytes": None, "path": "gone.wav"})


def test_arrays_of_other_kinds() -> None:
    mono = SAMPLES[0]
    expected = qa.load_waveform(mono, sampling_rate=RATE).samples
    for audio in (array.array("f", mono), memoryview(mono)):
        np.testing.assert_array_equal(qa.load_waveform(audio, sampling_rate=RATE).samples, expected)
        assert as_input_list(audio)[1]


def test_names() -> None:
    assert qa.load_waveform(Decoder()).name == "clip.wav"
    assert qa.load_waveform({"bytes": wav(), "path": "folder/clip.wav"}).name == "clip.wav"
    assert qa.load_waveform(DECODED | {"path": "clip.wav"}).name == "clip.wav"
    assert qa.load_waveform(DECODED).name == "array (2, 11025)"


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ({"array": [0.0] * 9000}, "a dict with 'array' has no sampling rate"),
        ({"bytes": None, "path": None}, "a dict with 'bytes', 'path' is not audio"),
        ({"bytes": b"", "path": None}, r"bytes \(0\) is empty"),
        ({}, "a dict with no keys is not audio"),
        ({"text": "no audio"}, "a dict with 'text' is not audio: give"),
        ({"audio": [DECODED, DECODED], "label": [0, 1]}, "give the list of its column 'audio'"),
        ({"array": [[0.0], [0.0, 1.0]], "sampling_rate": RATE}, "different lengths"),
        ({"array": ["a"], "sampling_rate": RATE}, "is not audio: use numbers"),
        ({"array": [0.0] * 9000, "sampling_rate": "8k"}, "use a number of Hz"),
        (Decoder(error=RuntimeError("no frames")), r"clip\.wav can't be decoded \(no frames\)"),
        ((SAMPLES.T, RATE), "transpose it"),
        ([SAMPLES.tolist()[0]], "not audio: give a path"),
    ],
)
def test_is_one_clear_error(audio: Any, message: str) -> None:
    with pytest.raises(qa.AudioError, match=message):
        qa.load_waveform(audio)


@pytest.mark.slow
def test_verbs_take_rows_and_lists_of_them(checkpoint: Path) -> None:
    model = qa.load(checkpoint, dtype="float32")
    expected = model.encode(SAMPLES, sampling_rate=RATE)
    one: list[Any] = [
        (SAMPLES, RATE),
        DECODED,
        Decoder(),
        {"audio": {"bytes": wav(), "path": None}},
    ]
    for audio in one:
        np.testing.assert_allclose(model.encode(audio), expected, atol=1e-5)
    np.testing.assert_allclose(model.encode(one), [expected] * 4, atol=1e-5)
    np.testing.assert_allclose(list(model.encode_each(iter(one))), [expected] * 4, atol=1e-5)
    assert model.describe((SAMPLES, RATE), max_new_tokens=1, stream=lambda _: None)
    assert model.inspect(DECODED).source_channels == 2
    assert model.view(Decoder()).name == "clip.wav"
    message = {"role": "user", "content": [{"type": "audio", "audio": DECODED}]}
    assert model.chat([message], max_new_tokens=1).audio_tokens
    single: Any
    for single in (DECODED, (SAMPLES, RATE)):
        with pytest.raises(qa.AudioError, match="encode_each takes several"):
            model.encode_each(single)
    with pytest.raises(qa.OptionError, match="takes a list"):
        model.layer_similarity((SAMPLES, RATE))


@pytest.mark.slow
def test_a_dataset(checkpoint: Path, tmp_path: Path) -> None:
    """Iterated, by column, as labels of a probe, and indexed where its files are there."""
    datasets = pytest.importorskip("datasets")
    paths = []
    for number in range(6):
        paths.append(str(tmp_path / f"{number}.wav"))
        soundfile.write(paths[-1], sound(0.5, RATE, seed=number)[0], RATE)
    in_files = datasets.Dataset.from_dict({"audio": paths, "label": list("ababab")})
    in_files = in_files.cast_column("audio", datasets.Audio(decode=False))
    in_memory = datasets.Dataset.from_dict(
        {
            "audio": [{"bytes": Path(path).read_bytes(), "path": "x.wav"} for path in paths],
            "label": list("ababab"),
        }
    ).cast_column("audio", datasets.Audio(decode=False))
    model = qa.load(checkpoint, dtype="float32")
    expected = model.encode(paths)
    for dataset in (in_files, in_memory):
        np.testing.assert_allclose(list(model.encode_each(dataset)), expected, atol=1e-6)
        np.testing.assert_allclose(model.encode(dataset["audio"]), expected, atol=1e-6)
        np.testing.assert_allclose(model.encode(dataset[:]["audio"]), expected, atol=1e-6)
        scores = qa.probe(dataset, model, taps=["mel"], folds=3)
        assert set(scores["recordings"]) == {6}
    collection = qa.Collection.create(tmp_path / "m.lance", model)
    assert collection.index(in_files).added == 6
    assert {row["source"] for row in collection.recordings("label = 'a'")} == set(paths[::2])
    with pytest.raises(qa.OptionError, match=r"a row \(x\.wav\) holds its audio in memory"):
        collection.index(in_memory)


def test_rows_and_where_their_audio_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.wav"
    path.write_bytes(wav())
    here, there = "a.wav", str(path)

    def source(row: dict[str, Any]) -> Any:
        return source_from_row(row, Path(), "row 1")

    row: dict[str, Any]
    for row in (
        {"audio": {"path": there, "bytes": None}},
        {"audio": {"path": here, "bytes": None}},
        {"audio": {"path": here, "bytes": wav()}},
        {"audio": DECODED | {"path": there}},
        {"audio": Decoder(there)},
        {"audio": DECODED, "file": there},
        {"file": "gone.wav", "audio": {"path": there}},
    ):
        assert source(row | {"label": np.int64(1)}).path == there
        assert source(row | {"label": np.int64(1)}).extra["label"] == 1
    for row in (
        {"audio": DECODED | {"path": here}},  # perhaps of another file of this name
        {"audio": {"path": here, "bytes": wav(SAMPLES / 2)}},
        {"audio": Decoder(here)},
        {"audio": SAMPLES},
        {"audio": DECODED, "file": "gone.wav"},
    ):
        assert source(row).uri.startswith("row 1")
        assert source(row).audio is row["audio"]
    assert source({"source": 7}).path == str(tmp_path / "7")
    for row, message in (
        ({"audio": DECODED, "tags": ["a"]}, "column tags holds a list"),
        ({"source": "a.wav", "when": object()}, "column when holds a object"),
        ({"audio": {"text": 1}}, "names no recording"),
    ):
        with pytest.raises(qa.OptionError, match=message):
            source(row)
