"""The HTTP API, with OpenAI's own client: the answers and vectors of the model's methods."""

from __future__ import annotations

import base64
import io
import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
import soundfile

import qwen_audio as qa
from api_requests import (
    BASE64,
    CLIPS,
    KEY,
    URLS,
    post,
    request_without_reading,
    user,
    wait_for,
)
from qwen_audio.api.vector_reader import read_vectors
from qwen_audio.serve.launch import RunningServer, launch_server
from qwen_audio.serve.limits import ApiLimits
from recordings import sound, write_wav

pytestmark = pytest.mark.slow

LONG = write_wav(sound(30.5, 8_000, seed=1), 8_000)
QUESTION = "Which instruments are there?"
LIMITS = ApiLimits(
    recording_seconds=100, request_bytes=4 * 2**20, new_tokens=600, inputs=5, slots=4
)


@pytest.fixture(scope="module")
def server(model: qa.AudioModel) -> Iterator[RunningServer]:
    running = launch_server(model, api_keys=["another", KEY], limits=LIMITS)
    running.wait_until_ready()
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}v1", api_key=KEY, max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, *messages: Any, **options: Any) -> Any:
    return client.chat.completions.create(model="embedded", messages=list(messages), **options)


def error_of(server: RunningServer, body: Any, path: str = "v1/chat/completions") -> Any:
    status, _, data = post(server, path, body)
    return status, json.loads(data)["error"]


def test_an_answer_is_that_of_describe(client: openai.OpenAI, model: qa.AudioModel) -> None:
    expected = model.describe(CLIPS[1], prompt=QUESTION)
    (answer,) = expected.answers
    for recording in (BASE64[1], URLS[1]):
        for parts in ((QUESTION, recording), (recording, QUESTION)):
            completion = ask(client, user(*parts))
            (choice,) = completion.choices
            assert choice.message.content == expected
            assert choice.finish_reason == "stop"
            usage = completion.usage
            assert usage.prompt_tokens == answer.prompt_tokens + answer.audio_tokens
            assert usage.prompt_tokens_details.audio_tokens == answer.audio_tokens
            assert usage.completion_tokens == len(answer.token_ids)
    assert ask(client, user(URLS[1])).choices[0].message.content == model.describe(CLIPS[1])
    cut = ask(client, user(URLS[1], QUESTION), max_completion_tokens=3)
    assert cut.choices[0].finish_reason == "length"
    assert cut.choices[0].message.content == model.describe(
        CLIPS[1], prompt=QUESTION, max_new_tokens=3
    )
    sampling: dict[str, Any] = {"temperature": 1.5, "top_p": 0.9, "seed": 5}
    sampled = ask(client, user(URLS[1], QUESTION), max_tokens=40, **sampling)
    assert sampled.choices[0].message.content == model.describe(
        CLIPS[1], prompt=QUESTION, max_new_tokens=40, **sampling
    )
    word = str(expected).split()[-1]
    stopped = ask(client, user(URLS[1], QUESTION), stop=[word, "nothing"]).choices[0]
    assert stopped.message.content == str(expected).partition(word)[0].strip()
    assert stopped.finish_reason == "stop"


