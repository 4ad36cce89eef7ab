from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from checkpoints import ROW_TIMES
from qwen_audio.audio.window import Window
from qwen_audio.errors import OptionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.hidden_states import HiddenStates, concatenate_windows
from qwen_audio.inference.spans import Segment, Span, SpanKind, WindowRows
from qwen_audio.models.tap import ModelDimensions, Stage, Tap
from reference_pooling import last_rows

WINDOWS = (Window(0.0, 30.0), Window(25.0, 41.5))


DIMENSIONS = ModelDimensions(80, 2, 8, 8, 2, 12, ROW_TIMES)


def frames(
    spans: tuple[Span, ...],
    rows: int = 6,
    tap: str = "lm.1",
    windows: tuple[Window, ...] = WINDOWS[:1],
    times: int | None = None,
) -> HiddenStates:
    seconds = np.zeros(rows if times is None else times)
    parsed = Tap.parse(tap)
    data = np.zeros((rows, 3), np.float32)
    return HiddenStates(data, parsed, seconds, spans, windows, DIMENSIONS.times(parsed))


def spec_of(tap: Tap, dtype: str = "float32") -> EmbeddingSpec:
    return EmbeddingSpec("m", "r", str(tap), pooling="none", span="all", dtype=dtype)


kinds: st.SearchStrategy[SpanKind] = st.sampled_from(("audio", "prompt", "generated"))
runs = st.lists(st.tuples(kinds, st.integers(0, 7)), min_size=1, max_size=6)


@given(st.lists(runs, min_size=1, max_size=4), st.sampled_from(["mel", "encoder.2", "lm.0"]))
def test_assembled_windows_follow_one_another(layout: list[list[Segment]], name: str) -> None:
    tap = Tap.parse(name)
    random = np.random.default_rng(0)
    hidden_states: list[tuple[Window, dict[Tap, WindowRows]]] = []
    for number, window_runs in enumerate(layout):
        rows = random.normal(size=(sum(n for _, n in window_runs), 3)).astype(np.float32)
        window = Window(2.5 * number, 2.5 * number + 3)
        hidden_states.append((window, {tap: (rows, tuple(window_runs))}))

    windows, states = (
        tuple(window for window, _ in hidden_states),
        [state for _, state in hidden_states],
    )
    assembled = concatenate_windows(
        windows,
        states,
        {tap: spec_of(tap, "bfloat16")},
        DIMENSIONS.times,
        name="song.flac",
        tokens=(),
    )[tap]
    assert assembled.tap == tap
    assert assembled.dtype == "bfloat16"
    assert assembled.windows == tuple(window for window, _ in hidden_states)
    np.testing.assert_array_equal(
        assembled.data, np.concatenate([state[tap][0] for _, state in hidden_states])
    )
    flat = [(kind, n, w) for w, window_runs in enumerate(layout) for kind, n in window_runs]
    assert [(span.kind, len(span), span.window) for span in assembled.spans] == flat
    assert assembled.spans[0].start == 0
    assert assembled.spans[-1].stop == len(assembled)
    for left, right in zip(assembled.spans, assembled.spans[1:], strict=False):
        assert left.stop == right.start

    for span in assembled.spans:
        seconds = assembled.start_seconds[span.start : span.stop]
        if span.kind == "audio":
            first = hidden_states[span.window][0].start_seconds
            expected = [first + k * DIMENSIONS.hop_seconds(tap) for k in range(len(span))]
            np.testing.assert_allclose(seconds, expected, rtol=0, atol=1e-9)
        else:
            assert np.isnan(seconds).all()

    rows_of = {kind: assembled.indices(kind) for kind in ("audio", "prompt", "generated")}
    together = np.sort(np.concatenate(list(rows_of.values())))
    np.testing.assert_array_equal(together, np.arange(len(assembled)))
    for kind, indices in rows_of.items():
        expected_rows = [
            r for s in assembled.spans if s.kind == kind for r in range(s.start, s.stop)
        ]
        assert indices.tolist() == expected_rows


