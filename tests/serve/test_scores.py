"""Scores and classes over HTTP: the numbers of the model's own methods."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import openai
import pytest

import qwen_audio as qa
from qwen_audio.errors import ScoreWarning
from qwen_audio.serve.launch import RunningServer, launch_server
from qwen_audio.serve.limits import ApiLimits
from recordings import sound, write_wav

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::qwen_audio.errors.ScoreWarning"),
]

CLIPS = [write_wav(sound(0.4 + 0.3 * seed, 16_000, seed=seed), 16_000) for seed in range(3)]
BASE64 = [base64.b64encode(data).decode() for data in CLIPS]
CHOICES = ["A solo piano plays", "A solo acoustic guitar plays", "Drums play"]
CLASSES = {"keys": ["A solo piano plays"], "strings": [*CHOICES[1:2], "A violin plays"]}
WINDOWS: dict[str, Any] = {"window_seconds": 0.4, "hop_seconds": 0.3}
LIMITS = ApiLimits(inputs=4, scored_characters=2_000, choice_tokens=200, scores=300)


@pytest.fixture(scope="module")
def model() -> qa.AudioModel:
    """Used by tests only while the server has nothing to do."""
    return qa.load(dtype="float32")


@pytest.fixture(scope="module")
def server(model: qa.AudioModel) -> Iterator[RunningServer]:
    running = launch_server(model, limits=LIMITS)
    running.wait_until_ready()
    yield running
    running.close()


@pytest.fixture(scope="module")
def remote(server: RunningServer) -> Iterator[qa.RemoteModel]:
    with qa.connect(server.url) as connected:
        yield connected


def post(server: RunningServer, path: str, **body: Any) -> tuple[int, Any]:
    """Status and content of the response; the model is named."""
    data = json.dumps({"model": "embedded", **body}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)["error"]


def check_equal(found: qa.Scores, expected: qa.Scores, tolerance: float = 0.0) -> None:
    """All fields."""
    for field in dataclasses.fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "token_log_probabilities" and tolerance:
            for of_window, wanted in zip(ours, theirs, strict=True):
                for steps, wanted_steps in zip(of_window, wanted, strict=True):
                    np.testing.assert_allclose(steps, wanted_steps, rtol=tolerance)
        else:
            assert ours == theirs, field.name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompt": "What plays?", "include_end": True, "length_normalized": True},
        {"leading_space": False, "over_windows": "sum", **WINDOWS},
    ],
)
def test_scores_are_the_models(
    remote: qa.RemoteModel, model: qa.AudioModel, tmp_path: Path, options: dict[str, Any]
) -> None:
    path = tmp_path / "a clip.wav"
    path.write_bytes(CLIPS[2])
    check_equal(
        remote.score(path, choices=CHOICES, **options),
        model.score(path, choices=CHOICES, **options),
    )
    audio: list[Any] = [path, CLIPS[0], CLIPS[1]]
    several = remote.score(audio, choices=CHOICES, **options)
    for found, expected in zip(
        several, model.score(audio, choices=CHOICES, **options), strict=True
    ):
        check_equal(found, expected, 1e-4)


@pytest.mark.parametrize("prior", ["none", "batch", {"keys": 1.0, "strings": 3.0}])
def test_classes_are_the_models(
    server: RunningServer, remote: qa.RemoteModel, model: qa.AudioModel, prior: Any
) -> None:
    expected = model.classify(CLIPS, CLASSES, prior=prior, temperature=2.0)
    found = remote.classify(CLIPS, CLASSES, prior=prior, temperature=2.0)
    assert found.labels == expected.labels
    assert found.classes == expected.classes
    np.testing.assert_allclose(found.probability, expected.probability, rtol=1e-4)
    options = {"classes": CLASSES, "prior": prior, "temperature": 2.0}
    status, answered = post(server, "v1/classify", input=BASE64, **options)
    assert status == 200
    assert [item["label"] for item in answered["data"]] == list(expected.labels)
    for item, probability in zip(answered["data"], expected.probability, strict=True):
        assert list(item["probability"]) == ["keys", "strings"]
        np.testing.assert_allclose(list(item["probability"].values()), probability, rtol=1e-4)
    assert answered["temperature"] == 2
    assert (answered["prior"] is None) == (prior == "none")


def test_a_response(server: RunningServer, model: qa.AudioModel) -> None:
    expected = model.score(CLIPS[2], choices=CHOICES, **WINDOWS)
    status, answered = post(server, "v1/score", input=[BASE64[2]], choices=CHOICES, **WINDOWS)
    assert status == 200
    (item,) = answered["data"]
    for name in ("log_probability", "probability", "mass", "recording_probability"):
        np.testing.assert_array_equal(item[name], getattr(expected, name))
    assert item["windows"][1] == {"start_seconds": 0.3, "end_seconds": 0.7}
    assert answered["tokens"] == [list(tokens) for tokens in expected.tokens]
    answers = model.describe(CLIPS[2], **WINDOWS, max_new_tokens=1).answers
    assert answered["usage"] == {
        "prompt_tokens": sum(each.audio_tokens + each.prompt_tokens for each in answers),
        "total_tokens": answered["usage"]["prompt_tokens"],
        "prompt_tokens_details": {"audio_tokens": sum(each.audio_tokens for each in answers)},
    }


@pytest.mark.filterwarnings("default::qwen_audio.errors.ScoreWarning")
def test_choices_with_little_probability(remote: qa.RemoteModel, model: qa.AudioModel) -> None:
    texts = []
    for scored in (model, remote):
        with pytest.warns(ScoreWarning) as caught:
            scored.score(CLIPS[0], choices=["Xylophone soup", "Zebra"], leading_space=False)
        (warning,) = caught
        assert warning.filename == __file__
        texts.append(str(warning.message))
    assert texts[0] == texts[1]
    assert "; with a space before them" in texts[0]


def test_many_clients_and_texts_at_the_same_time(
    server: RunningServer, remote: qa.RemoteModel, model: qa.AudioModel
) -> None:
    """Windows of several requests share passes, between steps of texts."""
    expected = [model.score(data, choices=CHOICES) for data in CLIPS]
    others = [model.score(data, choices=CHOICES[:2]) for data in CLIPS]
    text = model.describe(CLIPS[0], max_new_tokens=30)

    def request(number: int) -> None:
        clip = number % 3
        if number % 4 == 3:
            assert remote.describe(CLIPS[0], max_new_tokens=30) == text
        elif number % 2:
            check_equal(remote.score(CLIPS[clip], choices=CHOICES[:2]), others[clip], 1e-4)
        else:
            check_equal(remote.score(CLIPS[clip], choices=CHOICES), expected[clip], 1e-4)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(request, range(24)))


@pytest.mark.parametrize(
    ("path", "options", "param", "text"),
    [
        ("v1/score", {}, "choices", "field required"),
        ("v1/score", {"choices": "Yes"}, "choices", "valid list"),
        ("v1/score", {"choices": []}, None, "choices is empty"),
        ("v1/score", {"choices": ["a", " "]}, None, "choice 1 (' ') is empty"),
        ("v1/score", {"choices": ["A", "A b"], "leading_space": False}, None, "begins the second"),
        ("v1/score", {"choices": ["a"] * 2}, None, "given twice"),
        ("v1/score", {"choices": ["a"], "over_windows": "max"}, "over_windows", "'mean' or 'sum'"),
        ("v1/score", {"choices": ["a"], "prompt": ""}, "prompt", "is empty"),
        ("v1/score", {"choices": ["a"], "window_seconds": 31}, "window_seconds", "0.04 to 30 s"),
        ("v1/score", {"choices": ["a b " * 600]}, "choices", "more than 2000 characters"),
        ("v1/score", {"choices": ["a b " * 150]}, "choices", "at most 200 in one request"),
        ("v1/score", {"choices": ["a"], "prior": "none"}, "prior", "not a parameter"),
        ("v1/score", {"choices": ["a"], "input": [BASE64[0]] * 5}, "input", "at most 4"),
        ("v1/score", {"choices": ["a"], "input": ["AAAA"]}, "input[0]", "can't be decoded"),
        ("v1/classify", {"classes": ["a"]}, None, "two or more"),
        ("v1/classify", {"classes": {"a": "a", "b": []}}, None, "no spellings"),
        ("v1/classify", {"classes": {"a": "x", "b": "x"}}, None, "given twice"),
        ("v1/classify", {"classes": ["a", "b"], "prior": "batch"}, "prior", "of 1 recording"),
        ("v1/classify", {"classes": ["a", "b"], "prior": [1e-300, 1e300]}, "prior", "spans"),
        ("v1/classify", {"classes": ["a", "b"], "prior": {"a": 1}}, None, "each of a, b"),
        ("v1/classify", {"classes": ["a", "b"], "temperature": 0}, "temperature", "above 0"),
    ],
)
def test_bad_requests(
    server: RunningServer, path: str, options: dict[str, Any], param: str | None, text: str
) -> None:
    status, error = post(server, path, **{"input": BASE64[0], **options})
    assert (status, error["param"]) == (400, param)
    assert text in error["message"]
    assert "\n" not in error["message"]


def test_limits(server: RunningServer) -> None:
    options = {"choices": CHOICES, "window_seconds": 0.04}
    status, error = post(server, "v1/score", input=BASE64, **options)
    assert (status, error["code"], error["param"]) == (413, "response_too_large", "choices")
    assert "choose longer windows" in error["message"]
    extreme = {"classes": ["a", "b"], "prior": [1e-150, 1e150], "temperature": 1e-308}
    status, answered = post(server, "v1/classify", input=BASE64, **extreme)
    assert status == 200
    assert math.isclose(sum(answered["data"][0]["probability"].values()), 1)


def test_errors_of_the_client(remote: qa.RemoteModel, server: RunningServer) -> None:
    with pytest.raises(qa.OptionError, match="two or more"):
        remote.classify(CLIPS, ["a"])
    with pytest.raises(qa.OptionError, match="valid list"):
        remote.score(CLIPS, choices="Yes")
    with pytest.raises(qa.AudioError, match=r"^bytes \(4\) can't be decoded"):
        remote.score(b"abcd", choices=["a"])
    with openai.OpenAI(base_url=f"{server.url}v1", api_key="-", max_retries=0) as client:
        body = {"model": "embedded", "input": BASE64[0], "choices": CHOICES}
        scored: Any = client.post("/score", body=body, cast_to=object)
        assert scored["object"] == "list"
