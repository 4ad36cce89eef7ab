"""Work of a page on the engine's thread: what both are given doesn't change by the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import qwen_audio as qa
from qwen_audio.inference.options import Sampling
from qwen_audio.serve.engine import Engine, NotReadyError
from qwen_audio.serve.jobs import TextInput, TextJob, TextPiece
from qwen_audio.serve.limits import ApiLimits
from qwen_audio.serve.model_thread import SoleModelThread
from qwen_audio.serve.recordings import RecordingReader, Upload
from recordings import sound, write_wav

pytestmark = pytest.mark.slow

FILES = [write_wav(sound(0.4 + 0.2 * seed, 16_000, seed=seed), 16_000) for seed in range(2)]


def text_job(
    model: qa.AudioModel, tokens: int, emit: Callable[[int, TextPiece], None] | None = None
) -> TextJob:
    reader = RecordingReader(model.pipeline, ApiLimits())

    def read() -> list[TextInput]:
        (recording,) = reader.read([Upload("clip", FILES[0])], None)
        return [TextInput(model.pipeline.tokenizer.render(None), recording.windows)]

    return TextJob(read, Sampling(tokens), emit=emit)


def test_a_conversation_beside_texts() -> None:
    """Both go on at the same time, with the tokens that they have alone."""
    model = qa.load(dtype="float32")
    expected = model.describe(FILES[0]).answers[0]
    alone = model.session(FILES[1]).ask()
    engine = Engine(model.pipeline, ApiLimits())
    engine.wait_until_ready()
    emitted: list[float] = []
    begun = threading.Event()

    def emit(_number: int, _piece: TextPiece) -> None:
        emitted.append(time.monotonic())
        begun.set()

    def ask() -> tuple[qa.Description, float, float, str]:
        start = time.monotonic()
        answer = model.session(FILES[1]).ask(stream=lambda _: engine.let_others_run())
        return answer, start, time.monotonic(), threading.current_thread().name

    job = text_job(model, 256, emit)
    engine.submit(job)
    assert begun.wait(20)
    asked = engine.call(ask)
    answer, start, end, thread = asked.result(20)
    (result,) = job.future.result(20)
    assert thread == "engine"
    assert str(answer) == str(alone)
    assert result.token_ids == expected.token_ids
    assert sum(start < each < end for each in emitted) > 5
    engine.close()
    with pytest.raises(NotReadyError):
        engine.call(ask)


def test_calls_wait_for_texts_where_memory_is_limited(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has keys and values of its own. Texts that come later wait for the call."""
    model = qa.load(checkpoint, dtype="float32")
    monkeypatch.setattr(model.pipeline.memory, "_all_positions", 2_000)
    engine = Engine(model.pipeline, ApiLimits())
    engine.wait_until_ready()
    begun = threading.Event()
    first = text_job(model, 120, lambda *_: begun.set())
    order: list[str] = []
    first.future.add_done_callback(lambda _: order.append("first text"))
    engine.submit(first)
    assert begun.wait(20)
    call = engine.call(lambda: order.append("call"))
    later = text_job(model, 4)
    later.future.add_done_callback(lambda _: order.append("later text"))
    engine.submit(later)
    later.future.result(20)
    call.result(20)
    assert order == ["first text", "call", "later text"]
    engine.close()


def test_errors_and_cancelled_calls(checkpoint: Path) -> None:
    model = qa.load(checkpoint, dtype="float32")
    engine = Engine(model.pipeline, ApiLimits())
    engine.wait_until_ready()
    threads = SoleModelThread(), engine
    for thread in threads:
        blocked, ran = threading.Event(), threading.Event()
        running = thread.call(partial(blocked.wait, 20))
        failing = thread.call(partial(model.dimensions.tap, "encoder.99"))
        cancelled = thread.call(ran.set)
        assert cancelled.cancel()
        blocked.set()
        assert running.result(20)
        with pytest.raises(qa.TapError):
            failing.result(20)
        thread.let_others_run()  # of which there are none
        assert thread.call(lambda: 3).result(20) == 3
        assert not ran.is_set()
        thread.close()
