"""The HTTP API: many clients against one at a time, and one client against the model's methods."""

from __future__ import annotations

import base64
import gc
import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from .benchmark import Result, Settings, Target
from .machine import require_packages
from .rounds import ROOT, median, worker_environment
from .this_package import load_model

__all__ = ["mixed_load", "one_client", "serve_embeddings", "sixteen_clients"]

CLIENTS, VECTOR_CLIENTS = 16, 8
_SERVER = """
import gc
import sys
import qwen_audio as qa
from qwen_audio.serve.launch import launch_server
from qwen_audio.serve.limits import ApiLimits
server = launch_server(qa.load(dtype={dtype!r}), limits=ApiLimits(slots={slots}))
server.wait_until_ready()
gc.collect()
gc.freeze()  # as the command does
print(server.url, flush=True)
sys.stdin.read()
server.close()
"""
_DESCRIBE = """
import sys
import time
import qwen_audio as qa
model = qa.load(dtype={dtype!r})
data = open({path!r}, "rb").read()
model.describe(data)
print(flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    model.describe(data)
    print(time.perf_counter() - start, flush=True)
"""


def sixteen_clients(settings: Settings) -> Result:
    """Clips of 2 to 6 s, each a streamed answer, by 16 clients at once: in a server with 16 slots,
    and in one with a single slot, which answers one request after another."""
    require_packages("openai", "soundfile")
    clips = _clips(6 if settings.quick else 48)
    dtype = _served_dtype()
    outputs = _with_one_slot_and_many(settings, clips, dtype)
    in_float32 = _with_one_slot_and_many(settings, clips, "float32")
    model = load_model("embedded", dtype, settings.threads)
    expected = [str(model.describe(data)) for data in clips]

    def figure(slots: int, name: str) -> float:
        return median([float(output[name]) for output in outputs[slots]])

    first = _ratio(outputs, "first_token")
    texts = [text for each in outputs.values() for output in each for text in output["texts"]]
    return Result(
        what=f"{len(clips)} clips of 2 to 6 s described by {CLIENTS} clients of the openai library "
        "at once, streamed, with the embedded checkpoint: requests per second with 16 slots, "
        "divided by those of a server that answers one request after another",
        dtype=dtype,
        figures={
            f"{name}_{label}": figure(slots, name)
            for slots, label in ((1, "one_at_a_time"), (CLIENTS, "16_slots"))
            for name in ("requests_per_second", "first_token", "latency", "latency_p95")
        }
        | {
            "first_token_ratio": first,
            "float32_ratio": _ratio(in_float32, "requests_per_second"),
            "float32_first_token_ratio": _ratio(in_float32, "first_token"),
        },
        ratio=_ratio(outputs, "requests_per_second"),
        target=Target(1.9),
        conditions={
            "first token after at most a quarter of the time": first <= 0.25,
            "all texts are those of describe": texts == expected * (2 * settings.rounds),
        },
        packages=("openai",),
    )


def _with_one_slot_and_many(
    settings: Settings, clips: Sequence[bytes], dtype: str
) -> dict[int, list[dict[str, Any]]]:
    """Answers to 16 clients in alternating rounds, by the slots of their server."""
    outputs: dict[int, list[dict[str, Any]]] = {1: [], CLIENTS: []}
    with _server(settings, 1, dtype) as one, _server(settings, CLIENTS, dtype) as many:
        servers = {1: one, CLIENTS: many}
        for url in servers.values():
            _answers(url, clips[:CLIENTS], CLIENTS)  # a warm-up
        gc.collect()
        gc.freeze()  # collections that look at all of torch would take the clients' time
        for _ in range(settings.rounds):
            for slots, url in servers.items():
                outputs[slots].append(_answers(url, clips, CLIENTS))
    return outputs


def _ratio(outputs: dict[int, list[dict[str, Any]]], name: str) -> float:
    """With many slots, divided by that of the same round with one."""
    pairs = zip(outputs[1], outputs[CLIENTS], strict=True)
    return median([many[name] / one[name] for one, many in pairs])


