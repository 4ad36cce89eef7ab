"""`POST /v1/audio/transcriptions`: what is said in a recording, where the model transcribes."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from qwen_audio.api.window_answer import padding_tokens
from qwen_audio.audio.window import WINDOW_SECONDS, WindowConfig
from qwen_audio.inference.options import Sampling

from .api_errors import ParameterError
from .jobs import TextInput, TextJob, TextResult
from .recordings import Recording, Upload
from .result_schemas import TranscriptionResponse
from .schemas import TranscriptionRequest
from .service import Service, schema_of

__all__ = ["SpokenText", "spoken_text", "transcription_router"]

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": TranscriptionResponse, "content": {"text/plain": {}}}
}
_TOKENS_PER_SECOND = 16
"""Of the longest answer: fast speech has 5 words a second, and a word up to 3 tokens in scripts of
which vocabularies have little."""
_MIN_TOKENS = 64
"""For the shortest windows, and the language that some models begin with."""


def transcription_router(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter()
    schema = schema_of(TranscriptionRequest, "multipart/form-data")

    @router.post("/v1/audio/transcriptions", openapi_extra=schema, responses=_RESPONSES)
    async def transcriptions(request: Request) -> Response:
        """Transcribe a recording, in OpenAI's form."""
        if service.transcription_prompt is None:
            raise ParameterError(
                404,
                f"{service.model_id} isn't made to transcribe: ask what is said at "
                "/v1/chat/completions, or start the server with --transcribe-prompt.",
                None,
                "not_found",
            )
        body = service.parsed(request, TranscriptionRequest)
        transcription = _Transcription(service, body)
        results = await service.result(request, transcription.job)
        return transcription.response(results)

    return router


class SpokenText(NamedTuple):
    """An answer's text, and the language that the model says it is in."""

    text: str
    language: str | None


def spoken_text(answer: str, language_end: str) -> SpokenText:
    """What an answer transcribes.

    Args:
        language_end: see `PromptFormat`.
    """
    language, marker, text = answer.partition(language_end) if language_end else ("", "", "")
    if not marker:
        return SpokenText(answer, None)
    name = language.strip().removeprefix("language").strip().lower()
    return SpokenText(text.strip(), None if name in ("", "none") else name)


class _Transcription:
    """One request.

    Attributes:
        job: a text for each window.

    Raises:
        ParameterError, OptionError: for parameters that can't be used.
    """

    def __init__(self, service: Service, body: TranscriptionRequest) -> None:
        self._service, self._body = service, body
        pipeline = service.model.pipeline
        if body.stream:
            raise ParameterError(
                400,
                "stream: transcriptions are sent whole here: leave it out, or stream a chat.",
                "stream",
                "unsupported_parameter",
            )
        if body.prompt and not service.takes_context:
            raise ParameterError(
                400,
                f"prompt: {service.model_id} takes no words that may occur: leave it out.",
                "prompt",
                "unsupported_parameter",
            )
        if not body.file:
            raise ParameterError(400, "file is empty.", "file", "invalid_audio")
        seconds = WINDOW_SECONDS if body.window_seconds is None else body.window_seconds
        config = pipeline.window_config(seconds)
        prompt = body.prompt or service.transcription_prompt or None
        self._prompt_text = pipeline.tokenizer.render(prompt)
        tokens = _MIN_TOKENS + math.ceil(_TOKENS_PER_SECOND * config.window_seconds)
        seed = secrets.randbits(63) if body.temperature > 0 else None
        sampling = Sampling(
            min(tokens, service.limits.new_tokens), body.temperature, Sampling.top_p, seed
        )
        self._recordings: list[Recording] = []
        read = partial(self._read, [Upload("file", body.file)], config)
        self._body = body.model_copy(update={"file": b""})
        self.job = TextJob(read, sampling, top_count=0)

    def _read(self, uploads: list[Upload], config: WindowConfig) -> list[TextInput]:
        pipeline = self._service.model.pipeline
        # Before the engine's thread has to tokenise it.
        pipeline.lm.check_context(pipeline.tokenizer.text_tokens(self._prompt_text))
        self._recordings = self._service.reader.read(uploads, config)
        uploads.clear()
        windows = self._recordings[0].windows
        return [TextInput(self._prompt_text, (window,)) for window in windows]

    def response(self, results: Sequence[TextResult]) -> Response:
        """The response with the texts of all windows."""
        (recording,) = self._recordings
        is_complete = all(result.ended_by == "stop token" for result in results)
        self._service.metrics.add_texts(self.job, results, "stop" if is_complete else "length")
        language_end = self._service.model.pipeline.tokenizer.format.language_end
        spoken = [spoken_text(result.text, language_end) for result in results]
        text = " ".join(each.text for each in spoken if each.text)
        notes = recording.info.notes
        if self._body.response_format == "text":
            headers = {"complete": json.dumps(is_complete), "notes": json.dumps(notes)}
            return PlainTextResponse(f"{text}\n", headers=headers)
        answered: dict[str, Any] = {"text": text, "usage": self._usage(results)}
        if self._body.response_format == "verbose_json":
            languages = {each.language for each in spoken if each.text}
            answered |= {
                "task": "transcribe",
                "language": languages.pop() if len(languages) == 1 else None,
                "duration": recording.info.duration_seconds,
                "segments": [
                    self._segment(number, *each)
                    for number, each in enumerate(
                        zip(recording.windows, spoken, results, strict=True)
                    )
                ],
            }
        return JSONResponse({**answered, "complete": is_complete, "notes": notes})

    def _segment(
        self, number: int, sampled: Any, spoken: SpokenText, result: TextResult
    ) -> dict[str, Any]:
        values = [each.log_probability for each in result.probabilities]
        return {
            "id": number,
            "start": sampled.window.start_seconds,
            "end": sampled.window.end_seconds,
            "text": spoken.text,
            "tokens": result.token_ids,
            "temperature": self._body.temperature,
            "avg_logprob": math.fsum(values) / len(values) if values else None,
        }

    def _usage(self, results: Sequence[TextResult]) -> dict[str, Any]:
        windows = [sampled.window for sampled in self._recordings[0].windows]
        pipeline = self._service.model.pipeline
        padding = sum(padding_tokens(pipeline, window) for window in windows)
        audio = sum(result.audio_tokens for result in results)
        text = sum(result.prompt_tokens for result in results)
        generated = sum(len(result.token_ids) for result in results)
        return {
            "type": "tokens",
            "input_tokens": audio + text,
            "input_token_details": {"audio_tokens": audio - padding, "text_tokens": text},
            "output_tokens": generated,
            "total_tokens": audio + text + generated,
        }
