"""Handlers of the Hidden states tab: the view of a tap, the logit lens, edits."""

from __future__ import annotations

import base64
import itertools
import warnings
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from browser import ROOT
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.limits import Limits
from qwen_audio.playground.payloads import float_array
from qwen_audio.playground.tabs.edits import EditsCard
from qwen_audio.playground.tabs.hidden_states import HiddenStatesTab
from qwen_audio.playground.tabs.lens import LensCard

GUITAR = ROOT / "examples" / "guitar.flac"


class Page:
    """Stand-in for a Gradio request."""

    session_hash = "page"


@pytest.fixture
def context(model: qa.AudioModel) -> AppContext:
    """With a recording open, of which the second and third second are selected."""
    made = AppContext(model, Limits())
    clip = Clip(qa.load_waveform(GUITAR), example="guitar.flac")
    clip.select_part([1.0, 3.0])
    made.session(Page()).clip = clip
    return made


@pytest.fixture
def part(context: AppContext) -> qa.Waveform:
    return context.session(Page()).open_clip.window_waveform


def decode(array: dict[str, Any]) -> np.ndarray:
    kind = "float16" if "float16" in array else "float32"
    return np.frombuffer(base64.b64decode(array[kind]), kind).reshape(array["shape"])


def test_arrays_of_numbers_arrive_as_they_are() -> None:
    values = np.array([[0.1, -2.5], [1e9, -1e9], [0, 7]], np.float32)
    np.testing.assert_array_equal(decode(float_array(values)), values)
    np.testing.assert_allclose(
        decode(float_array(values, half=True)), np.clip(values, -65504, 65504), rtol=1e-3
    )
    np.testing.assert_array_equal(decode(float_array(values[::2, 1])), values[::2, 1])


@pytest.mark.parametrize("tap", ["encoder.2", "projector", "lm.2", "lm.norm"])
def test_values_give_the_rows_of_the_tap(context: AppContext, part: qa.Waveform, tap: str) -> None:
    answer = HiddenStatesTab(context).view({"tap": tap}, Page())
    states = context.model.activations(part, taps=[tap])[tap]
    audio = states.data[states.indices("audio")]
    values, means, deviations = (
        decode(answer[name]) for name in ("values", "means", "standard_deviations")
    )
    np.testing.assert_allclose(values * deviations + means, audio, atol=2e-3 * audio.std())
    assert (answer["start"], answer["end"]) == (1.0, 3.0)
    assert answer["shape"] == list(states.shape)
    assert answer["hop_seconds"] * answer["rows_per_column"] * len(values) == pytest.approx(2.0)
    if tap.startswith("lm"):
        prompt = answer["prompt"]
        assert prompt["tokens"] == [states.tokens[position] for position in prompt["positions"]]
        assert "".join(prompt["tokens"]).endswith("Describe the music:")
        np.testing.assert_array_equal(decode(prompt["rows"]), states.data[states.indices("prompt")])
    else:
        assert "prompt" not in answer


def test_the_mel_tap_is_in_decibels_and_similarity_in_cosines(
    context: AppContext, part: qa.Waveform
) -> None:
    answer = HiddenStatesTab(context).view({"tap": "mel"}, Page())
    mel = context.model.activations(part, taps=["mel"])["mel"].data
    np.testing.assert_allclose(decode(answer["values"]), 40 * mel - 40, rtol=1e-3, atol=1e-2)
    assert answer["hz"] == pytest.approx(list(context.model.mel_hz))
    similarity = decode(answer["similarity"])
    view = context.model.view(part, tap="mel", columns=240)
    np.testing.assert_allclose(similarity, view.similarity, atol=1e-3)


def test_shapes_follow_the_part(context: AppContext) -> None:
    tab, clip = HiddenStatesTab(context), context.session(Page()).open_clip
    assert tab.view({"tap": "projector"}, Page())["shape"][0] == 50
    clip.select_part([0.0, 1.0])
    answer = tab.view({"tap": "projector"}, Page())
    assert (answer["shape"][0], answer["end"]) == (25, 1.0)


def test_cells_of_the_lens_are_on_the_time_axis(context: AppContext, part: qa.Waveform) -> None:
    answer = LensCard(context).lens({"cells": 5, "tokens": ["guitar", "piano"]}, Page())
    lens = context.model.lens(part, tokens=["guitar", "piano"])
    assert context.session(Page()).results["lens"].taps == lens.taps
    edges = [(cell["start"], cell["end"]) for cell in answer["segments"]]
    np.testing.assert_allclose(edges, [(1 + 0.4 * k, 1.4 + 0.4 * k) for k in range(5)])
    assert answer["followed"] == ["guitar", "piano"]
    audio = lens.indices("audio")[10:20]
    for level, shown in enumerate(answer["segments"][1]["levels"]):
        text, probability = shown["tokens"][0]
        assert (text, probability) == (
            lens.steps(5)[1].words[level],
            pytest.approx(lens.steps(5)[1].probabilities[level], abs=1e-6),
        )
        assert len(shown["tokens"]) == 5
        assert shown["entropy"] == pytest.approx(lens.entropy_bits[level, audio].mean(), abs=1e-4)
        assert shown["followed"] == pytest.approx(
            lens.followed_probabilities[level, audio].mean(axis=0), rel=1e-4
        )


def test_the_last_position_predicts_the_answer(context: AppContext, part: qa.Waveform) -> None:
    answer = LensCard(context).lens({}, Page())
    first, last = answer["positions"][0], answer["positions"][-1]
    assert first["before"]
    assert not last["before"]
    assert (
        "".join(position["read"] for position in answer["positions"][2:]) == "Describe the music:"
    )
    assert last["levels"][-1]["tokens"][0][0].strip() == context.model.describe(part).split()[0]
    assert answer["followed"] == []


