"""`POST /v1/embeddings`: vectors of recordings."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from qwen_audio.api.embeddings import Embeddings
from qwen_audio.api.recording_embeddings import recording_embeddings
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.pooling import Pooling
from qwen_audio.inference.reader import CapturedRecording

from .audio_data import recording_texts
from .recordings import Recording, Upload
from .response_schemas import EmbeddingsResponse
from .schemas import EmbeddingsRequest
from .service import Service, schema_of
from .window_jobs import CaptureJob

__all__ = ["embedding_router", "recording_vectors"]


@cache
def _reducer(pooling: Pooling) -> Any:
    """The same object for equal poolings: jobs whose reducers are equal share passes."""
    return pooling.pool_window


def embedding_router(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.post(
        "/v1/embeddings",
        openapi_extra=schema_of(EmbeddingsRequest),
        responses={200: {"model": EmbeddingsResponse}},
    )
    async def embeddings(request: Request) -> Response:
        """A vector for every recording: the rows of a tap, pooled."""
        body = service.parsed(request, EmbeddingsRequest)
        return await _embeddings(service, request, body)

    return router


async def recording_vectors(
    service: Service, request: Request, uploads: list[Upload], spec: EmbeddingSpec
) -> tuple[CaptureJob, list[CapturedRecording[Any]], Callable[[], list[Embeddings]]]:
    """A vector for every recording, as `AudioModel.encode` makes it with the settings of a spec.

    Args:
        uploads: emptied, so that the bytes of files are freed once they have been decoded.

    Returns:
        The job, which has ended; what was captured of each recording; and what makes its vectors,
        to be called in a thread.
    """
    model, options = service.model, spec.options
    pool = Pooling(options["pooling"], options["span"])
    tap = model.dimensions.tap(spec.tap)
    config = model.pipeline.window_config(spec.window_seconds, spec.hop_seconds)

    def read() -> list[Recording]:
        recordings = service.reader.read(uploads, config)
        uploads.clear()
        return recordings

    job = CaptureJob(read, (tap,), _reducer(pool), spec.prompt)
    captured = await service.result(request, job)

    def finished() -> list[Embeddings]:
        times = model.pipeline.row_times
        vectors: list[Any] = [
            recording_embeddings(each, pool, spec, tap, times, "recording", lambda _: ())
            for each in captured
        ]
        return vectors

    return job, captured, finished


async def _embeddings(service: Service, request: Request, body: EmbeddingsRequest) -> Response:
    spec = service.model.spec(  # checks all options
        body.tap,
        pooling=body.pooling,
        span=body.span,
        prompt=body.prompt,
        **body.window_options,
    )
    async with service.uploads(request, recording_texts(body.input)) as uploads:
        job, captured, vectors = await recording_vectors(service, request, uploads, spec)

    def finished() -> dict[str, Any]:
        tokens = _tokens(service, job, captured)
        return {
            "object": "list",
            "model": service.model_id,
            "data": [
                _embedding(number, vector, each, body.encoding_format == "base64")
                for number, (vector, each) in enumerate(zip(vectors(), captured, strict=True))
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "spec": spec.settings,
            "fingerprint": spec.fingerprint,
        }

    return JSONResponse(await service.in_thread(finished))


def _embedding(
    number: int, vector: Embeddings, captured: CapturedRecording[Any], is_base64: bool
) -> dict[str, Any]:
    row = np.asarray(vector, "<f4")
    return {
        "object": "embedding",
        "index": number,
        "embedding": base64.b64encode(row.tobytes()).decode() if is_base64 else row.tolist(),
        "start_seconds": captured.windows[0].start_seconds,
        "end_seconds": captured.windows[-1].end_seconds,
        "notes": captured.recording.notes,
    }


def _tokens(service: Service, job: CaptureJob, captured: Sequence[CapturedRecording[Any]]) -> int:
    """Positions that the language model was given; where no tap is in it, those of the audio."""
    if job.prompt_text is not None:
        return sum(len(ids) for each in captured for ids in each.token_ids)
    family = service.model.pipeline.checkpoint.family
    windows = [window for recording in job.recordings for window in recording.windows]
    return sum(family.audio_tokens(family.mel_frames(len(each.samples))) for each in windows)