def mixed_load(settings: Settings) -> Result:
    """Clips of 0.5 to 30 s and answers of 8 to 200 tokens at most, by 16 clients at once: how long
    they wait for the next piece of a text that has begun."""
    require_packages("openai", "soundfile")
    clips = _clips(16 if settings.quick else 96, 0.5, 30)
    dtype = _served_dtype()
    limits = np.geomspace(8, 200, len(clips)).round().astype(int)
    lengths = [int(limits[number * 29 % len(clips)]) for number in range(len(clips))]
    ratios, gaps = [], []
    with _server(settings, CLIENTS, dtype) as url:
        _answers(url, clips[:CLIENTS], CLIENTS)  # a warm-up
        for _ in range(settings.rounds):
            waits = np.array(_answers(url, clips, CLIENTS, lengths)["waits"])
            gaps.append(waits)
            ratios.append(float(np.quantile(waits, 0.95) / np.median(waits)))
    together = np.concatenate(gaps)
    return Result(
        what=f"{len(clips)} clips of 0.5 to 30 s described by {CLIENTS} clients of the openai "
        "library at once, streamed, in at most 8 to 200 tokens, with the embedded checkpoint: the "
        "95th percentile of the time between two pieces of a text, divided by its median",
        dtype=dtype,
        figures={
            f"{name}_seconds": float(np.quantile(together, share))
            for name, share in (("median", 0.5), ("p95", 0.95), ("p99", 0.99), ("longest", 1))
        },
        ratio=median(ratios),
        target=Target(5, at_most=True),
        packages=("openai",),
    )


def one_client(settings: Settings) -> Result:
    """A clip described by one client, and by `describe` in a process that has described before."""
    require_packages("openai")
    data = (ROOT / "examples" / "guitar.flac").read_bytes()
    dtype = _served_dtype()
    rounds = 3 if settings.quick else max(settings.rounds, 15)
    served: list[float] = []
    local: list[float] = []
    script = _DESCRIBE.format(dtype=dtype, path=str(ROOT / "examples" / "guitar.flac"))
    with _server(settings, CLIENTS, dtype) as url, _process(settings, script) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        ask = _asker(url)
        ask(data)
        for _ in range(rounds):
            start = time.perf_counter()
            ask(data)
            served.append(time.perf_counter() - start)
            process.stdin.write("\n")
            process.stdin.flush()
            local.append(float(process.stdout.readline()))
    return Result(
        what="a clip of 5 s described by one client of the openai library, with the embedded "
        "checkpoint, divided by `describe` in another process that has described it before",
        dtype=dtype,
        figures={"served_seconds": median(served), "describe_seconds": median(local)},
        ratio=median([a / b for a, b in zip(served, local, strict=True)]),
        target=Target(1.15, at_most=True),
        packages=("openai",),
    )


def serve_embeddings(settings: Settings) -> Result:
    """Clips of 2 to 6 s, one a request by 8 clients at once, and by `encode` of their list."""
    require_packages("openai", "soundfile")
    import openai

    clips = _clips(16 if settings.quick else 200)
    dtype = _served_dtype()
    texts = [base64.b64encode(data).decode() for data in clips]
    model = load_model("embedded", dtype, settings.threads)
    served: list[float] = []
    local: list[float] = []
    expected = np.asarray(model.encode(clips))
    error = 0.0
    with (
        _server(settings, CLIENTS, dtype) as url,
        openai.OpenAI(base_url=f"{url}v1", api_key="-") as client,
        ThreadPoolExecutor(VECTOR_CLIENTS) as threads,
    ):

        def embed(text: str) -> Any:
            return client.embeddings.create(model="embedded", input=text).data[0].embedding

        list(threads.map(embed, texts[:VECTOR_CLIENTS]))
        for _ in range(settings.rounds):
            start = time.perf_counter()
            vectors = np.array(list(threads.map(embed, texts)))
            served.append(time.perf_counter() - start)
            start = time.perf_counter()
            model.encode(clips)
            local.append(time.perf_counter() - start)
            error = max(error, float(np.abs(vectors - expected).max() / np.abs(expected).max()))
    return Result(
        what=f"{len(clips)} clips of 2 to 6 s embedded by {VECTOR_CLIENTS} clients of the openai "
        "library at once, one clip a request, with the embedded checkpoint: pace, divided by that "
        "of `encode` of their list",
        dtype=dtype,
        figures={
            "served_seconds": median(served),
            "encode_seconds": median(local),
            "largest_error": error,
        },
        ratio=median([b / a for a, b in zip(served, local, strict=True)]),
        target=Target(0.85),
        conditions={"vectors are those of encode to 1e-5": error <= 1e-5},
        packages=("openai",),
    )


