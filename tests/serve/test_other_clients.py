"""Clients other than ours: curl, an audio example as vLLM's users have it, litellm."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from openai import OpenAI

import qwen_audio as qa
from api_requests import BASE64, CLIPS, KEY, URLS, user
from qwen_audio.serve.launch import RunningServer, launch_server
from recordings import encode, sound

pytestmark = pytest.mark.slow

QUESTION = "What is in this recording?"
OGG = encode(sound(0.8, 48_000, seed=7), 48_000, "opus")


class Files(SimpleHTTPRequestHandler):
    """Serves a folder, and says nothing."""

    def log_message(self, *_: Any) -> None:
        """Requests are expected."""


@pytest.fixture(scope="module")
def media_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a recording."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "clip.ogg").write_bytes(OGG)
    handler = partial(Files, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/clip.ogg"
        server.shutdown()


@pytest.fixture(scope="module")
def server(model: qa.AudioModel, media_url: str) -> Iterator[RunningServer]:
    authority = media_url.split("/")[2]
    running = launch_server(model, api_keys=[KEY], media_hosts=[authority])
    running.wait_until_ready()
    yield running
    running.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(server: RunningServer, model: qa.AudioModel, tmp_path: Path) -> None:
    """Answers, a stream, vectors, hidden states and an error."""

    def curl(path: str, body: Any, *options: str) -> bytes:
        command = ["curl", "--silent", "--show-error", f"{server.url}v1/{path}", "--data", "@-"]
        command += ["-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json"]
        data = json.dumps({"model": "embedded", **body}).encode()
        done = subprocess.run(
            [*command, *options], input=data, capture_output=True, timeout=60, check=True
        )
        assert done.stderr == b""
        return done.stdout

    expected = model.describe(CLIPS[0], prompt=QUESTION)
    asked: dict[str, Any] = {"messages": [user(QUESTION, BASE64[0])]}
    answer = json.loads(curl("chat/completions", asked))
    assert answer["choices"][0]["message"]["content"] == expected
    events = curl("chat/completions", {**asked, "stream": True}).decode().split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(pieces) == expected
    assert events[-2:] == ["data: [DONE]", ""]
    found = json.loads(curl("embeddings", {"input": BASE64[0]}))["data"][0]["embedding"]
    assert np.array_equal(np.float32(found), model.encode(CLIPS[0]))
    path = tmp_path / "states.npz"
    body = {"input": URLS[0], "taps": ["mel"]}
    curl("activations", body, "-H", "Accept: application/x-npz", "-o", str(path))
    with np.load(path) as states:
        assert any(array.shape[-1:] == (80,) for array in states.values())
    refused = curl("embeddings", {"input": "?"}, "--write-out", "%{http_code}")
    assert refused.endswith(b"400")
    assert json.loads(refused[:-3])["error"]["code"] == "invalid_base64"


def test_an_audio_chat_as_for_vllm(
    server: RunningServer, model: qa.AudioModel, media_url: str
) -> None:
    """A recording by address, as a data URL, and in OpenAI's form; then several."""
    client = OpenAI(api_key=KEY, base_url=f"{server.url}v1", max_retries=0)
    served = client.models.list().data[0].id
    encoded = base64.b64encode(OGG).decode()
    parts: list[Any] = [
        {"type": "audio_url", "audio_url": {"url": media_url}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/ogg;base64,{encoded}"}},
        {"type": "input_audio", "input_audio": {"data": encoded, "format": "ogg"}},
    ]
    expected = model.describe(OGG, prompt=QUESTION, max_new_tokens=64)
    for part in parts:
        completion = client.chat.completions.create(
            messages=[{"role": "user", "content": [{"type": "text", "text": QUESTION}, part]}],
            model=served,
            max_completion_tokens=64,
        )
        assert completion.choices[0].message.content == expected
    content: Any = [{"type": "text", "text": QUESTION}, *parts]
    several = client.chat.completions.create(
        messages=[{"role": "user", "content": content}], model=served, max_completion_tokens=8
    )
    local: list[Any] = [{"type": "audio", "audio": OGG}] * 3
    turn = {"role": "user", "content": [{"type": "text", "text": QUESTION}, *local]}
    assert several.choices[0].message.content == model.chat([turn], max_new_tokens=8).text
    vectors = client.embeddings.create(model=served, input=[media_url, encoded]).data
    assert np.array_equal(vectors[0].embedding, vectors[1].embedding)
    assert np.allclose(vectors[0].embedding, model.encode(OGG), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # its own, at import
def test_litellm(
    server: RunningServer, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a provider that has OpenAI's API."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no list of prices is fetched
    litellm = pytest.importorskip("litellm")
    options: dict[str, Any] = {
        "model": "openai/embedded",
        "api_base": f"{server.url}v1",
        "api_key": KEY,
        "num_retries": 0,
    }
    expected = model.describe(CLIPS[1], prompt=QUESTION, max_new_tokens=20)
    for recording in (BASE64[1], URLS[1]):
        asked = {"messages": [user(QUESTION, recording)], "max_tokens": 20, **options}
        assert litellm.completion(**asked).choices[0].message.content == expected
        chunks = litellm.completion(**asked, stream=True)
        assert "".join(each.choices[0].delta.content or "" for each in chunks) == expected
    found = litellm.embedding(input=[BASE64[1]], **options).data[0]["embedding"]
    assert np.array_equal(np.float32(found), model.encode(CLIPS[1]))
    with pytest.raises(litellm.NotFoundError, match="use 'embedded'"):
        litellm.completion(messages=[user("?")], **{**options, "model": "openai/other"})