@pytest.mark.slow
def test_edits_change_the_answer(context: AppContext, part: qa.Waveform) -> None:
    model = context.model
    request = {"edit": "zero", "tap": "audio_tower"}
    first, last = EditsCard(context).edit(request, Page())
    unedited = model.describe(part)
    assert first == {"unedited": unedited, "partial": True, "n": None}
    with model.edit("audio_tower", qa.edits.zero()):
        edited = model.describe(part)
        with warnings.catch_warnings(action="ignore"):
            scores = model.score(part, choices=[unedited], include_end=True)
    assert (last["unedited"], last["edited"]) == (unedited, edited)
    assert last["same"] == (unedited == edited)
    assert last["edit"] == edited.edits == "audio_tower[audio]: zero()"
    assert "".join(row["token"] for row in last["tokens"]).strip() == unedited
    drop = [row["log_probability"] - row["log_probability_edited"] for row in last["tokens"]]
    assert sum(drop) > 1
    np.testing.assert_allclose(
        [row["log_probability_edited"] for row in last["tokens"]],
        scores.token_log_probabilities[0][0],
        atol=1e-5,
    )
    assert context.session(Page()).results["edit"].rows() == last["tokens"]
    assert model.describe(part) == unedited  # the edit has ended


@pytest.mark.parametrize(
    "request_data",
    [
        {"edit": "shuffle", "tap": "projector", "seed": 3},
        {"edit": "mean_over_time", "tap": "encoder.2"},
        {"edit": "zero", "tap": "lm.1", "question": "Is there speech?"},
        {"edit": "scale", "tap": "mel", "factor": 0.5},
        {"edit": "keep_every", "tap": "projector", "n": 4},
        {"edit": "scale_heads", "tap": "lm.2.heads", "heads": [0, 3], "span": "all"},
    ],
    ids=lambda data: data["edit"],
)
def test_every_edit_is_named(context: AppContext, request_data: dict[str, Any]) -> None:
    *_, last = EditsCard(context).edit(request_data, Page())
    place = f"{request_data['tap']}[{request_data.get('span', 'audio')}]"
    assert last["edit"].startswith(f"{place}: {request_data['edit']}(")
    assert last["tokens"]


def test_an_edit_that_changes_nothing_drops_nothing(context: AppContext) -> None:
    *_, last = EditsCard(context).edit({"edit": "scale", "tap": "lm.1", "factor": 1}, Page())
    assert last["same"]
    for row in last["tokens"]:
        assert row["log_probability"] == row["log_probability_edited"]


@pytest.mark.parametrize(
    ("request_data", "words"),
    [
        ({"edit": "add", "tap": "lm.1"}, "edit 'add': choose one of shuffle"),
        ({"edit": "keep_every", "tap": "lm.2"}, "keep_every"),
        ({"edit": "shuffle", "tap": "lm.9"}, "lm.9"),
        ({"edit": "shuffle", "tap": "mel", "span": "last"}, "span='last'"),
        ({"edit": "scale_heads", "tap": "lm.2.heads", "heads": "0"}, "heads: give the numbers"),
        ({"edit": "scale_heads", "tap": "lm.2.heads", "heads": [9]}, "heads 0 to 3"),
        ({"edit": "keep_every", "tap": "projector", "n": 0}, "n=0"),
        ({"edit": "zero", "tap": "mel", "question": "a" * 1001}, "1001 characters"),
    ],
)
def test_edits_that_cannot_be_used_say_why(
    context: AppContext, request_data: dict[str, Any], words: str
) -> None:
    (answer,) = EditsCard(context).edit(request_data, Page())
    assert words in answer["problem"]


ODD_VALUES: list[Any] = [None, True, -1, 2**63, 1.5, "", "x", "mel", [], [[]], {"a": 1}]


@pytest.mark.slow
def test_no_value_is_an_internal_error(context: AppContext) -> None:
    lens, edits, view = LensCard(context), EditsCard(context), HiddenStatesTab(context)
    base = {"edit": "keep_every", "tap": "projector"}
    for value, name in itertools.product(ODD_VALUES, ("cells", "tokens")):
        assert "internal" not in lens.lens({name: value}, Page()).get("problem", ""), (name, value)
    for value, name in itertools.product(ODD_VALUES, ("edit", "tap", "span", "n")):
        *_, answer = edits.edit(base | {name: value}, Page())
        assert "internal" not in answer.get("problem", ""), (name, value)
    for value, edit in itertools.product(ODD_VALUES, ("shuffle", "scale", "scale_heads")):
        data = {
            "edit": edit,
            "tap": "lm.1.heads",
            **dict.fromkeys(("seed", "factor", "heads"), value),
        }
        *_, answer = edits.edit(data, Page())
        assert "internal" not in answer.get("problem", ""), (edit, value)
    for value in (*ODD_VALUES, "lm.1.mlp", "lm.2.heads"):
        assert "internal" not in view.view({"tap": value}, Page()).get("problem", "")


def test_silence_has_finite_values_and_an_answer(model: qa.AudioModel) -> None:
    context = AppContext(model, Limits())
    silent = qa.Waveform(np.zeros(16_000, np.float32), "silent.wav")
    context.session(Page()).clip = Clip(silent)
    *_, last = EditsCard(context).edit({"edit": "zero", "tap": "projector"}, Page())
    assert last["unedited"] == model.describe(silent)
    answer = HiddenStatesTab(context).view({"tap": "encoder.1"}, Page())
    assert np.isfinite(decode(answer["values"])).all()
    assert np.isfinite(decode(answer["similarity"])).all()
