"""`POST /v1/chat/completions`: answers about recordings, whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from qwen_audio.inference.token_probability import TokenProbability

from .api_errors import ParameterError, error_response
from .jobs import TextJob, TextPiece, TextResult
from .logprobs import logprobs_of, top_count_of
from .question import OrderedText, Question, recordings_of, sampling_of, stop_texts_of
from .response_schemas import ChatCompletion, ChatCompletionChunk, ErrorResponseBody
from .schemas import ChatRequest
from .service import Service, schema_of

__all__ = ["chat_router"]

_CHUNK = "chat.completion.chunk"
_DATA = {
    "type": "string",
    "contentMediaType": "application/json",
    "contentSchema": {
        "anyOf": [
            {"$ref": f"#/components/schemas/{model.__name__}"}
            for model in (ChatCompletionChunk, ErrorResponseBody)
        ]
    },
}
_EVENTS = {
    "type": "object",
    "properties": {"data": {"anyOf": [_DATA, {"const": "[DONE]"}]}},
    "required": ["data"],
}
"""A stream, as OpenAPI describes each of its events."""
_Event = tuple[int, TextPiece]
"""Of a window's text."""


def chat_router(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.post(
        "/v1/chat/completions",
        openapi_extra=schema_of(ChatRequest),
        responses={
            200: {"model": ChatCompletion, "content": {"text/event-stream": {"schema": _EVENTS}}}
        },
    )
    async def chat_completions(request: Request) -> Response:
        """Answer a conversation about recordings, in OpenAI's form."""
        body = service.parsed(request, ChatRequest)
        if body.stream_options is not None and not body.stream:
            raise ParameterError(
                400,
                "stream_options has no effect without stream: leave it out.",
                "stream_options",
                "invalid_value",
            )
        completion = _Completion(service, body)
        texts = dict(recordings_of(body))
        async with service.uploads(request, texts) as completion.question.uploads:
            return await completion.response(request)

    return router


class _Completion:
    """One request, from its conversation to the response."""

    def __init__(self, service: Service, body: ChatRequest) -> None:
        service.check_language_model()
        self._service = service
        self.question = Question(body, service.model.pipeline)
        self._sampling = sampling_of(body, service.limits)
        self._stops = stop_texts_of(body)
        self._top_count = top_count_of(body)
        self._streams = bool(body.stream)
        self._includes_usage = body.stream_options is not None and body.stream_options.include_usage
        self._base = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": service.model_id,
        }

    async def response(self, request: Request) -> Response:
        """Run it. What goes wrong before the first token is the status of a stream, too."""
        if not self._streams:
            whole = self._job(None)
            results = await self._service.result(request, whole)
            return JSONResponse(self._whole(whole, results))
        loop, events = asyncio.get_running_loop(), asyncio.Queue[_Event | None]()

        def put(event: _Event | None) -> None:
            with suppress(RuntimeError):  # the server has stopped
                loop.call_soon_threadsafe(events.put_nowait, event)

        job = self._job(lambda number, piece: put((number, piece)))
        job.future.add_done_callback(lambda _: put(None))
        self._service.submit(job)
        try:
            first = asyncio.ensure_future(events.get())
            event = await self._service.until_disconnected(request, first)
            if event is None:
                job.future.result(0)  # raises the error
        except BaseException:
            job.future.cancel()
            raise
        return StreamingResponse(self._chunks(job, events, event), media_type="text/event-stream")

    def _job(self, emit: Callable[[int, TextPiece], None] | None) -> TextJob:
        read = partial(self.question.read, self._service.reader)
        return TextJob(read, self._sampling, self._stops, emit, self._top_count)

    async def _chunks(
        self, job: TextJob, events: asyncio.Queue[_Event | None], event: _Event | None
    ) -> AsyncIterator[str]:
        """The events of a stream. When the client goes away, the job is cancelled."""
        ordered = OrderedText(self.question)
        # Of every token's event all but the text is the same: this takes half of the time.
        place = secrets.token_hex(8)
        before, _, after = self._chunk({"content": place}).partition(f'"{place}"')
        try:
            yield self._chunk({"role": "assistant", "content": ""})
            while event is not None:
                text = ordered.add(*event)
                if text and self._top_count is not None:
                    yield self._chunk({"content": text}, tokens=ordered)
                elif text:
                    yield f"{before}{json.dumps(text, ensure_ascii=False)}{after}"
                event = await events.get()
            if (error := job.future.exception(0)) is not None:
                yield _sent(error_response(error).body)
                return
            results = job.future.result(0)
            if ordered.tokens:  # of whitespace at the end, or of a stop text
                yield self._chunk({"content": ""}, tokens=ordered)
            answers = self.question.answers(results)
            details = {"answers": answers, "notes": self.question.notes}
            yield self._chunk({}, self._count(job, results), details)
            if self._includes_usage:
                usage = _usage(answers, results)
                yield _sent({**self._base, "object": _CHUNK, "choices": [], "usage": usage})
            yield "data: [DONE]\n\n"
        finally:
            job.future.cancel()

    def _chunk(
        self,
        delta: dict[str, str],
        reason: str | None = None,
        details: Any = None,
        tokens: OrderedText | None = None,
    ) -> str:
        """An event; with the tokens that are in none before."""
        logprobs = None
        if tokens is not None:
            logprobs = self._logprobs(tokens.tokens)
            tokens.tokens = []
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": None} if self._includes_usage else {}
        return _sent(
            {**self._base, "object": _CHUNK, "choices": [choice], **usage, **(details or {})}
        )

    def _logprobs(self, tokens: Sequence[TokenProbability]) -> dict[str, Any] | None:
        if self._top_count is None:
            return None
        return logprobs_of(self._service.model.pipeline.tokenizer, tokens)

    def _whole(self, job: TextJob, results: Sequence[TextResult]) -> dict[str, Any]:
        ordered = OrderedText(self.question)
        content = ""
        for number, result in enumerate(results):
            content += ordered.add(number, result.text) + ordered.add(number, None)
        answers = self.question.answers(results)
        tokens = [each for result in results for each in result.probabilities]
        return {
            **self._base,
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": content, "refusal": None},
                    "logprobs": self._logprobs(tokens),
                    "finish_reason": self._count(job, results),
                }
            ],
            "usage": _usage(answers, results),
            "answers": answers,
            "notes": self.question.notes,
        }

    def _count(self, job: TextJob, results: Sequence[TextResult]) -> str:
        """Count the texts; returns why they ended: "length" if any was cut off."""
        is_whole = all(result.ended_by in ("stop token", "stop text") for result in results)
        reason = "stop" if is_whole else "length"
        self._service.metrics.add_texts(job, results, reason)
        return reason


def _usage(answers: Sequence[dict[str, Any]], results: Sequence[TextResult]) -> dict[str, Any]:
    audio = sum(answer["audio_tokens"] for answer in answers)  # without padding
    prompt = sum(result.prompt_tokens + result.audio_tokens for result in results)
    generated = sum(len(result.token_ids) for result in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"audio_tokens": audio, "cached_tokens": 0},
    }


def _sent(data: dict[str, Any]) -> str:
    """As an event of a stream."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
