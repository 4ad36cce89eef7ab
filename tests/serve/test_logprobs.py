"""Log-probabilities of answers' tokens over HTTP: those of the model's scores; and in streams."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

import qwen_audio as qa
from qwen_audio.serve.launch import RunningServer, launch_server
from recordings import sound, write_wav

pytestmark = pytest.mark.slow

CLIPS = [write_wav(sound(0.5 + 0.3 * seed, 16_000, seed=seed), 16_000) for seed in range(3)]
QUESTION = "Which instruments are there?"


@pytest.fixture(scope="module")
def model() -> qa.AudioModel:
    """Used by tests only while the server has nothing to do."""
    return qa.load(dtype="float32")


@pytest.fixture(scope="module")
def server(model: qa.AudioModel) -> Iterator[RunningServer]:
    running = launch_server(model)
    running.wait_until_ready()
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}v1", api_key="-", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, data: bytes, **options: Any) -> Any:
    url = f"data:audio/wav;base64,{base64.b64encode(data).decode()}"
    parts = [{"type": "audio_url", "audio_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    messages: Any = [{"role": "user", "content": parts}]
    return client.chat.completions.create(model="embedded", messages=messages, **options)


def content_of(completion: Any) -> Any:
    return completion.choices[0].logprobs.content


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.5, "top_p": 0.9, "seed": 2}])
def test_they_are_the_scores_of_the_tokens(
    client: openai.OpenAI, model: qa.AudioModel, sampling: dict[str, Any]
) -> None:
    """Whatever the sampling."""
    completion = ask(client, CLIPS[1], logprobs=True, top_logprobs=3, max_tokens=12, **sampling)
    (answer,) = completion.answers
    tokens = content_of(completion)
    assert "probabilities" not in answer
    pipeline = model.pipeline
    ids = [each for each in answer["token_ids"] if each not in pipeline.tokenizer.stop_token_ids()]
    assert [each.token for each in tokens] == [pipeline.tokenizer.decode_token(i) for i in ids]
    joined = b"".join(bytes(each.bytes) for each in tokens).decode()
    assert joined.strip() == completion.choices[0].message.content
    rows = pipeline.encode_audio([pipeline.log_mel(qa.load_waveform(CLIPS[1]).samples)])
    (scores,) = pipeline.score(pipeline.tokenizer.render(QUESTION), [rows], [tuple(ids)])
    (expected,) = scores.token_log_probabilities
    np.testing.assert_allclose([each.logprob for each in tokens], expected, rtol=1e-4, atol=1e-5)
    for each in tokens:
        best = [other.logprob for other in each.top_logprobs]
        assert len(best) == 3
        assert best == sorted(best, reverse=True)
        assert each.logprob <= best[0]
        same = [other for other in each.top_logprobs if other.token == each.token]
        assert same or each.logprob <= best[-1]
    assert any(each.token != each.top_logprobs[0].token for each in tokens) == bool(sampling)


def test_a_stream_has_them_with_the_text(client: openai.OpenAI) -> None:
    windows: Any = {"window_seconds": 0.5, "hop_seconds": 0.25}
    last_word = ask(client, CLIPS[2]).choices[0].message.content.split()[-1]
    for options in ({}, {"extra_body": windows, "max_tokens": 9}, {"stop": [last_word]}):
        asked: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, **options}
        whole = ask(client, CLIPS[2], **asked)
        chunks = list(ask(client, CLIPS[2], stream=True, **asked))
        choices = [chunk.choices[0] for chunk in chunks]
        text = "".join(choice.delta.content or "" for choice in choices)
        assert text == whole.choices[0].message.content
        streamed = [
            each for choice in choices if choice.logprobs for each in choice.logprobs.content
        ]
        assert [each.token for each in streamed] == [each.token for each in content_of(whole)]
        np.testing.assert_allclose(
            [each.logprob for each in streamed],
            [each.logprob for each in content_of(whole)],
            rtol=1e-4,
            atol=1e-5,
        )
        assert sum(bool(choice.logprobs) for choice in choices) > 2


def test_only_where_asked_for(client: openai.OpenAI) -> None:
    assert ask(client, CLIPS[0], max_tokens=2).choices[0].logprobs is None
    assert ask(client, CLIPS[0], max_tokens=2, logprobs=False).choices[0].logprobs is None
    (first, _) = content_of(ask(client, CLIPS[0], max_tokens=2, logprobs=True))
    assert first.top_logprobs == []
