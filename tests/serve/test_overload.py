"""More requests than the server can answer: some are refused, the others answered as ever."""

from __future__ import annotations

import asyncio

import pytest
from benchmarks.server_overload import send_load

import qwen_audio as qa
from api_requests import CLIPS, URLS, user, wait_for
from qwen_audio.serve.launch import launch_server
from qwen_audio.serve.limits import ApiLimits

QUEUE = 6


@pytest.mark.slow
def test_only_what_exceeds_the_queue_is_refused(model: qa.AudioModel) -> None:
    """A second of a load that no machine answers with two slots."""
    expected = [str(model.describe(data, max_new_tokens=40)) for data in CLIPS]
    bodies = [
        {"model": "embedded", "messages": [user(url)], "max_tokens": 40, "temperature": 0}
        for url in URLS
    ]
    running = launch_server(model, limits=ApiLimits(queue_size=QUEUE, slots=2))
    try:
        running.wait_until_ready()
        report = asyncio.run(send_load(running.url, bodies, expected, seconds=1, rate=200))
        assert set(report.statuses) == {200, 429}, report.statuses
        assert report.wrong_texts == report.without_retry_after == 0
        assert min(report.in_flight_at_refusal) >= QUEUE
        gate, engine = running._gate, running._engine
        wait_for(lambda: gate.in_flight + engine.running + engine.waiting == 0)
        assert gate.bodies.reserved == engine._memory.reserved == 0
        # As many as the queue holds are all answered.
        waiting = asyncio.run(
            send_load(running.url, bodies, expected, seconds=QUEUE / 1000, rate=1000)
        )
        assert waiting.statuses == {200: QUEUE}
    finally:
        running.close()