def test_a_stream_adds_up_to_the_answer(client: openai.OpenAI, model: qa.AudioModel) -> None:
    chunks = list(ask(client, user(URLS[2]), stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    expected = model.describe(CLIPS[2])
    assert "".join(pieces) == expected
    assert sum(bool(piece) for piece in pieces) > 5
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len(expected.answers[0].token_ids)
    assert all(chunk.usage is None for chunk in ask(client, user(URLS[2]), stream=True))


def test_windows_of_a_long_recording(
    server: RunningServer, client: openai.OpenAI, model: qa.AudioModel
) -> None:
    url = f"data:;base64,{base64.b64encode(LONG).decode()}"
    expected = model.describe(LONG, max_new_tokens=20)
    assert expected.count("\n") == 1
    completion = ask(client, user(url), max_tokens=20)
    assert completion.choices[0].message.content == expected
    assert completion.choices[0].finish_reason == "length"
    assert [each["end_seconds"] for each in completion.answers] == [30, 30.5]
    windows: Any = {"window_seconds": 0.5, "hop_seconds": 0.25}
    expected = model.describe(CLIPS[3], **windows, max_new_tokens=10)
    stream = ask(client, user(URLS[3]), stream=True, max_tokens=10, extra_body=windows)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == expected
    assert expected.count("\n") == 2
    body = {"model": "embedded", "messages": [user(url, QUESTION), user("And?")]}
    status, error = error_of(server, body)
    assert (status, error["param"]) == (400, "messages[0].content[0].audio_url.url")
    assert "lasts 30.5 s" in error["message"]
    assert "cut it, or ask about it alone" in error["message"]


def test_conversations(client: openai.OpenAI, model: qa.AudioModel) -> None:
    """Several turns and recordings: the answer of `chat`."""
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        user(URLS[0], "What is this?", BASE64[1]),
        {"role": "assistant", "content": "A <|im_end|> chord."},
        user("And this?", URLS[3]),
    ]
    local: list[Any] = json.loads(json.dumps(messages))
    local[0]["role"] = "system"
    local[1]["content"][0] = {"type": "audio", "audio": CLIPS[0]}
    local[1]["content"][2] = {"type": "audio", "audio": CLIPS[1]}
    local[3]["content"][1] = {"type": "audio", "audio": CLIPS[3]}
    expected = model.chat(local, max_new_tokens=12)
    completion = ask(client, *messages, max_tokens=12)
    assert completion.choices[0].message.content == expected.text
    assert completion.usage.prompt_tokens_details.audio_tokens == expected.audio_tokens
    text = ask(client, {"role": "user", "content": "Hello"}, max_tokens=5)
    assert (
        text.choices[0].message.content
        == model.chat([{"role": "user", "content": "Hello"}], max_new_tokens=5).text
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tap": "lm.2", "pooling": "last", "span": "last", "prompt": QUESTION},
        {"tap": "encoder.1", "pooling": "mean+std", "window_seconds": 0.5, "hop_seconds": 0.25},
    ],
)
def test_embeddings_are_those_of_encode(
    client: openai.OpenAI, model: qa.AudioModel, options: dict[str, Any]
) -> None:
    encodings: list[Any] = [{}, {"encoding_format": "float"}]  # the client's default is base64
    for encoding in encodings:
        found: Any = client.embeddings.create(
            model="embedded", input=URLS[1], **encoding, extra_body=options
        )
        vector = model.encode(CLIPS[1], **options)
        assert np.array_equal(np.float32(found.data[0].embedding), vector)
        assert found.fingerprint == vector.spec.fingerprint
        assert found.spec == vector.spec.settings
    several = client.embeddings.create(model="embedded", input=BASE64, extra_body=options)
    vectors = model.encode(CLIPS, **options)
    for item, vector in zip(several.data, vectors, strict=True):
        assert np.allclose(item.embedding, vector, rtol=1e-4, atol=1e-5)
    assert [item.index for item in several.data] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("accept", "suffix"),
    [
        ("*/*", "safetensors"),
        ("text/html, application/x-npz;q=0.5", "npz"),
        ("application/vnd.apache.arrow.file", "arrow"),
    ],
)
def test_activations(
    server: RunningServer, model: qa.AudioModel, tmp_path: Path, accept: str, suffix: str
) -> None:
    taps = ["mel", "encoder.2", "lm.-1"]
    body = {"model": "embedded", "input": URLS[1], "taps": taps, "generate": 3}
    status, headers, data = post(server, "v1/activations", body, accept=accept)
    assert status == 200
    assert headers["content-type"].endswith(suffix if suffix != "arrow" else "arrow.file")
    path = tmp_path / f"states.{suffix}"
    path.write_bytes(data)
    ((_, by_tap),) = read_vectors(path)
    expected = model.activations(CLIPS[1], taps=taps, generate=3)
    assert set(by_tap) == set(taps)
    for tap, states in expected.items():
        assert np.array_equal(by_tap[tap], states.data)
        assert by_tap[tap].spec == states.spec
        for name in ("start_seconds", "end_seconds", "span", "window"):
            found, there = getattr(by_tap[tap].index, name), getattr(states.index, name)
            assert np.array_equal(found, there, equal_nan=name.endswith("seconds"))
    token = by_tap["lm.-1"].index.token
    assert token is not None
    assert tuple(token) == expected["lm.-1"].tokens


