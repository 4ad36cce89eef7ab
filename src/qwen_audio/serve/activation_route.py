"""`POST /v1/activations`: the hidden states of a recording, as a file."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from qwen_audio.api.base import token_texts
from qwen_audio.api.embeddings import Embeddings
from qwen_audio.api.export import VectorFile
from qwen_audio.errors import OptionError, check_extra, whole_number_option
from qwen_audio.inference.hidden_states import HiddenStates, concatenate_windows
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.reducers import rows_and_segments
from qwen_audio.models.tap import Tap

from .api_errors import ParameterError
from .asgi import RequestError
from .recordings import Recording
from .schemas import ActivationsRequest
from .service import Service, schema_of
from .window_jobs import CaptureJob

__all__ = ["activation_router"]

_MAX_GENERATE = 256
_BYTES_AT_ONCE = 2**20
_FORMATS = {
    "application/vnd.safetensors": ".safetensors",
    "application/x-npz": ".npz",
    "application/vnd.apache.arrow.file": ".arrow",
}
"""Media types that a client may accept, the default first, and the files that they are."""


def activation_router(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.post(
        "/v1/activations",
        openapi_extra=schema_of(ActivationsRequest),
        response_class=StreamingResponse,
        responses={200: {"content": {name: {} for name in _FORMATS}}, 406: {}},
    )
    async def activations(request: Request) -> Response:
        """The hidden states of a recording at any taps, with the time and the span of each row."""
        body = service.parsed(request, ActivationsRequest)
        return await _activations(service, request, body)

    return router


async def _activations(service: Service, request: Request, body: ActivationsRequest) -> Response:
    media_type, suffix = _accepted(request)
    model, options = service.model, body.window_options
    taps = {name: model.dimensions.tap(name) for name in dict.fromkeys(body.taps)}
    count = whole_number_option("generate", body.generate, 0, _MAX_GENERATE)
    in_lm = any(tap.in_language_model for tap in taps.values())
    if count and not in_lm:
        raise OptionError(
            f"generate={count}, but no tap is in the language model, where generated tokens have "
            "states: add lm.K or lm.norm"
        )
    specs = {
        tap: model.spec(
            tap,
            pooling="none",
            span="all",
            prompt=body.prompt if tap.in_language_model or not in_lm else None,
            **options,
        )
        for tap in taps.values()
    }
    prompts = {spec.prompt for spec in specs.values()} - {None}
    config = model.pipeline.window_config(**options)
    async with service.uploads(request, {"input": body.input}) as uploads:

        def read() -> list[Recording]:
            recordings = service.reader.read(uploads, config)
            uploads.clear()
            _check_size(service, recordings, list(specs), count)
            return recordings

        job = CaptureJob(
            read,
            tuple(specs),
            rows_and_segments,
            next(iter(prompts), None),
            Sampling(count) if count else None,
        )
        (captured,) = await service.result(request, job)

    def finished() -> IO[bytes]:
        states = concatenate_windows(
            captured.windows,
            captured.outputs,
            specs,
            model.pipeline.row_times,
            name="input",
            tokens=tuple(
                text
                for ids in captured.token_ids
                if ids  # of a tap before the language model, which may not exist
                for text in token_texts(model.pipeline.tokenizer, ids)
            ),
        )
        return _file(suffix, {name: states[tap] for name, tap in taps.items()})

    file = await service.in_thread(finished)
    seconds = captured.recording.duration_seconds
    headers = {"audio-seconds": f"{seconds!r}", "notes": json.dumps(captured.recording.notes)}
    return StreamingResponse(_parts(file), headers=headers, media_type=media_type)


def _accepted(request: Request) -> tuple[str, str]:
    """The media type of the response, and the suffix of such files.

    Raises:
        RequestError: (406) if the client accepts none of them.
        MissingExtraError: for Arrow without pyarrow.
    """
    accepted = [
        part.partition(";")[0].strip().lower()
        for part in request.headers.get("accept", "*/*").split(",")
    ]
    for media_type, suffix in _FORMATS.items():
        kind = media_type.partition("/")[0]
        if {media_type, "*/*", f"{kind}/*"} & set(accepted):
            if suffix == ".arrow":
                check_extra("hidden states in Arrow", "parquet", "pyarrow")
            return media_type, suffix
    raise RequestError(406, f"Accept: use one of {', '.join(_FORMATS)}.")


def _check_size(
    service: Service, recordings: Sequence[Recording], taps: Sequence[Tap], generate: int
) -> None:
    """Raises ParameterError (413) for more hidden states than a response may have."""
    dimensions, family = service.model.dimensions, service.model.pipeline.checkpoint.family
    nbytes = 0
    for tap in taps:
        for window in (window for recording in recordings for window in recording.windows):
            frames = family.mel_frames(len(window.samples))
            if tap.in_language_model:
                rows = family.audio_tokens(frames) + generate
            else:
                rows = family.rows(tap.stage, frames)
            nbytes += 4 * rows * dimensions.width(tap)
    if nbytes > service.limits.response_bytes:
        raise ParameterError(
            413,
            f"taps: the hidden states have {nbytes / 2**20:.0f} MB, and a response at most "
            f"{service.limits.response_bytes / 2**20:.0f} MB: choose fewer taps, or cut the "
            "recording.",
            "taps",
            "response_too_large",
        )


def _file(suffix: str, states_by_tap: Mapping[str, HiddenStates]) -> IO[bytes]:
    """The file that `save_embeddings` makes of all rows, open, and without a name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"activations{suffix}")
        with VectorFile(path) as file:
            file.add(
                {
                    name: Embeddings(states.data, states.index, states.spec)
                    for name, states in states_by_tap.items()
                    if states.spec is not None
                }
            )
        opened = tempfile.TemporaryFile()  # noqa: SIM115 (is closed once it has been sent)
        with path.open("rb") as written:
            shutil.copyfileobj(written, opened)
    opened.seek(0)
    return opened


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while part := file.read(_BYTES_AT_ONCE):
            yield part
