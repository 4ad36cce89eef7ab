"""HTTP client that sends what the playground's page sends, without a browser."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2

__all__ = ["ClientRecording", "ClientReport", "PlaygroundClient", "QueueFullError", "run_client"]

_API = "gradio_api"
_TIMEOUT = httpx2.Timeout(300.0)


class QueueFullError(Exception):
    """The server rejected a request because too many are waiting."""


@dataclass(frozen=True)
class ClientRecording:
    """A recording that a client uploads, with the expected results.

    Attributes:
        data: a media file.
        answers: by question; "" is the default prompt.
        shapes: of hidden states, by tap.
    """

    name: str
    data: bytes
    answers: Mapping[str, str]
    shapes: Mapping[str, tuple[int, int]]


@dataclass
class ClientReport:
    """Counts and errors of one client.

    Attributes:
        answers, taps: how many were received.
        rejected: requests rejected because the queue was full.
        wrong_answers: results that differ from the expected ones of this client's recording.
        problems: other errors.
        answer_seconds: time of each answer.
    """

    answers: int = 0
    taps: int = 0
    rejected: int = 0
    wrong_answers: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    answer_seconds: list[float] = field(default_factory=list)


class PlaygroundClient:
    """One open page. Made by `connect`.

    Args:
        config: Gradio's configuration of the page.
    """

    def __init__(self, client: httpx2.AsyncClient, config: dict[str, Any]) -> None:
        self._client, self._session_hash, self._requests = client, secrets.token_hex(6), 0
        components = {item["id"]: item["props"] for item in config["components"]}
        self._function_ids: dict[str, int] = {}
        for function in config["dependencies"]:
            for component in function["inputs"]:
                script = str(components[component].get("js_on_load") or "")
                if channel := re.search(r"playground\.connect\('(\w+)'", script):
                    self._function_ids[channel[1]] = function["id"]

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[PlaygroundClient]:
        """Open a page, and close it at the end."""
        async with httpx2.AsyncClient(base_url=url, timeout=_TIMEOUT) as http:
            client = cls(http, (await http.get("/config")).json())
            heartbeat = asyncio.create_task(client._heartbeat())
            try:
                yield client
            finally:
                heartbeat.cancel()
                with suppress(asyncio.CancelledError):
                    await heartbeat

    async def open(self, recording: ClientRecording) -> dict[str, Any]:
        """Upload a recording and open it."""
        response = await self._client.post(
            "/clip", params={"name": recording.name}, content=recording.data
        )
        return await self.call("open", {"ticket": response.json()["ticket"]})

    async def ask(self, question: str) -> str:
        """The answer to a question about the whole recording, or the message shown instead."""
        reply = await self.call("ask", {"question": question, "whole": True})
        return str(reply.get("problem") or reply["answer"]["text"])

    async def call(self, channel: str, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request of the page's scripts. Returns the reply to it."""
        self._requests += 1
        reply = await self._run(channel, [{**request, "n": self._requests}])
        if reply["n"] != self._requests:
            raise RuntimeError(f"request {self._requests} got the reply to {reply['n']}")
        return dict(reply)

    async def _run(self, name: str, data: list[Any]) -> Any:
        """Call a Gradio function through its queue. Returns its first output."""
        body = {
            "data": data,
            "fn_index": self._function_ids[name],
            "session_hash": self._session_hash,
        }
        response = await self._client.post(f"/{_API}/queue/join", json=body)
        if response.status_code == 503:
            raise QueueFullError
        event_id = response.raise_for_status().json()["event_id"]
        params = {"session_hash": self._session_hash}
        async with self._client.stream("GET", f"/{_API}/queue/data", params=params) as stream:
            async for line in stream.aiter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                if message["msg"] == "process_completed" and message["event_id"] == event_id:
                    if not message["success"]:
                        raise RuntimeError(str(message["output"]))
                    return message["output"]["data"][0]
        raise RuntimeError(f"no reply to {name}")

    async def _heartbeat(self) -> None:
        """Keep the connection by which the playground knows that the page is open."""
        async with self._client.stream("GET", f"/{_API}/heartbeat/{self._session_hash}") as stream:
            async for _ in stream.aiter_lines():
                pass


async def run_client(url: str, recording: ClientRecording, seconds: float) -> ClientReport:
    """Open a recording, ask questions and view taps, again and again until time is up."""
    report, loop = ClientReport(), asyncio.get_running_loop()
    end = loop.time() + seconds
    async with PlaygroundClient.connect(url) as client:
        while not report.answers or loop.time() < end:
            try:
                await _run_cycle(client, recording, report)
            except QueueFullError:
                report.rejected += 1
                await asyncio.sleep(0.5)
            except Exception as error:  # noqa: BLE001 (counted, and reported at the end)
                report.problems.append(f"{recording.name}: {type(error).__name__}: {error}")
                await asyncio.sleep(0.5)
                if loop.time() > end:
                    break
    return report


async def _run_cycle(
    client: PlaygroundClient, recording: ClientRecording, report: ClientReport
) -> None:
    """Open the recording, ask every question and view every tap once."""
    opened = await client.open(recording)
    if "problem" in opened:
        raise RuntimeError(opened["problem"])
    _check(report, recording, "name", opened["name"], recording.name)
    for question, answer in recording.answers.items():
        start = asyncio.get_running_loop().time()
        _check(report, recording, question, await client.ask(question), answer)
        report.answer_seconds.append(asyncio.get_running_loop().time() - start)
        report.answers += 1
    for tap, shape in recording.shapes.items():
        view = await client.call("hidden_states", {"tap": tap})
        if "problem" in view:
            raise RuntimeError(view["problem"])
        _check(report, recording, tap, (view["tap"], *view["shape"]), (tap, *shape))
        report.taps += 1


def _check(
    report: ClientReport, recording: ClientRecording, name: str, actual: Any, expected: Any
) -> None:
    """Record a result that is not the expected one."""
    if actual != expected:
        report.wrong_answers.append(
            f"{recording.name}, {name!r}: {actual!r} instead of {expected!r}"
        )