def test_many_clients_at_the_same_time(client: openai.OpenAI, model: qa.AudioModel) -> None:
    expected = [model.describe(data, max_new_tokens=12) for data in CLIPS]
    vectors = [model.encode(data) for data in CLIPS]

    def request(number: int) -> Any:
        if number % 3 == 2:
            return client.embeddings.create(model="embedded", input=URLS[number % 4]).data[0]
        return ask(client, user(URLS[number % 4]), max_tokens=12).choices[0].message

    with ThreadPoolExecutor(12) as threads:
        results = list(threads.map(request, range(15)))
    for number, result in enumerate(results):
        if number % 3 == 2:
            assert np.allclose(result.embedding, vectors[number % 4], rtol=1e-4, atol=1e-5)
        else:
            assert result.content == expected[number % 4]


def test_a_client_that_goes_away_frees_its_slot(
    server: RunningServer, client: openai.OpenAI
) -> None:
    engine = server._engine
    wait_for(lambda: engine.running + engine.waiting == 0)
    random: dict[str, Any] = {"temperature": 50.0, "seed": 3, "max_tokens": 600}
    stream = ask(client, user(URLS[0]), stream=True, **random)
    next(iter(stream))
    assert engine.running == 1
    stream.close()
    wait_for(lambda: engine.running == 0, 1)
    body = {"model": "embedded", "messages": [user(URLS[0])], **random}
    with closing(request_without_reading(server, json.dumps(body).encode())):
        wait_for(lambda: engine.running == 1)
    wait_for(lambda: engine.running == 0, 1)
    metrics = read(server, "metrics", KEY)
    assert "qwen_audio:request_cancelled_total 2.0" in metrics


def read(server: RunningServer, path: str, key: str = "") -> str:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{server.url}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return str(response.read().decode())


def test_what_the_server_says_of_itself(server: RunningServer, client: openai.OpenAI) -> None:
    (listed,) = client.models.list().data
    assert listed.id == "embedded"
    assert client.models.retrieve("embedded") == listed
    taps: Any = listed.model_extra
    assert next(tap["name"] for tap in taps["taps"]) == "mel"
    with pytest.raises(openai.NotFoundError, match="There is no model 'other' here"):
        client.models.retrieve("other")
    for path in ("health", "ready", "docs"):
        assert read(server, path)
    schema = json.loads(read(server, "openapi.json"))
    assert "messages" in schema["components"]["schemas"]["ChatRequest"]["properties"]
    assert "//" not in read(server, "docs").replace("<!doctype", "")
    metrics = read(server, "metrics", KEY)
    for name in ("num_requests_running 0.0", "time_to_first_token_seconds_count", "audio_seconds"):
        assert f"qwen_audio:{name}" in metrics


def test_errors_have_the_types_of_the_client(server: RunningServer, client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.NotFoundError, match="use 'embedded'") as not_found:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "?"}])
    assert not_found.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        ask(client, user("What?", URLS[0]), frequency_penalty=1)
    assert (bad.value.param, bad.value.code) == ("frequency_penalty", "unsupported_parameter")
    with pytest.raises(openai.NotFoundError, match="no such route"):
        client.completions.create(model="embedded", prompt="?")
    for method in ("GET", "DELETE"):
        request = urllib.request.Request(
            f"{server.url}v1/embeddings", method=method, headers={"Authorization": f"Bearer {KEY}"}
        )
        with pytest.raises(HTTPError) as error, urllib.request.urlopen(request):
            pass
        assert error.value.code == 405
        error.value.close()


def chat(*messages: Any, **options: Any) -> dict[str, Any]:
    return {"model": "embedded", "messages": list(messages), **options}


