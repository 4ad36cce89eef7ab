"""A visitor of the playground who has no browser, but asks for all that a page asks for."""

from __future__ import annotations

import asyncio
import html
import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2

__all__ = ["Clip", "TurnedAwayError", "Visitor", "stay"]

_API = "gradio_api"
_PATIENCE = httpx2.Timeout(300.0)


class TurnedAwayError(Exception):
    """Too many were waiting already."""


@dataclass(frozen=True)
class Clip:
    """A recording, and what its visitor must be told of it."""

    name: str
    data: bytes
    answers: Mapping[str, str]
    """Question → answer; "" is the usual question."""
    shapes: Mapping[str, tuple[int, int]]
    """Tap → shape."""


@dataclass
class Stay:
    """What one visitor met with.

    Attributes:
        mistaken: what was said that belongs to somebody else's recording, or to none.
    """

    answers: int = 0
    taps: int = 0
    turned_away: int = 0
    mistaken: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


class Visitor:
    """One open page. Made by `Visitor.at`."""

    def __init__(self, client: httpx2.AsyncClient, config: dict[str, Any]) -> None:
        self.client, self.page, self._count = client, secrets.token_hex(6), 0
        parts = {part["id"]: part["props"] for part in config["components"]}
        self._defaults: dict[str, list[Any]] = {}
        self._calls: dict[str, int] = {}
        for call in config["dependencies"]:
            name = call.get("api_name")
            if call["inputs"]:
                script = str(parts[call["inputs"][0]].get("js_on_load") or "")
                if channel := re.match(r"playground.connect\('(\w+)'", script):
                    name = channel[1]
                self._defaults[name] = [parts[given].get("value") for given in call["inputs"]]
            self._calls[name] = call["id"]

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str) -> AsyncIterator[Visitor]:
        """Come, and leave again."""
        async with httpx2.AsyncClient(base_url=url, timeout=_PATIENCE) as client:
            visitor = cls(client, (await client.get("/config")).json())
            beating = asyncio.create_task(visitor._beat())
            try:
                yield visitor
            finally:
                beating.cancel()
                with suppress(asyncio.CancelledError):
                    await beating

    async def open(self, clip: Clip) -> dict[str, Any]:
        """Send a recording, and have it shown."""
        sent = await self.client.post("/clip", params={"name": clip.name}, content=clip.data)
        return await self.call("open", {"ticket": sent.json()["ticket"]})

    async def ask(self, question: str) -> str:
        """The text of the newest answer; a problem as it is said."""
        shown = str(await self._run("ask", [question, *self._defaults["ask"][1:]]))
        if told := re.search(r'role="alert">(.*?)</p>', shown):
            return html.unescape(told[1])
        text = re.search(r'<div class="pg-text">(.*?)</div>', shown)
        return html.unescape(re.sub("<[^>]+>", "", text[1] if text else shown))

    async def call(self, channel: str, asked: dict[str, Any]) -> dict[str, Any]:
        """What a script of the page asks for."""
        self._count += 1
        answer = await self._run(channel, [{**asked, "n": self._count}])
        if answer["n"] != self._count:
            raise RuntimeError(f"asked {self._count} and was told {answer['n']}")
        return dict(answer)

    async def _run(self, name: str, data: list[Any]) -> Any:
        body = {"data": data, "fn_index": self._calls[name], "session_hash": self.page}
        joined = await self.client.post(f"/{_API}/queue/join", json=body)
        if joined.status_code == 503:
            raise TurnedAwayError
        event = joined.raise_for_status().json()["event_id"]
        stream = f"/{_API}/queue/data"
        async with self.client.stream("GET", stream, params={"session_hash": self.page}) as lines:
            async for line in lines.aiter_lines():
                if not line.startswith("data:"):
                    continue
                told = json.loads(line[5:])
                if told["msg"] == "process_completed" and told["event_id"] == event:
                    if not told["success"]:
                        raise RuntimeError(str(told["output"]))
                    return told["output"]["data"][0]
        raise RuntimeError(f"{name} was never answered")

    async def _beat(self) -> None:
        """By this the playground knows that the page is open, and when it is left."""
        async with self.client.stream("GET", f"/{_API}/heartbeat/{self.page}") as beats:
            async for _ in beats.aiter_lines():
                pass


async def stay(url: str, clip: Clip, seconds: float) -> Stay:
    """Open a recording, ask about it and change taps, again and again until time is up."""
    met, loop = Stay(), asyncio.get_running_loop()
    end = loop.time() + seconds
    async with Visitor.at(url) as visitor:
        while not met.answers or loop.time() < end:
            try:
                await _once(visitor, clip, met)
            except TurnedAwayError:
                met.turned_away += 1
                await asyncio.sleep(0.5)
            except Exception as error:  # noqa: BLE001 (counted, and told at the end)
                met.problems.append(f"{clip.name}: {type(error).__name__}: {error}")
                await asyncio.sleep(0.5)
                if loop.time() > end:
                    break
    return met


async def _once(visitor: Visitor, clip: Clip, met: Stay) -> None:
    shown = await visitor.open(clip)
    if "problem" in shown:
        raise RuntimeError(shown["problem"])
    _expect(met, clip, "name", shown["name"], clip.name)
    for question, answer in clip.answers.items():
        begun = asyncio.get_running_loop().time()
        _expect(met, clip, question, await visitor.ask(question), answer)
        met.waits.append(asyncio.get_running_loop().time() - begun)
        met.answers += 1
    for tap, shape in clip.shapes.items():
        view = await visitor.call("hidden_states", {"tap": tap})
        if "problem" in view:
            raise RuntimeError(view["problem"])
        _expect(met, clip, tap, (view["tap"], *view["shape"]), (tap, *shape))
        met.taps += 1


def _expect(met: Stay, clip: Clip, what: str, told: Any, true: Any) -> None:
    if told != true:
        met.mistaken.append(f"{clip.name}, {what!r}: {told!r} instead of {true!r}")
