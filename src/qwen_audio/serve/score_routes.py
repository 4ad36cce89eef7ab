"""`POST /v1/score` and `POST /v1/classify`: how likely given answers about recordings are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import chain
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from qwen_audio.analysis.classes import as_classes, as_prior, as_temperature
from qwen_audio.analysis.classification import Classification
from qwen_audio.analysis.scores import Scores
from qwen_audio.api.scorer import Scorer
from qwen_audio.errors import OptionError

from .api_errors import ParameterError
from .audio_data import recording_texts
from .recordings import Recording
from .result_schemas import ClassifyResponse, ScoreResponse
from .schemas import ClassifyRequest, ScoreRequest
from .score_job import ScoreJob
from .service import Service, schema_of

__all__ = ["score_router"]


def score_router(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter()

    @router.post(
        "/v1/score",
        openapi_extra=schema_of(ScoreRequest),
        responses={200: {"model": ScoreResponse}},
    )
    async def score(request: Request) -> Response:
        """How likely each of some answers is, about every window of recordings."""
        body = service.parsed(request, ScoreRequest)
        job, results = await _scores(service, request, body, body.choices)

        def finished() -> dict[str, Any]:
            data = [_scores_item(number, each) for number, each in enumerate(results)]
            return {"object": "list", "data": data, **_facts(results), **_common(service, job)}

        return JSONResponse(await service.in_thread(finished))

    @router.post(
        "/v1/classify",
        openapi_extra=schema_of(ClassifyRequest),
        responses={200: {"model": ClassifyResponse}},
    )
    async def classify(request: Request) -> Response:
        """Zero-shot classification: the probability of each class, for every recording."""
        body = service.parsed(request, ClassifyRequest)
        classes = as_classes(body.classes)
        as_prior(body.prior, tuple(classes))
        as_temperature(body.temperature)
        spellings = list(chain.from_iterable(classes.values()))
        job, results = await _scores(service, request, body, spellings)

        def finished() -> dict[str, Any]:
            classified = Classification.of(results, classes, body.prior, body.temperature)
            data = [_class_item(number, classified) for number in range(len(classified))]
            facts = classified.facts()
            return {"object": "list", "data": data, **facts, **_common(service, job)}

        return JSONResponse(await service.in_thread(finished))

    return router


async def _scores(
    service: Service,
    request: Request,
    body: ScoreRequest | ClassifyRequest,
    choices: Sequence[str],
) -> tuple[ScoreJob, list[Scores]]:
    """The scores of all recordings, by a job that has ended."""
    service.check_language_model()
    limits, pipeline = service.limits, service.model.pipeline
    if sum(map(len, choices)) + len(body.prompt or "") > limits.scored_characters:
        raise OptionError(
            f"choices= and prompt have more than {limits.scored_characters} characters, the limit "
            "of this server: score in several requests"
        )
    config = pipeline.window_config(**body.window_options)

    def new_scorer() -> Scorer:
        return Scorer(
            pipeline,
            body.prompt,
            choices,
            include_end=body.include_end,
            leading_space=body.leading_space,
            length_normalized=body.length_normalized,
            over_windows=body.over_windows,
        )

    scorer = await service.in_thread(new_scorer)
    if scorer.choice_tokens > limits.choice_tokens:
        raise OptionError(
            f"choices= have {scorer.choice_tokens} tokens: this server scores at most "
            f"{limits.choice_tokens} in one request"
        )
    async with service.uploads(request, recording_texts(body.input)) as uploads:

        def read() -> list[Recording]:
            recordings = service.reader.read(uploads, config)
            uploads.clear()  # of which bytes are forgotten once they have been decoded
            _check_size(service, recordings, scorer)
            return recordings

        job = ScoreJob(read, scorer)
        return job, await service.result(request, job)


def _check_size(service: Service, recordings: Sequence[Recording], scorer: Scorer) -> None:
    """Check what is asked for, before the model begins.

    Raises:
        ParameterError: (413) for more numbers than a response may have.
        OptionError: for a window that is longer, with its prompt and a choice, than the context.
    """
    pipeline, limits = service.model.pipeline, service.limits
    family = pipeline.checkpoint.family
    windows = [window for recording in recordings for window in recording.windows]
    numbers = len(windows) * scorer.choice_tokens
    if numbers > limits.scores:
        raise ParameterError(
            413,
            f"choices: {numbers} log-probabilities of tokens, and a response has at most "
            f"{limits.scores}: send fewer recordings or choices, or choose longer windows.",
            "choices",
            "response_too_large",
        )
    samples = max(len(window.samples) for window in windows)
    audio_tokens = family.audio_tokens(family.mel_frames(samples))
    pipeline.lm.check_context(audio_tokens + scorer.prompt_tokens + scorer.longest_choice)


def _facts(results: Sequence[Scores]) -> dict[str, Any]:
    """What was asked; the same for all recordings."""
    facts = results[0].facts()
    del facts["notes"]
    return facts


def _common(service: Service, job: ScoreJob) -> dict[str, Any]:
    return {
        "model": service.model_id,
        "other_mass": job.scorer.other_mass,
        "usage": {
            "prompt_tokens": job.positions,
            "total_tokens": job.positions,
            "prompt_tokens_details": {"audio_tokens": job.audio_tokens},
        },
    }


def _scores_item(number: int, scores: Scores) -> dict[str, Any]:
    return {
        "object": "scores",
        "index": number,
        "windows": [dataclasses.asdict(window) for window in scores.windows],
        "token_log_probabilities": scores.token_log_probabilities,
        "log_probability": scores.log_probability.tolist(),
        "probability": scores.probability.tolist(),
        "mass": scores.mass.tolist(),
        "recording_probability": scores.recording_probability.tolist(),
        "notes": scores.notes,
    }


def _class_item(number: int, classified: Classification) -> dict[str, Any]:
    scores, classes = classified.scores[number], list(classified.classes)
    by_window = classified.window_probability(number)
    return {
        "object": "classification",
        "index": number,
        "label": classified.labels[number],
        "probability": dict(zip(classes, classified.probability[number].tolist(), strict=True)),
        "mass": float(classified.mass[number]),
        "windows": [
            {
                **dataclasses.asdict(window),
                "label": classes[int(shares.argmax())],
                "probability": dict(zip(classes, shares.tolist(), strict=True)),
                "mass": float(mass),
            }
            for window, mass, shares in zip(scores.windows, scores.mass, by_window, strict=True)
        ],
        "notes": scores.notes,
    }