BAD_REQUESTS: list[tuple[dict[str, Any] | bytes, int, str | None, str]] = [
    (b"{", 400, None, "not valid JSON"),
    (b"[]", 400, None, "body: input should be a valid dictionary"),
    ({"messages": []}, 400, "model", "field required"),
    (chat(), 400, "messages", "at least 1 item"),
    (chat({"role": "tool", "content": "x"}), 400, "messages[0].role", "'user'"),
    (chat({"role": "user", "content": []}), 400, None, "content that is not empty"),
    (chat(user("a"), {"role": "assistant", "content": "b"}), 400, None, "ends with"),
    (chat(user("a"), temperature="hot"), 400, "temperature", "valid number"),
    (chat(user("a"), temperature=-1), 400, "temperature", "use 0 (greedy) or more"),
    (chat(user("a"), top_p=0.5), 400, "top_p", "set both"),
    (chat(user("a"), max_tokens=0), 400, "max_tokens", "from 1"),
    (chat(user("a"), max_tokens=601), 400, "max_tokens", "at most 600"),
    (chat(user("a"), max_tokens=1, max_completion_tokens=2), 400, "max_tokens", "one of them"),
    (chat(user("a"), stop=["", "x"]), 400, "stop", "1 to 256 characters"),
    (chat(user("a"), stream_options={}), 400, "stream_options", "no effect"),
    (chat(user("a"), top_logprobs=2), 400, "top_logprobs", "no effect"),
    (chat(user("a"), logprobs=True, top_logprobs=21), 400, "top_logprobs", "less than or equal"),
    (chat(user("a"), logprobs=1), 400, "logprobs", "valid boolean"),
    (chat(user("a"), n=2), 400, "n", "input should be 1"),
    (chat(user("a"), tools=[]), 400, "tools", "not a parameter"),
    (chat(user("a"), window_seconds=5), 400, "window_seconds", "no effect"),
    (chat(user(URLS[0]), window_seconds=99), 400, "window_seconds", "0.04 to 30 s at once"),
    (chat(user(URLS[0], "<|AUDIO|> a")), 400, "messages[0].content", "own marker"),
    (
        chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
        400,
        "messages[0].content[0]",
        "image_url",
    ),
    (
        chat({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}),
        400,
        "messages[0].content[0].input_audio.data",
        "field required",
    ),
    (
        chat({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "?"}}]}),
        400,
        "messages[0].content[0].input_audio.data",
        "not base64",
    ),
    *(
        (
            chat({"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": url}}]}),
            400,
            "messages[0].content[0].audio_url.url",
            "doesn't fetch",
        )
        for url in (
            "http://169.254.169.254/latest/meta-data",
            "https://example.org/a.wav",
            "file:///etc/passwd",
            "data:audio/wav,abc",
        )
    ),
    (chat(user(*URLS, URLS[0], URLS[1])), 400, "messages", "6 recordings: send at most 5"),
]


@pytest.mark.parametrize(("body", "status", "param", "text"), BAD_REQUESTS)
def test_bad_requests(
    server: RunningServer, body: Any, status: int, param: str | None, text: str
) -> None:
    found, error = error_of(server, body)
    assert (found, error["param"]) == (status, param)
    assert text in error["message"]
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("path", "options", "param"),
    [
        ("v1/embeddings", {"input": []}, "input"),
        ("v1/embeddings", {"input": [URLS[0], 1]}, "input[1]"),
        ("v1/embeddings", {"input": [URLS[0], "data:;base64,AAAA"]}, "input[1]"),
        ("v1/embeddings", {"input": URLS[0], "tap": "lm.99"}, None),
        ("v1/embeddings", {"input": URLS[0], "pooling": "none"}, "pooling"),
        ("v1/embeddings", {"input": URLS[0], "span": "last"}, "span"),
        ("v1/embeddings", {"input": URLS[0], "prompt": "x"}, "prompt"),
        ("v1/embeddings", {"input": URLS[0], "dimensions": 5}, "dimensions"),
        ("v1/embeddings", {"input": [URLS[0]] * 6}, "input"),
        ("v1/activations", {"input": URLS[0], "taps": []}, "taps"),
        ("v1/activations", {"input": URLS[0], "taps": ["mel"], "generate": 2}, "generate"),
        ("v1/activations", {"input": URLS[0], "taps": ["mel"], "prompt": "x"}, "prompt"),
    ],
)
def test_bad_requests_of_vectors(
    server: RunningServer, path: str, options: dict[str, Any], param: str | None
) -> None:
    status, error = error_of(server, {"model": "embedded", **options}, path)
    assert (status, error["param"]) == (400, param)


