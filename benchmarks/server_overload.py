"""The HTTP API under twice the load that it can serve: what it refuses and what it keeps."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .benchmark import Result, Settings, Target
from .machine import require_packages
from .resources import resident_bytes
from .rounds import median, worker_environment
from .synthetic_audio import SAMPLING_RATE, synthetic_clip
from .this_package import load_model

__all__ = ["LoadReport", "send_load", "serve_overload"]

DTYPE = "float32"
CLIENTS = 16
MAX_GROWTH_MB = 50.0
"""Memory that the server may keep after a minute at twice the load that it can serve."""
QUEUE = 64
"""Of `ApiLimits`, whose default the server has."""
TIMEOUT_SECONDS = 120.0
"""More than a full queue takes."""


@dataclass
class LoadReport:
    """What became of the requests of one load.

    Attributes:
        statuses: how many responses had each; 0: no response.
        wrong_texts: of answers that are not as expected.
        in_flight_at_refusal: requests that had no response yet, at each that was refused (429).
        without_retry_after: refusals that don't say when to try again.
        latencies: seconds of those that were answered.
        seconds: from the first request to the last response.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    wrong_texts: int = 0
    in_flight_at_refusal: list[int] = field(default_factory=list)
    without_retry_after: int = 0
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def answers_per_second(self) -> float:
        """Pace of the answers."""
        return self.statuses[200] / self.seconds


async def send_load(
    url: str,
    bodies: Sequence[dict[str, Any]],
    expected: Sequence[str],
    *,
    seconds: float,
    rate: float | None = None,
    clients: int = CLIENTS,
) -> LoadReport:
    """Send requests for some seconds, and wait for all responses.

    Args:
        bodies: of chat requests, in turn.
        expected: the text of each one's answer.
        rate: requests a second, sent whether or not others have been answered; None: as many as
            `clients` send that wait for each answer.
    """
    import httpx2

    report, in_flight = LoadReport(), 0

    async def ask(client: httpx2.AsyncClient, number: int) -> None:
        nonlocal in_flight
        start = time.perf_counter()
        in_flight += 1
        try:
            response = await client.post("v1/chat/completions", json=bodies[number % len(bodies)])
        except httpx2.HTTPError:
            report.statuses[0] += 1
            return
        finally:
            in_flight -= 1
        report.statuses[response.status_code] += 1
        if response.status_code == 200:
            report.latencies.append(time.perf_counter() - start)
            text = response.json()["choices"][0]["message"]["content"]
            report.wrong_texts += text != expected[number % len(bodies)]
        elif response.status_code == 429:
            report.in_flight_at_refusal.append(in_flight)
            report.without_retry_after += "retry-after" not in response.headers

    async def ask_again(client: httpx2.AsyncClient, number: int) -> None:
        while time.perf_counter() < start + seconds:
            await ask(client, number)
            number += clients

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=CLIENTS)
    async with httpx2.AsyncClient(
        base_url=url, timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False
    ) as client:
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            if rate is None:
                for number in range(clients):
                    group.create_task(ask_again(client, number))
            else:
                for number in range(round(rate * seconds)):
                    await asyncio.sleep(start + number / rate - time.perf_counter())
                    group.create_task(ask(client, number))
        report.seconds = time.perf_counter() - start
    return report


def serve_overload(settings: Settings) -> Result:
    """Requests at twice the pace at which 16 clients that wait for each answer get theirs."""
    require_packages("httpx2", "soundfile")
    clips = _clips(6 if settings.quick else 48)
    model = load_model("embedded", DTYPE, settings.threads)
    expected = [str(model.describe(data)) for data in clips]
    del model
    bodies = list(map(_body, clips))
    seconds = 2.0 if settings.quick else 60.0

    def load(url: str, rate: float | None, seconds: float) -> LoadReport:
        return asyncio.run(send_load(url, bodies, expected, seconds=seconds, rate=rate))

    with _server(settings) as (url, process):
        load(url, None, seconds / 6)  # a warm-up
        capacity = load(url, None, seconds / 6).answers_per_second
        load(url, 2 * capacity, seconds / 6)  # a full queue, whose memory is used again
        before = _idle_bytes(process)
        report = load(url, 2 * capacity, seconds)
        busy = resident_bytes(process.pid)
        after = _idle_bytes(process)
        final = load(url, None, seconds / 12)
    refused = report.statuses[429]
    return Result(
        what="growth of the server's memory by requests at twice the pace of 16 clients that wait "
        f"for each answer, for {seconds:g} s: clips of 2 to 6 s described by the embedded "
        "checkpoint with 16 slots and a queue of 64",
        dtype=DTYPE,
        figures={
            "capacity_per_second": capacity,
            "sent_per_second": 2 * capacity,
            "answered_per_second": report.answers_per_second,
            "answered": report.statuses[200],
            "refused": refused,
            "others": report.statuses.total() - report.statuses[200] - refused,
            "fewest_in_flight_at_refusal": min(report.in_flight_at_refusal, default=0),
            "latency": median(report.latencies),
            "latency_p95": float(np.quantile(report.latencies, 0.95)),
            "before_mb": before / 1e6,
            "busy_mb": busy / 1e6,
            "after_mb": after / 1e6,
        },
        ratio=(after - before) / 1e6,
        target=Target(MAX_GROWTH_MB, at_most=True, unit=" MB"),
        conditions={
            "every response is 200 or 429": set(report.statuses) <= {200, 429},
            "some are 429": refused > 0,
            "429 only while the queue is full": all(
                count >= QUEUE for count in report.in_flight_at_refusal
            ),
            "429 with Retry-After": not report.without_retry_after,
            "all texts are those of describe": not report.wrong_texts + final.wrong_texts,
            "as many answers a second as without overload": report.answers_per_second
            >= 0.9 * capacity,
            "all are answered afterwards": set(final.statuses) == {200},
        },
    )


def _clips(count: int) -> list[bytes]:
    """Files of different lengths."""
    import soundfile

    clips = []
    for number in range(count):
        file = io.BytesIO()
        samples = synthetic_clip(2 + 4 * number / count, seed=number)
        soundfile.write(file, samples, SAMPLING_RATE, format="FLAC")
        clips.append(file.getvalue())
    return clips


def _body(data: bytes) -> dict[str, Any]:
    audio = {"data": base64.b64encode(data).decode()}
    content = [{"type": "input_audio", "input_audio": audio}]
    return {"model": "embedded", "messages": [{"role": "user", "content": content}]}


@contextmanager
def _server(settings: Settings) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Address and process of `qwen-audio serve`."""
    command = [sys.executable, "-m", "qwen_audio", "serve", "--json", "--dtype", DTYPE]
    env = worker_environment(settings.threads)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"], process
        finally:
            process.terminate()


def _idle_bytes(process: subprocess.Popen[str]) -> int:
    """Resident memory of the server once it has returned what it freed to the system."""
    time.sleep(5)
    return resident_bytes(process.pid)
