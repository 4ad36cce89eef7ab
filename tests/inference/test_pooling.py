from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import ROW_TIMES
from qwen_audio.audio.window import Window
from qwen_audio.errors import OptionError
from qwen_audio.inference.hidden_states import HiddenStates
from qwen_audio.inference.options import PoolingName, SpanName, check_pooling, check_span
from qwen_audio.inference.pooling import Pooling
from qwen_audio.inference.spans import Span
from qwen_audio.models.tap import Stage, Tap
from reference_pooling import Rows, pool, rows_of_span


def pooled(rows: Rows, pooling: PoolingName) -> Rows:
    """Of one window of audio."""
    how = Pooling(pooling)
    return how.combine([how.pool_window(torch.from_numpy(rows), [("audio", len(rows))])])


def test_a_mean_of_many_rows_loses_no_digits() -> None:
    rows = np.full((200_000, 1), 0.1, np.float32)
    assert pooled(rows, "mean")[0] == np.float32(0.1)


@pytest.mark.parametrize("pooling", ["mean", "max", "mean+std", "last"])
def test_no_rows_pool_to_nothing(pooling: PoolingName) -> None:
    with pytest.raises(OptionError, match="no rows"):
        pooled(np.zeros((0, 4), np.float32), pooling)


def test_no_rows_unpooled_are_no_rows() -> None:
    assert pooled(np.zeros((0, 4), np.float32), "none").shape == (0, 4)


@pytest.mark.parametrize("name", ["", "Mean", "avg", "cls", "mean "])
def test_other_poolings_are_errors(name: str) -> None:
    with pytest.raises(OptionError, match=r"use one of mean, max, mean\+std, last, none"):
        check_pooling(name)


@pytest.mark.parametrize("name", ["", "generated", "Audio", "text"])
def test_other_spans_are_errors(name: str) -> None:
    with pytest.raises(OptionError, match="use one of audio, prompt, last, all"):
        check_span(name, Tap.parse("lm.0"))


@pytest.mark.parametrize("tap", ["mel", "encoder.1", "audio_tower", "projector"])
def test_encoder_taps_have_no_prompt(tap: str) -> None:
    for span in ("prompt", "last"):
        with pytest.raises(OptionError, match=f"at tap {tap}: only the language model"):
            check_span(span, Tap.parse(tap))
    for span in ("audio", "all"):
        check_span(span, Tap.parse(tap))


@pytest.mark.parametrize("span", get_args(SpanName))
@pytest.mark.parametrize("tap", ["lm.0", "lm.2", "lm.norm"])
def test_the_language_model_has_every_span(tap: str, span: str) -> None:
    check_span(span, Tap.parse(tap))


layouts = st.lists(  # of one window each
    st.tuples(st.integers(1, 4), st.integers(0, 6), st.integers(1, 4), st.integers(0, 3)),
    min_size=1,
    max_size=4,
)


def frames_of(
    layout: list[tuple[int, int, int, int]], seed: int
) -> tuple[HiddenStates, dict[str, Any]]:
    """Windows of prompt, audio, prompt and generated rows; and the indices of each kind."""
    spans: list[Span] = []
    indices: dict[str, list[int]] = {"prompt": [], "audio": [], "generated": [], "last": []}
    row = 0
    for window, counts in enumerate(layout):
        kinds = ("prompt", "audio", "prompt", "generated")
        for kind, count in zip(kinds, counts, strict=True):
            spans.append(Span(kind, row, row + count, window))  # type: ignore[arg-type]
            indices[kind] += range(row, row + count)
            row += count
        indices["last"].append(row - counts[3] - 1)
    data = np.random.default_rng(seed).normal(size=(row, 5)).astype(np.float32)
    windows = tuple(Window(30.0 * k, 30.0 * k + 30) for k in range(len(layout)))
    frames = HiddenStates(
        data, Tap.parse("lm.1"), np.zeros(row), tuple(spans), windows, ROW_TIMES[Stage.LM]
    )
    return frames, indices


@given(
    layouts,
    st.integers(0, 99),
    st.sampled_from(get_args(SpanName)),
    st.sampled_from(get_args(PoolingName)),
)
def test_pooling_each_window_is_pooling_them_all(
    layout: list[tuple[int, int, int, int]], seed: int, span: SpanName, pooling: PoolingName
) -> None:
    frames, indices = frames_of(layout, seed)
    how = Pooling(pooling, span)
    windows = []
    for window in range(len(layout)):
        spans = [found for found in frames.spans if found.window == window]
        rows = torch.from_numpy(frames.data[spans[0].start : spans[-1].stop].copy())
        windows.append(how.pool_window(rows, [(found.kind, len(found)) for found in spans]))
        rows.fill_(float("nan"))  # what has been pooled does not look back
    chosen = rows_of_span(frames, span)
    np.testing.assert_array_equal(
        chosen, frames.data if span == "all" else frames.data[indices[span]]
    )
    if pooling != "none" and not len(chosen):
        with pytest.raises(OptionError, match="no rows"):
            how.combine(windows)
        return
    found = how.combine(windows)
    assert found.dtype == np.float32
    expected = pool(frames, span, pooling)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    if not pooling.startswith("mean"):
        np.testing.assert_array_equal(found, expected)


def test_a_mean_in_bfloat16_is_summed_in_more() -> None:
    """257 ones in bfloat16 are 256."""
    rows = torch.ones(1000, 2, dtype=torch.bfloat16)
    rows[0] = 0
    found = Pooling().combine([Pooling().pool_window(rows, [("audio", 1000)])] * 3)
    np.testing.assert_array_equal(found, np.full(2, 0.999, np.float32))
