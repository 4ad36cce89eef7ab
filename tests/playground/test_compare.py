"""The Compare tab's handlers: metrics, alignment, which is which, and patching."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.analysis.alignment import Alignment
from qwen_audio.analysis.row_metrics import METRICS
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.examples import load_example
from qwen_audio.playground.limits import Limits
from qwen_audio.playground.tabs.compare import CompareTab
from qwen_audio.playground.tabs.trace import TraceCard

ANSWERS = ["A solo acoustic guitar plays chords.", "Drums play alone."]


class Page:
    """Stand-in for a Gradio request."""

    session_hash = "page"


@pytest.fixture
def context(model: qa.AudioModel) -> AppContext:
    """With a second of the guitar open."""
    made = AppContext(model, Limits())
    session = made.session(Page())
    session.open(Clip(load_example("guitar.flac")))
    session.open_clip.select_part([1.0, 2.0])
    return made


def array(payload: dict[str, Any]) -> Any:
    data = base64.b64decode(payload["float32"])
    return np.frombuffer(data, np.float32).reshape(payload["shape"])


def cut(waveform: qa.Waveform, seconds: float) -> qa.Waveform:
    return qa.Waveform(waveform.samples[: round(16_000 * seconds)], waveform.name)


@pytest.fixture
def pair(context: AppContext) -> tuple[qa.Waveform, qa.Waveform]:
    session = context.session(Page())
    session.other_clip = Clip(cut(load_example("djembe.flac"), 1.5))
    return session.open_clip.window_waveform, session.other_clip.waveform


def test_values_are_those_of_compare(
    context: AppContext, pair: tuple[qa.Waveform, qa.Waveform]
) -> None:
    tab, model = CompareTab(context), context.model
    for metric in METRICS:
        answer = tab.compare({"metric": metric, "n": 3}, Page())
        expected = model.compare(*pair, metric=metric)
        assert (answer["n"], answer["metric"], answer["alignment"]) == (3, metric, "time")
        assert tuple(answer["taps"]) == expected.taps
        np.testing.assert_allclose(array(answer["overall"]), expected.overall, atol=1e-4)
        np.testing.assert_allclose(array(answer["by_time"]), expected.by_time, atol=1e-4)
        assert answer["column_seconds"] == pytest.approx(expected.column_seconds)
        assert answer["path"] is answer["distance"] is answer["wav"] is None
        assert json.dumps(answer, allow_nan=False)
    recordings = [(each["name"], each["start"], each["end"]) for each in (answer["clip"],)]
    assert recordings == [("guitar.flac", 1.0, 2.0)]
    assert (answer["other"]["name"], answer["other"]["is_whole"]) == ("djembe.flac", True)
    assert context.session(Page()).results["compare"].metric == METRICS[-1]


def test_the_alignment_is_that_of_compare(
    context: AppContext, pair: tuple[qa.Waveform, qa.Waveform]
) -> None:
    answer = CompareTab(context).compare({"alignment": "dtw", "wav": True}, Page())
    expected = context.model.compare(*pair, alignment="dtw")
    np.testing.assert_allclose(array(answer["path"]), np.asarray(expected.path_seconds), atol=1e-6)
    np.testing.assert_allclose(array(answer["by_time"]), expected.by_time, atol=1e-4)
    one, other = context.model.activations(pair, taps=["audio_tower"])
    aligned = Alignment.of(one["audio_tower"], other["audio_tower"])
    assert answer["distance"] == pytest.approx(aligned.distance, abs=1e-5)
    assert base64.b64decode(answer["wav"]).startswith(b"RIFF")


def test_without_memory_for_all_rows_it_is_one_pass(model: qa.AudioModel) -> None:
    context = AppContext(model, Limits(memory_bytes=1_000_000))
    session = context.session(Page())
    session.open(Clip(cut(load_example("guitar.flac"), 1.0)))
    session.other_clip = Clip(cut(load_example("djembe.flac"), 1.0))
    answer = CompareTab(context).compare({"alignment": "dtw"}, Page())
    assert len(session.open_clip.hidden_states) < len(model.taps)
    pair = (clip.waveform for clip in (session.open_clip, session.other_clip))
    expected = model.compare(*pair, alignment="dtw")
    np.testing.assert_array_equal(array(answer["by_time"]), expected.by_time)
    assert answer["distance"] == expected.path_distance


def test_swapping_opens_the_other(context: AppContext, pair: Any) -> None:
    tab, session = CompareTab(context), context.session(Page())
    clip, other = session.open_clip, session.other_clip
    there = tab.compare({"metric": "relative_distance"}, Page())
    assert tab.swap({}, Page())["name"] == "djembe.flac"
    assert (session.clip, session.other_clip) == (other, clip)
    assert "compare" not in session.results
    back = tab.compare({"metric": "relative_distance"}, Page())
    assert (back["clip"], back["other"]) == (there["other"], there["clip"])
    np.testing.assert_allclose(array(back["by_time"]), array(there["by_time"]), atol=1e-5)


def test_what_cannot_be_compared_says_what_to_do(context: AppContext) -> None:
    tab, card = CompareTab(context), TraceCard(context)
    for answer in (tab.compare({}, Page()), card.trace({}, Page())):
        assert answer["problem"] == "Choose a recording to compare with first."
    assert "nothing to swap" in tab.swap({}, Page())["problem"]
    assert "use cosine, correlation" in tab.compare({"metric": 1}, Page())["problem"]
    assert "use time, dtw" in tab.compare({"alignment": None}, Page())["problem"]
    assert "has no collection" in tab.compare({"row": "x"}, Page())["problem"]
    context.session(Page()).clip = None
    assert "No recording is open" in tab.compare({"example": "guitar.flac"}, Page())["problem"]


def test_the_other_stays_while_parts_and_recordings_are_opened(
    context: AppContext, pair: tuple[qa.Waveform, qa.Waveform]
) -> None:
    tab, session = CompareTab(context), context.session(Page())
    assert "problem" not in tab.compare({}, Page())
    session.open_clip.select_part([2.0, 2.5])
    session.clear_part_results()
    answer = tab.compare({}, Page())
    assert (answer["clip"]["start"], answer["other"]["name"]) == (2.0, "djembe.flac")


def test_patching_cuts_both_to_the_shorter(
    context: AppContext, pair: tuple[qa.Waveform, qa.Waveform]
) -> None:
    answer = TraceCard(context).trace({"answers": ANSWERS}, Page())
    expected = context.model.trace(pair[0], cut(pair[1], 1.0), answers=ANSWERS)
    np.testing.assert_allclose(array(answer["share"]), expected.share, atol=1e-4)
    np.testing.assert_allclose(array(answer["difference"]), expected.difference, atol=1e-3)
    np.testing.assert_allclose(answer["log_probabilities"], expected.log_probabilities, atol=1e-3)
    assert (answer["answers"], answer["seconds"], answer["cut"]) == (
        tuple(ANSWERS),
        1.0,
        "djembe.flac",
    )
    assert context.session(Page()).results["trace"].answers == tuple(ANSWERS)
    assert json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["Drums."], "give two texts, one for each recording"),
        ("Drums.", "give two texts"),
        (["Drums.", " "], "Type an answer for each recording, or leave both empty."),
        (["Drums.", "Drums."], "Drums."),
    ],
)
def test_answers_that_are_no_pair(
    context: AppContext, pair: Any, answers: Any, message: str
) -> None:
    assert message in TraceCard(context).trace({"answers": answers}, Page())["problem"]


def test_a_recording_without_another_answer(context: AppContext) -> None:
    session = context.session(Page())
    session.other_clip = Clip(session.open_clip.window_waveform)
    problem = TraceCard(context).trace({"answers": ["", ""]}, Page())["problem"]
    assert "of both: give two answers, of a and of b" in problem
