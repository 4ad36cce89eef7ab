"""What all routes of the HTTP API share: the model and its engine, limits, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request

from qwen_audio.api.model import AudioModel
from qwen_audio.errors import OptionError
from qwen_audio.paths import printable

from .api_errors import ParameterError
from .asgi import ClientDisconnectedError
from .audio_data import decoded_upload
from .engine import Engine
from .gate import BODY_KEY
from .jobs import Job
from .limits import ApiLimits
from .media import MediaFetcher
from .metrics import Metrics
from .recordings import RecordingReader, Upload
from .schemas import RequestT, validated

__all__ = ["Service", "schema_of"]

T = TypeVar("T")


class Service:
    """One model, served.

    Args:
        media_hosts: see `MediaFetcher`.

    Attributes:
        model_id: the model's name for clients; of a local folder only its last part.
        default_prompt: of captions; None for a model that generates no text.
        transcription_prompt: what asks for a transcription; None where the model isn't made for it.
        takes_context: whether requests for transcriptions may have a prompt of their own: words
            that may occur.

    Args:
        transcribe_prompt: in place of the family's `transcription_prompt`.
    """

    def __init__(
        self,
        model: AudioModel,
        engine: Engine,
        limits: ApiLimits,
        media_hosts: Iterable[str] = (),
        *,
        transcribe_prompt: str | None = None,
    ) -> None:
        self.model, self.engine, self.limits = model, engine, limits
        self.reader = RecordingReader(model.pipeline, limits)
        self._media = MediaFetcher(media_hosts, limits)
        self.metrics = Metrics(engine)
        name = model.name
        self.model_id = printable(Path(name).resolve().name if Path(name).is_dir() else name)
        has_text = model.dimensions.has_language_model
        form = model.pipeline.tokenizer.format if has_text else None
        self.default_prompt = None if form is None else form.default_prompt
        self.transcription_prompt = None if form is None else form.transcription_prompt
        self.takes_context = form is not None and form.is_context and transcribe_prompt is None
        if transcribe_prompt is not None:
            self.check_language_model()
            model.pipeline.tokenizer.render(transcribe_prompt)  # raises for one that is empty
            self.transcription_prompt = transcribe_prompt
        self._threads = ThreadPoolExecutor(2, "results")

    def parsed(self, request: Request, schema: type[RequestT]) -> RequestT:
        """The body of a request.

        Raises:
            ParameterError: (400) for a body that isn't of this form; (404) for another model.
        """
        body = validated(schema, request.scope.get(BODY_KEY))
        self.check_model(body.model)
        return body

    def check_model(self, name: str) -> None:
        """Raises ParameterError (404) for any name but the model's."""
        if name != self.model_id:
            raise ParameterError(
                404,
                f"There is no model {name!r:.80} here: use {self.model_id!r}.",
                "model",
                "model_not_found",
            )

    def check_language_model(self) -> None:
        """Raises OptionError for a model that generates no text."""
        if not self.model.dimensions.has_language_model:
            raise OptionError(f"{self.model_id} has no language model: use /v1/embeddings")

    @asynccontextmanager
    async def uploads(
        self, request: Request, texts: Mapping[str, str]
    ) -> AsyncIterator[list[Upload]]:
        """The recordings of a request, decoded from base64, or fetched from their addresses.

        The memory of those that are fetched is counted until the context ends.

        Args:
            texts: JSON path → what the request says there.

        Raises:
            ParameterError: if there are too many, or one can't be used.
            BusyError, RequestError: see `MediaFetcher`.
            ClientDisconnectedError: if the client goes away.
        """
        if len(texts) > self.limits.inputs:
            param = next(iter(texts)).partition("[")[0]
            message = f"{param}: {len(texts)} recordings: send at most {self.limits.inputs}."
            raise ParameterError(400, message, param, "too_many_recordings")
        with self._media.download(texts) as download:
            if download.urls:
                fetching = asyncio.ensure_future(self._media.run(download))
                await self.until_disconnected(request, fetching)
            yield await self.in_thread(
                lambda: [decoded_upload(*item, download.files) for item in texts.items()]
            )

    async def in_thread(self, work: Callable[[], T]) -> T:
        """The result of work that takes more than some milliseconds, not done in the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def submit(self, job: Job[Any]) -> None:
        """Queue a job, whose end is counted.

        Raises:
            BusyError, NotReadyError: if it isn't accepted.
        """
        self.engine.submit(job)
        job.future.add_done_callback(lambda _: self.metrics.add_job(job))

    async def result(self, request: Request, job: Job[T]) -> T:
        """Run a job; it is cancelled when the client goes away.

        Raises:
            ClientDisconnectedError: if it does.
            QwenAudioError: if the job isn't accepted, or fails.
        """
        self.submit(job)
        return await self.until_disconnected(request, asyncio.wrap_future(job.future))

    @staticmethod
    async def until_disconnected(request: Request, awaited: asyncio.Future[T]) -> T:
        """What is awaited, unless the client goes away before; then it is cancelled.

        Raises:
            ClientDisconnectedError: if it does.
        """
        # The body has been received: all that can follow is the end of the connection.
        gone = asyncio.ensure_future(request.receive())
        try:
            waiting: set[asyncio.Future[Any]] = {awaited, gone}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not awaited.done():
                raise ClientDisconnectedError("the client disconnected")
            return awaited.result()
        finally:
            awaited.cancel()
            gone.cancel()

    def close(self) -> None:
        """End the threads."""
        self._media.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


def schema_of(model: type[RequestT], media_type: str = "application/json") -> dict[str, object]:
    """A body's schema, for a route's `openapi_extra`."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {media_type: {"schema": reference}}
    return {"requestBody": {"required": True, "content": content}}