def test_several_taps_are_assembled_separately() -> None:
    mel, tower = Tap.parse("mel"), Tap.parse("audio_tower")
    state: dict[Tap, WindowRows] = {
        mel: (np.zeros((8, 2), np.float32), (("audio", 8),)),
        tower: (np.ones((2, 4), np.float32), (("audio", 2),)),
    }
    assembled = concatenate_windows(
        (Window(1.0, 1.08),),
        [state],
        {tap: spec_of(tap) for tap in (mel, tower)},
        DIMENSIONS.times,
        name="song.flac",
        tokens=(),
    )
    assert list(assembled) == [mel, tower]
    np.testing.assert_allclose(assembled[mel].start_seconds, 1 + 0.01 * np.arange(8))
    np.testing.assert_allclose(assembled[tower].start_seconds, [1.0, 1.04])
    assert assembled[tower].data.shape == (2, 4)


@pytest.mark.parametrize(
    "spans",
    [
        (Span("audio", 1, 6),),
        (Span("audio", 0, 5),),
        (Span("audio", 0, 7),),
        (Span("audio", 0, 2), Span("prompt", 3, 6)),
        (Span("audio", 0, 4), Span("prompt", 3, 6)),
        (Span("audio", 0, 6), Span("prompt", 6, 5), Span("audio", 5, 6)),
        (),
    ],
    ids=["late", "short", "long", "gap", "overlap", "backwards", "none"],
)
def test_spans_are_all_rows_spans_and_times(spans: tuple[Span, ...]) -> None:
    with pytest.raises(ValueError, match="spans"):
        frames(spans)


def test_every_row_has_a_time() -> None:
    with pytest.raises((ValueError, TypeCheckError)):  # the latter where annotations are enforced
        frames((Span("audio", 0, 6),), times=5)


def test_the_last_row_before_the_answer_of_each_window() -> None:
    spans = (
        Span("prompt", 0, 1, 0),
        Span("audio", 1, 4, 0),
        Span("prompt", 4, 6, 0),
        Span("generated", 6, 9, 0),
        Span("prompt", 9, 10, 1),
        Span("audio", 10, 12, 1),
        Span("prompt", 12, 13, 1),
    )
    hidden_states = frames(spans, rows=13, windows=WINDOWS)
    assert last_rows(hidden_states) == [5, 12]


def test_printing_shows_shapes_and_seconds_not_data() -> None:
    spans = (Span("prompt", 0, 1, 0), Span("audio", 1, 5, 0), Span("prompt", 5, 6, 1))
    assert repr(frames(spans, windows=WINDOWS)) == (
        "HiddenStates(lm.1: 6 rows × 3, positions (audio at 25 Hz); prompt 2, audio 4; "
        "windows 0:00–0:30, 0:25–0:41.50; float32)"
    )
    assert repr(frames((Span("audio", 0, 6),), tap="mel")) == (
        "HiddenStates(mel: 6 rows × 3, 100 Hz; audio 6; windows 0:00–0:30; float32)"
    )


def test_hop_seconds() -> None:
    assert frames((Span("audio", 0, 6),), tap="encoder.3").hop_seconds == 0.02


def test_hidden_states_are_immutable() -> None:
    hidden_states = frames((Span("audio", 0, 6),))
    with pytest.raises(AttributeError):
        hidden_states.tap = Tap.parse("mel")  # type: ignore[misc]


# As an array, and by time.


