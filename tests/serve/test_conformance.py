"""Responses are as `/openapi.json` says, whatever is asked."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import qwen_audio as qa
from api_requests import BASE64, KEY, URLS, post, user
from qwen_audio.serve import response_schemas
from qwen_audio.serve.launch import RunningServer, launch_server
from qwen_audio.serve.limits import ApiLimits

pytestmark = pytest.mark.slow

HEADERS = {"Authorization": f"Bearer {KEY}"}
ROUTES = (
    *("/v1/chat/completions", "/v1/embeddings", "/v1/activations"),
    *("/v1/score", "/v1/classify"),
)
CHECKS: Any = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def server(model: qa.AudioModel) -> Iterator[RunningServer]:
    running = launch_server(model, api_keys=[KEY], limits=ApiLimits(recording_seconds=20))
    running.wait_until_ready()
    yield running
    running.close()


def test_made_up_requests(server: RunningServer, tmp_path: Path) -> None:
    """Of all routes: valid, and not; without a key, and by other methods."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}openapi.json"]
    command += ["-H", f"Authorization: Bearer {KEY}", "--max-examples", "10", "--seed", "1"]
    # No text that is made up is a recording.
    command += ["--exclude-checks", "positive_data_acceptance", "--no-color", "--no-shrink"]
    command += ["--generation-database", "none", "--continue-on-failure"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tested: 12" in done.stdout


@pytest.mark.parametrize("path", ROUTES)
def test_made_up_options_of_recordings(server: RunningServer, path: str) -> None:
    """Requests of the schema, in which texts that should be recordings are some."""
    schema = schemathesis.openapi.from_url(f"{server.url}openapi.json")
    operation: Any = schema[path]["POST"]
    statuses: Counter[int] = Counter()

    @settings(max_examples=30, database=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(), st.data())
    def ask(case: Any, data: st.DataObject) -> None:
        case.body = with_recordings(case.body, data)
        statuses[case.call_and_validate(headers=HEADERS, checks=CHECKS).status_code] += 1

    ask()
    assert set(statuses) == {200, 400}, statuses


def with_recordings(value: Any, data: st.DataObject) -> Any:
    """The body of a request with the model's name, recordings, and at times fewer options."""
    body = copy.deepcopy(value)
    body["model"] = "embedded"
    recording = st.sampled_from([BASE64[0], URLS[1], "AAAA"])
    for message in body.get("messages", []):
        parts = message["content"] if isinstance(message["content"], list) else []
        for part in parts:
            for name, key in (("input_audio", "data"), ("audio_url", "url")):
                if name in part:
                    part[name][key] = data.draw(recording)
    if "messages" in body and data.draw(st.booleans()):
        body["messages"] = [user(URLS[0])]
    if "input" in body:
        body["input"] = data.draw(recording)
    if "taps" in body:
        body["taps"] = data.draw(st.lists(st.sampled_from(["mel", "encoder.1", "lm.1", "lm.9"])))
    for name, values in REQUIRED.items():
        if name in body:
            body[name] = data.draw(values)
    for name, values in OPTIONS.items():
        if name in body:
            del body[name]
            if data.draw(st.integers(0, 3)) == 0:
                body[name] = data.draw(values)
    if "stream_options" in body:
        body["stream"] = True
    return body


REQUIRED: dict[str, st.SearchStrategy[Any]] = {
    "choices": st.sampled_from([["A piano.", "A flute."], ["A", "A piano"], ["A", "A"], []]),
    "classes": st.sampled_from([["piano", "flute"], {"keys": ["A piano.", "An organ."]}, {}]),
}
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": st.integers(0, 3),
    "max_completion_tokens": st.integers(0, 3),
    "generate": st.integers(-1, 2),
    "window_seconds": st.floats(-1, 2),
    "hop_seconds": st.floats(-1, 2),
    "tap": st.sampled_from(["mel", "encoder.1", "lm.1", "lm.9"]),
    "temperature": st.floats(-1, 5),
    "prior": st.sampled_from([None, "none", "batch", [0.5, 0.5], [2]]),
    "over_windows": st.sampled_from(["mean", "sum", "most"]),
    "top_p": st.floats(-1, 2),
    "seed": st.integers(-(2**53), 2**53),
}


def read(server: RunningServer, path: str) -> bytes:
    request = urllib.request.Request(f"{server.url}{path}", headers=HEADERS)
    with urllib.request.urlopen(request, timeout=20) as response:
        return bytes(response.read())


def strictly(model: type[BaseModel], data: bytes | str) -> None:
    """Raises unless a response is of this form, and has no other fields."""
    model.model_validate_json(data, strict=True, extra="forbid")


@pytest.mark.parametrize("options", [{}, {"window_seconds": 0.2}, {"stop": "a", "temperature": 1}])
def test_answers_have_no_other_fields(server: RunningServer, options: dict[str, Any]) -> None:
    body = {"model": "embedded", "messages": [user(URLS[0])], "max_tokens": 5, **options}
    status, _, data = post(server, "v1/chat/completions", body)
    assert status == 200
    strictly(response_schemas.ChatCompletion, data)
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    _, headers, data = post(server, "v1/chat/completions", body)
    assert headers["content-type"].startswith("text/event-stream")
    *events, done = data.decode().strip().split("\n\n")
    assert done == "data: [DONE]"
    for event in events:
        strictly(response_schemas.ChatCompletionChunk, event.removeprefix("data: "))


def test_vectors_have_no_other_fields(server: RunningServer) -> None:
    for options in ({}, {"encoding_format": "base64", "tap": "lm.1", "prompt": "?"}):
        _, _, data = post(server, "v1/embeddings", {"model": "embedded", "input": URLS, **options})
        strictly(response_schemas.EmbeddingsResponse, data)


def test_errors_have_no_other_fields(server: RunningServer) -> None:
    for path, body in (("v1/embeddings", b"{"), ("v1/other", b"{}"), ("health", b"{}")):
        status, headers, data = post(server, path, body)
        assert status == {"v1/embeddings": 400, "v1/other": 404, "health": 405}[path]
        assert ("allow" in headers) == (status == 405)
        strictly(response_schemas.ErrorResponseBody, data)


def test_every_route_is_described(server: RunningServer) -> None:
    for path, model in (
        ("v1/models", response_schemas.ModelList),
        ("v1/models/embedded", response_schemas.ModelCard),
        ("health", response_schemas.Health),
        ("ready", response_schemas.Readiness),
    ):
        strictly(model, read(server, path))
    schema = json.loads(read(server, "openapi.json"))
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            assert operation["description"]
            assert ("security" in operation) == (path not in ("/health", "/ready"))
            for status, response in operation["responses"].items():
                assert response["description"]
                assert response["content"], (path, status)
