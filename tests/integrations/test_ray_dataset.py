"""A Ray Dataset has what the model's methods return, and errors as rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import qwen_audio as qa
from collection_helpers import write_recording
from qwen_audio.collection.engines.ray_worker import ModelLoader
from qwen_audio.integrations.ray_dataset import _Method

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    # Of Ray's own connections and files.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:lancedb fork support:RuntimeWarning"),
]


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    """A small checkpoint in float32."""
    return qa.load(checkpoint, dtype="float32")


@pytest.fixture(scope="module")
def connection() -> Iterator[None]:
    """A cluster of two CPUs."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=80_000_000,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


def test_rows_are_those_of_the_methods(
    connection: None, tmp_path: Path, model: qa.AudioModel
) -> None:
    good = [write_recording(tmp_path / f"{n}.wav", 0.6 + n, n) for n in range(2)]
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"not audio")
    options: dict[str, Any] = {"model": model, "workers": 1, "window_seconds": 1.0}
    found = qa.map_dataset([*good, bad], "encode", tap="encoder.1", **options).take_all()
    rows = {(row["uri"], row["window"]): row for row in found}
    assert "not audio" in rows.pop((str(bad), None))["error"]
    expected = model.encode(good, tap="encoder.1", per="window", window_seconds=1.0)
    assert len(rows) == 3
    for path, vectors in zip(good, expected, strict=True):
        for window, vector in enumerate(vectors):
            row = rows[str(path), window]
            assert row["error"] is None
            assert (row["start_seconds"], row["end_seconds"]) == (
                vectors.index.start_seconds[window],
                vectors.index.end_seconds[window],
            )
            np.testing.assert_allclose(row["vector"], vector, rtol=1e-5, atol=1e-6)


def test_rows_of_captions_and_hidden_states(tmp_path: Path, model: qa.AudioModel) -> None:
    path = str(write_recording(tmp_path / "a.wav", 1.6, 1))
    loader = ModelLoader.of_model(model, 1, 0.0)

    options: dict[str, Any] = {"max_new_tokens": 3, "window_seconds": 1.0}
    method = _Method(loader, "describe", options)
    table = pa.Table.from_pylist(method.rows(model, [path]), method.schema)
    answers = model.describe(path, **options).answers
    assert table["caption"].to_pylist() == [answer.text for answer in answers]
    assert table["end_seconds"].to_pylist() == [1.0, 1.6]

    taps = ["encoder.1", "lm.0"]
    method = _Method(loader, "activations", {"taps": taps, "window_seconds": 1.0})
    table = pa.Table.from_pylist(method.rows(model, [path]), method.schema)
    states = model.activations(path, taps=taps, window_seconds=1.0)
    assert table["window"].to_pylist() == [0, 1]
    for tap in taps:
        rows = np.concatenate([np.array(window) for window in table[tap].to_pylist()])
        np.testing.assert_array_equal(rows, np.asarray(states[tap]))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["a.wav"], {}, "uris='a.wav' is one recording"),
        ([["-"]], {}, "- can't be read by the workers"),
        ([[b"RIFF"]], {}, "bytes can't be read by the workers"),
        ([["a.wav"], "lens"], {}, "verb='lens': use one of 'encode', 'describe', 'activations'"),
        ([["a.wav"]], {"per": "window"}, "per is no option of 'encode' in a dataset"),
        ([["a.wav"], "activations"], {}, "verb='activations' needs taps"),
        ([["a.wav"]], {"tap": "encoder.99"}, r"encoder\.99"),
        ([["a.wav"]], {"pooling": "none"}, "gives no vector a window"),
        ([["a.wav"]], {"workers": 0}, "workers=0"),
    ],
)
def test_what_is_wrong_is_said_before_ray_starts(
    model: qa.AudioModel, arguments: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((qa.OptionError, qa.TapError), match=message):
        qa.map_dataset(*arguments, model=model, **options)


def test_edits_are_refused(model: qa.AudioModel) -> None:
    with (
        model.edit("encoder.1", qa.edits.scale(2.0)),
        pytest.raises(qa.OptionError, match="no effect on the workers"),
    ):
        qa.map_dataset(["a.wav"], model=model)