def window_states() -> HiddenStates:
    """Two windows of 1 s of `lm.1`: a word, 25 audio rows and two words, as tokens w0 …"""
    spans = []
    for window in (0, 1):
        for kind, start, stop in (("prompt", 0, 1), ("audio", 1, 26), ("prompt", 26, 28)):
            spans.append(Span(kind, start + 28 * window, stop + 28 * window, window))  # type: ignore[arg-type]
    times = [np.nan, *np.arange(25) * 0.04, np.nan, np.nan]
    return HiddenStates(
        np.arange(56 * 3, dtype=np.float32).reshape(56, 3),
        Tap.parse("lm.1"),
        np.array([*times, *(np.array(times) + 1)]),
        tuple(spans),
        (Window(0.0, 1.0), Window(1.0, 1.99)),
        ROW_TIMES[Stage.LM],
        name="song.flac",
        tokens=tuple("" if 1 <= k % 28 <= 25 else f"w{k}" for k in range(56)),
    )


def test_it_is_an_array_of_its_rows() -> None:
    states = window_states()
    assert states.shape == np.shape(states) == (56, 3)
    assert len(states) == 56
    np.testing.assert_array_equal(states, states.data)
    assert np.asarray(states) is states.data
    assert np.asarray(states, np.float64).dtype == np.float64
    np.testing.assert_array_equal(states[3], states.data[3])
    np.testing.assert_array_equal(states.to_torch().numpy(), states.data)
    assert states.mask("audio").sum() == len(states.indices("audio")) == 50
    np.testing.assert_array_equal(np.flatnonzero(states.mask("prompt")), states.indices("prompt"))


@pytest.mark.parametrize(
    "rows", [slice(20, 40), slice(None, None, -3), [0, 27, 28, 55], np.arange(56) % 5 == 0]
)
def test_some_rows_keep_their_spans_times_and_tokens(rows: Any) -> None:
    states = window_states()
    chosen = states[rows]
    index = np.arange(56)[rows]
    np.testing.assert_array_equal(chosen, states.data[index])
    np.testing.assert_array_equal(chosen.start_seconds, states.start_seconds[index])
    assert chosen.tokens == tuple(states.tokens[k] for k in index)
    for name, column in states.index.columns().items():
        np.testing.assert_array_equal(chosen.index.columns()[name], column[index])


def test_rows_by_time() -> None:
    states = window_states()
    for part in (states[0.5:1.1], states.between(0.5, 1.1)):
        assert (part.index.start_seconds < 1.1).all()
        assert (part.index.end_seconds > 0.5).all()
        assert set(part.index.span) == {"audio"}
        np.testing.assert_allclose(part.start_seconds[[0, -1]], [0.48, 1.08])
    assert len(states[:0.04]) == 1
    assert len(states[1.96:]) == 1  # cut off by the end of its window
    assert states.index.end_seconds[53] == 1.99
    assert len(states[0.0:0.0]) == len(states[5.0:]) == 0
    with pytest.raises(OptionError, match="step"):
        states[0.0:1.0:2]
    with pytest.raises(OptionError, match="index rows only"):
        states[np.zeros((2, 2), int)]


@pytest.mark.slow
def test_as_an_array_with_coordinates() -> None:
    """Imports xarray: half a second."""
    states = window_states()
    array = states.to_xarray()
    assert (array.dims, array.name) == (("row", "feature"), str(states.tap))
    assert np.shares_memory(array.values, states.data)
    assert set(array.coords) == {
        *("source", "window", "start_seconds", "end_seconds", "span", "token")
    }
    audio = array[array.span == "audio"]
    np.testing.assert_array_equal(audio, states.data[states.indices("audio")])
    late = audio[audio.start_seconds >= states.start_seconds[states.indices("audio")][30]]
    np.testing.assert_array_equal(late, audio[30:])
    assert array.token[27].item() == "w27"
    assert array.groupby("window").mean().sizes["window"] == 2


def test_as_a_table() -> None:
    table = window_states().to_pandas()
    assert list(table) == [
        *("source", "window", "start_seconds", "end_seconds", "span", "token", "tap", "vector")
    ]
    audio = table[table["span"] == "audio"]
    np.testing.assert_array_equal(np.stack(audio["vector"]), window_states().data[audio.index])
    assert set(table["source"]) == {"song.flac"}
    assert audio["window"].tolist() == [0] * 25 + [1] * 25
    assert table["token"][27] == "w27"
