"""Where a result is from has the same names on every result: source, window, times, span, tap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.inference.row_index import IndexedRows
from reference import sound

OPTIONS: dict[str, Any] = {"window_seconds": 2.0}
PLACES = [("a", 0, 0.0, 2.0), ("a", 1, 2.0, 3.3)]


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint)


@pytest.fixture(scope="module")
def clip() -> qa.Waveform:
    return qa.Waveform(sound(3.3), name="a")


def place(result: Any) -> Any:
    return result.source, result.window, result.start_seconds, result.end_seconds


def test_of_one_window_they_are_values(model: qa.AudioModel, clip: qa.Waveform) -> None:
    description = model.describe(clip, max_new_tokens=1, **OPTIONS)
    assert description.source == "a"
    assert [place(answer) for answer in description.answers] == PLACES
    twice = model.describe([clip, clip], max_new_tokens=1, **OPTIONS)  # each is counted anew
    assert [place(answer) for one in twice for answer in one.answers] == 2 * PLACES
    one_by_one = model.describe_windows(clip, max_new_tokens=1, **OPTIONS)
    assert [place(answer) for answer in one_by_one] == PLACES
    asked = model.session(clip, **OPTIONS).ask(max_new_tokens=1)
    assert [place(answer) for answer in asked.answers] == PLACES
    trace = model.inspect(clip, **OPTIONS)
    windows = [(w.window, w.start_seconds, w.end_seconds) for w in trace.windows]
    assert [(trace.source, *window) for window in windows] == PLACES
    assert trace.duration_seconds == 3.3


def test_of_several_rows_they_are_arrays(model: qa.AudioModel, clip: qa.Waveform) -> None:
    vectors = model.encode(clip, per="window", **OPTIONS)
    assert list(zip(*place(vectors), strict=True)) == PLACES
    states = model.activations(clip, taps=["lm.1"], **OPTIONS)["lm.1"]
    rows = model.encode(clip, tap="lm.1", span="all", pooling="none", **OPTIONS)
    lens = model.lens(clip, span="all", **OPTIONS)
    for result in (vectors, states, rows, lens, states[states.mask("audio")], vectors[0]):
        assert isinstance(result, IndexedRows)
        for name in ("source", "window", "start_seconds", "end_seconds", "span"):
            np.testing.assert_array_equal(getattr(result, name), getattr(result.index, name))
    for name in ("source", "window", "start_seconds", "end_seconds", "span"):
        np.testing.assert_array_equal(getattr(states, name), getattr(rows, name))
        np.testing.assert_array_equal(getattr(lens, name), getattr(rows, name))
    assert (vectors.tap, states.tap, rows.tap) == (
        qa.Tap.parse("audio_tower"),
        qa.Tap.parse("lm.1"),
        qa.Tap.parse("lm.1"),
    )
    assert states.name == "a"