def test_limits(server: RunningServer, model: qa.AudioModel) -> None:
    """Nothing that a recording says of itself is believed, and no body is read in full first."""
    flac = io.BytesIO()
    soundfile.write(flac, np.zeros(101 * 8_000), 8_000, format="FLAC")
    bomb = base64.b64encode(flac.getvalue()).decode()
    assert len(bomb) < 100_000
    body = {"model": "embedded", "input": bomb}
    status, error = error_of(server, body, "v1/embeddings")
    assert (status, error["param"], error["code"]) == (413, "input", "audio_too_large")
    assert "longer than 100 seconds, the limit of this server" in error["message"]
    forged = bytearray(CLIPS[0])
    forged[24:28] = (2**31 - 1).to_bytes(4, "little")  # the sampling rate
    forged[22:24] = (60_000).to_bytes(2, "little")  # channels
    body["input"] = base64.b64encode(forged).decode()
    assert error_of(server, body, "v1/embeddings")[0] in (400, 413)
    with closing(HTTPConnection(urlsplit(server.url).netloc, timeout=20)) as connection:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/embeddings", b" " * (4 * 2**20 + 1), headers)
        response = connection.getresponse()
        assert response.status == 413
        assert json.loads(response.read())["error"]["code"] == "too_large"
    status, _, data = post(server, "v1/embeddings", b"{}", content_type="text/plain")
    assert (status, json.loads(data)["error"]["code"]) == (415, "unsupported_media_type")
    status, _, data = post(server, "v1/activations", {}, origin="http://evil.example")
    assert (status, json.loads(data)["error"]["type"]) == (403, "permission_error")
    status, _, data = post(
        server,
        "v1/activations",
        {"model": "embedded", "input": URLS[0], "taps": ["mel"]},
        accept="text/html",
    )
    assert status == 406
    assert "qwen_audio" not in data.decode()
    assert post(server, "v1/embeddings", {"model": "embedded", "input": URLS[0]})[0] == 200


def test_a_full_queue_and_stopping(model: qa.AudioModel) -> None:
    running = launch_server(model, limits=ApiLimits(drain_seconds=20, queue_size=1, slots=1))
    running.wait_until_ready()
    engine = running._engine
    random: dict[str, Any] = {"temperature": 50.0, "seed": 3, "max_tokens": 300}
    with (
        openai.OpenAI(base_url=f"{running.url}v1", api_key="-", max_retries=0) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        stream = ask(client, user(URLS[0]), stream=True, **random)
        assert next(iter(stream)).choices
        waiting = threads.submit(ask, client, user(URLS[1]), max_tokens=3)
        wait_for(lambda: engine.waiting == 1)
        with pytest.raises(openai.RateLimitError, match=r"queues \(1\)") as busy:
            ask(client, user(URLS[0]))
        assert busy.value.response.headers["retry-after"] == "2"
        drained = threads.submit(running.drain)
        wait_for(lambda: not engine.is_ready)
        with pytest.raises(openai.InternalServerError, match="stopping") as refused:
            ask(client, user(URLS[0]))
        assert refused.value.response.headers["retry-after"] == "5"
        assert list(stream)[-1].choices[0].finish_reason in ("stop", "length")
        assert waiting.result().choices[0].message.content
        assert drained.result()
    running.close()


def test_who_may_use_it(model: qa.AudioModel) -> None:
    for host in ("0.0.0.0", "::", "203.0.113.1", "example.org"):
        with pytest.raises(qa.OptionError, match="can be reached by other machines"):
            launch_server(model, host=host)
    for key in ("", "two words", "é"):
        with pytest.raises(qa.OptionError, match=r"^api_keys= takes"):
            launch_server(model, api_keys=[key])