def _served_dtype() -> str:
    """What `qwen-audio serve` computes in here, unless told."""
    import qwen_audio as qa

    return qa.load().dtype


def _clips(count: int, shortest: float = 2, longest: float = 6) -> list[bytes]:
    """Files of excerpts of the examples, of different lengths, in seconds."""
    import soundfile

    paths = sorted((ROOT / "examples").glob("*.flac"))
    recordings = [soundfile.read(path, always_2d=True) for path in paths]
    clips = []
    for number in range(count):
        samples, rate = recordings[number % len(paths)]
        seconds = shortest + (longest - shortest) * (number * 7 % count) / count
        length = round(seconds * rate)
        turned = np.roll(samples, -number * rate // 7, axis=0)
        repeated = np.concatenate([turned, *[samples] * (1 + length // len(samples))])
        file = io.BytesIO()
        soundfile.write(file, repeated[:length], rate, format="FLAC")
        clips.append(file.getvalue())
    return clips


@contextmanager
def _process(settings: Settings, script: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=worker_environment(settings.threads),
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def _server(settings: Settings, slots: int, dtype: str) -> Iterator[str]:
    """The address of a server in a process of its own."""
    with _process(settings, _SERVER.format(dtype=dtype, slots=slots)) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


def _messages(data: bytes) -> list[Any]:
    audio = {"data": base64.b64encode(data).decode(), "format": "flac"}
    return [{"role": "user", "content": [{"type": "input_audio", "input_audio": audio}]}]


def _asker(url: str) -> Callable[[bytes], str]:
    import openai

    client = openai.OpenAI(base_url=f"{url}v1", api_key="-")

    def ask(data: bytes) -> str:
        messages = _messages(data)
        completion = client.chat.completions.create(model="embedded", messages=messages)
        return str(completion.choices[0].message.content)

    return ask


def _answers(
    url: str, clips: Sequence[bytes], clients: int, max_tokens: Sequence[int] | None = None
) -> dict[str, Any]:
    """Pace, texts, and medians of the time to the first token and to the end of an answer; and all
    times between two pieces of a text."""
    import openai

    with openai.OpenAI(base_url=f"{url}v1", api_key="-") as client:

        def ask(data: bytes, limit: int) -> tuple[str, float, float, list[float]]:
            start, times, pieces = time.perf_counter(), [], []
            stream = client.chat.completions.create(
                model="embedded", messages=_messages(data), max_tokens=limit, stream=True
            )
            for chunk in stream:
                if piece := chunk.choices[0].delta.content:
                    times.append(time.perf_counter() - start)
                    pieces.append(piece)
            end = time.perf_counter() - start
            return "".join(pieces), times[0], end, [*np.diff(times)]

        with ThreadPoolExecutor(clients) as threads:
            start = time.perf_counter()
            answers = list(threads.map(ask, clips, max_tokens or [256] * len(clips)))
            seconds = time.perf_counter() - start
    texts, first_tokens, latencies, waits = zip(*answers, strict=True)
    return {
        "texts": list(texts),
        "requests_per_second": len(clips) / seconds,
        "first_token": median(list(first_tokens)),
        "latency": median(list(latencies)),
        "latency_p95": float(np.quantile(latencies, 0.95)),
        "waits": [wait for each in waits for wait in each],
    }
