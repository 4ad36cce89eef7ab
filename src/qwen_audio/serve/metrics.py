"""What a server did, in Prometheus' format: vLLM's names, with another prefix."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .engine import Engine
from .jobs import Job, TextResult

__all__ = ["Metrics"]

_PREFIX = "qwen_audio"
_PATHS = frozenset(
    {
        *("/v1/chat/completions", "/v1/embeddings", "/v1/activations", "/v1/score"),
        *("/v1/classify", "/v1/audio/transcriptions", "/v1/search", "/v1/models", "/metrics"),
    }
)
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)


class Metrics:
    """Counts, durations and gauges of one server."""

    def __init__(self, engine: Engine) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{_PREFIX}:{name}", text, labels, registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"{_PREFIX}:{name}", text, registry=registry, buckets=_SECONDS)

        running = Gauge(
            f"{_PREFIX}:num_requests_running", "Requests that the model works on", registry=registry
        )
        running.set_function(lambda: engine.running)
        waiting = Gauge(
            f"{_PREFIX}:num_requests_waiting", "Requests that wait for the model", registry=registry
        )
        waiting.set_function(lambda: engine.waiting)
        self._requests = counter("http_requests", "Responses", "path", "status")
        self._success = counter("request_success", "Texts generated", "finished_reason")
        self._cancelled = counter("request_cancelled", "Requests whose client went away")
        self._prompt_tokens = counter("prompt_tokens", "Positions of prompts and audio")
        self._generation_tokens = counter("generation_tokens", "Tokens generated")
        self._audio_seconds = counter("audio_seconds", "Audio that was processed")
        self._first_token = histogram("time_to_first_token_seconds", "From request to first token")
        self._latency = histogram("e2e_request_latency_seconds", "From request to result")

    def add_response(self, path: str, status: int) -> None:
        """Count a response."""
        name = path if path in _PATHS else "other"  # clients can't make up any number of series
        self._requests.labels(name, str(status)).inc()

    def add_job(self, job: Job[Any]) -> None:
        """Count a job that has ended, and time it if it succeeded."""
        if job.future.cancelled():
            self._cancelled.inc()
        elif job.future.exception() is None:
            self._latency.observe(time.monotonic() - job.submitted)
            self._audio_seconds.inc(job.audio_seconds)

    def add_texts(self, job: Job[Any], results: Sequence[TextResult], reason: str) -> None:
        """Count the texts of a job that has succeeded."""
        self._success.labels(reason).inc()
        self._prompt_tokens.inc(sum(each.prompt_tokens + each.audio_tokens for each in results))
        self._generation_tokens.inc(sum(len(each.token_ids) for each in results))
        if job.first_token is not None:
            self._first_token.observe(job.first_token - job.submitted)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
