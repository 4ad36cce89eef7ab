"""Transcriptions over HTTP, with OpenAI's own client: answers to the prompt that asks for them."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import openai
import pytest

import qwen_audio as qa
from families import CASES
from qwen_audio.models.families.qwen3_asr import Qwen3ASR
from qwen_audio.serve.launch import RunningServer, launch_server
from qwen_audio.serve.limits import ApiLimits
from qwen_audio.serve.transcription_route import spoken_text
from recordings import sound, write_wav

pytestmark = pytest.mark.slow

PROMPT = "What is said?"
CLIP = write_wav(sound(1.1, 16_000, seed=1), 16_000)
LIMITS = ApiLimits(recording_seconds=5, request_bytes=2**20)


@pytest.fixture(scope="module")
def model() -> qa.AudioModel:
    """Used by tests only while the server has nothing to do."""
    return qa.load(dtype="float32")


@pytest.fixture(scope="module")
def server(model: qa.AudioModel) -> Iterator[RunningServer]:
    running = launch_server(model, limits=LIMITS, transcribe_prompt=PROMPT)
    running.wait_until_ready()
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}v1", api_key="-", max_retries=0) as client:
        yield client


def transcribe(client: openai.OpenAI, model: str = "embedded", **options: Any) -> Any:
    options = {"file": ("a.wav", CLIP), **options}
    return client.audio.transcriptions.create(model=model, **options)


def test_formats(client: openai.OpenAI, model: qa.AudioModel) -> None:
    windows: dict[str, Any] = {"window_seconds": 0.5}
    expected = model.describe(CLIP, prompt=PROMPT, **windows)
    text = " ".join(answer.text for answer in expected.answers)
    options: dict[str, Any] = {"extra_body": windows}
    found = transcribe(client, **options)
    assert found.text == text
    assert found.model_extra["complete"]
    usage = found.usage.input_token_details
    assert usage.audio_tokens == sum(answer.audio_tokens for answer in expected.answers)
    assert transcribe(client, response_format="text", **options) == f"{text}\n"
    verbose = transcribe(client, response_format="verbose_json", temperature=0, **options)
    assert (verbose.text, verbose.duration, verbose.language) == (text, 1.1, None)
    for segment, answer in zip(verbose.segments, expected.answers, strict=True):
        assert (segment.start, segment.end) == (answer.start_seconds, answer.end_seconds)
        assert segment.text == answer.text
        assert segment.tokens == list(answer.token_ids)
        assert -5 < segment.avg_logprob < 0


@pytest.mark.parametrize(
    ("options", "param", "text"),
    [
        ({"language": "en"}, "language", "not a parameter"),
        ({"prompt": "names"}, "prompt", "takes no words that may occur"),
        ({"response_format": "srt"}, "response_format", "'verbose_json'"),
        ({"temperature": -1}, "temperature", "0 (greedy) or more"),
        ({"extra_body": {"temperature": "hot"}}, "temperature", "valid number"),
        ({"stream": True}, "stream", "sent whole"),
        ({"file": ("a.wav", b"")}, "file", "is empty"),
        ({"file": ("a.wav", b"RIFF")}, "file", "can't be decoded"),
    ],
)
def test_what_it_cannot_do(
    client: openai.OpenAI, options: dict[str, Any], param: str, text: str
) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        transcribe(client, **options)
    assert bad.value.param == param
    assert text in bad.value.message


def test_limits(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="use 'embedded'"):
        transcribe(client, "whisper-1")
    for clip in (write_wav(sound(6, 8_000, seed=1), 8_000), bytes(2**20)):
        with pytest.raises(openai.APIStatusError) as large:
            transcribe(client, file=("a.wav", clip))
        assert large.value.status_code == 413


def form(*parts: bytes, end: bytes = b"--x--\r\n") -> bytes:
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + end


def disposition(name: str, content: bytes, more: bytes = b"") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"\r\n'.encode()
    return head + more + b"\r\n" + content


MODEL = disposition("model", b"embedded")


@pytest.mark.parametrize(
    ("body", "media_type", "status", "text"),
    [
        (form(MODEL), "multipart/form-data; boundary=x", 400, "field required"),
        (form(MODEL, MODEL), "multipart/form-data; boundary=x", 400, "twice"),
        (form(MODEL, end=b""), "multipart/form-data; boundary=x", 400, "incomplete"),
        (form(disposition("file", b"abc")), "multipart/form-data; boundary=x", 400, "model"),
        (form(disposition("model", b"\xff")), "multipart/form-data; boundary=x", 400, "UTF-8"),
        (form(*[MODEL] * 40), "multipart/form-data; boundary=x", 400, "twice"),
        (
            form(*(disposition(f"f{n}", b"") for n in range(40))),
            "multipart/form-data; boundary=x",
            400,
            "more than 32",
        ),
        (
            form(disposition("a", b"", b"X-Y: " + b"z" * 5_000 + b"\r\n")),
            "multipart/form-data; boundary=x",
            400,
            "too long|valid form",
        ),
        (
            form(disposition("a", b"", b"Content-Transfer-Encoding: base64\r\n")),
            "multipart/form-data; boundary=x",
            400,
            "is encoded",
        ),
        (form(b"X: y\r\n\r\nz"), "multipart/form-data; boundary=x", 400, "no name"),
        (b"nothing", "multipart/form-data; boundary=x", 400, "valid form"),
        (b"", "multipart/form-data; boundary=x", 400, "incomplete"),
        (form(MODEL), "multipart/form-data", 415, "boundary"),
        (b"{}", "application/json", 415, "multipart/form-data"),
    ],
)
def test_forms(server: RunningServer, body: bytes, media_type: str, status: int, text: str) -> None:
    request = urllib.request.Request(
        f"{server.url}v1/audio/transcriptions", body, {"Content-Type": media_type}
    )
    with pytest.raises(HTTPError) as error:
        urllib.request.urlopen(request, timeout=20)
    with error.value:
        assert error.value.code == status
        message = json.load(error.value)["error"]["message"]
    assert any(each in message for each in text.split("|"))
    assert "\n" not in message


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("language English<asr_text>Good day.", ("Good day.", "english")),
        ("language None<asr_text>", ("", None)),
        ("Good day.", ("Good day.", None)),
    ],
)
def test_the_language_that_a_model_says(answer: str, expected: tuple[str, str | None]) -> None:
    assert spoken_text(answer, Qwen3ASR.prompt_format.language_end) == expected
    assert spoken_text(answer, "") == (answer, None)


def test_models_that_transcribe_and_others(model: qa.AudioModel, tmp_path: Path) -> None:
    CASES["qwen3_asr"].write(tmp_path / "asr")
    asr = qa.load(tmp_path / "asr", dtype="float32")
    for served, transcribes in ((model, False), (asr, True)):
        running = launch_server(served, limits=ApiLimits(new_tokens=12))
        try:
            running.wait_until_ready()
            with openai.OpenAI(base_url=f"{running.url}v1", api_key="-", max_retries=0) as client:
                (listed,) = client.models.list().data
                assert (listed.model_extra or {})["transcribes"] == transcribes
                if not transcribes:
                    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
                        transcribe(client)
                    continue
                prompts: list[dict[str, Any]] = [{}, {"prompt": "Ada, Grace"}]
                for prompt in prompts:
                    expected = asr.describe(CLIP, max_new_tokens=12, **prompt)
                    found = transcribe(client, listed.id, **prompt)
                    assert found.text == expected
                    assert found.model_extra["complete"] == expected.answers[0].complete
        finally:
            running.close()
