"""The engine: what it gives is what the model's methods give, whoever asks at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import qwen_audio as qa
from checkpoints import changed_checkpoint
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.pooling import Pooling
from qwen_audio.inference.reducers import rows_and_segments
from qwen_audio.inference.token_probability import TokenProbability
from qwen_audio.serve.answer_text import AnswerText
from qwen_audio.serve.engine import BusyError, Engine, NotReadyError
from qwen_audio.serve.jobs import TextInput, TextJob, TextPiece
from qwen_audio.serve.limits import ApiLimits
from qwen_audio.serve.recordings import RecordingReader, Upload
from qwen_audio.serve.window_jobs import CaptureJob
from recordings import sound, write_wav

RATE = 16_000
CLIPS = [sound(0.3 + 0.11 * seed, RATE, seed=seed)[0] for seed in range(12)]
FILES = [write_wav(clip[None], RATE) for clip in CLIPS]
LONG = 400
"""Tokens of a text that takes longer than any other."""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    """Texts of a checkpoint with random weights hardly ever end by themselves."""
    return qa.load(checkpoint, dtype="float32")


@pytest.fixture(scope="module")
def expected(model: qa.AudioModel) -> list[qa.Description]:
    """Before the engine, which must be alone with the model, starts."""
    return [model.describe(data, max_new_tokens=8 + number) for number, data in enumerate(FILES)]


@pytest.fixture(scope="module")
def engine(model: qa.AudioModel, expected: list[qa.Description]) -> Iterator[Engine]:
    engine = Engine(model.pipeline, ApiLimits(slots=5, queue_size=16))
    with pytest.raises(NotReadyError, match=r"^The model is being loaded: try again later\.$"):
        engine.submit(text_job(model, FILES[0]))
    engine.wait_until_ready()
    yield engine
    engine.close()


def text_job(
    model: qa.AudioModel,
    data: bytes,
    tokens: int = 8,
    stops: Sequence[str] = (),
    emit: Callable[[int, TextPiece], None] | None = None,
    top_count: int | None = None,
) -> TextJob:
    reader = RecordingReader(model.pipeline, ApiLimits())

    def read() -> list[TextInput]:
        (recording,) = reader.read([Upload("clip", data)], None)
        prompt_text = model.pipeline.tokenizer.render(None)
        return [TextInput(prompt_text, recording.windows)]

    return TextJob(read, Sampling(tokens), stops, emit, top_count)


def into(
    pieces: list[str], tokens: list[TokenProbability] | None = None
) -> Callable[[int, TextPiece], None]:
    def emit(_number: int, piece: TextPiece) -> None:
        if isinstance(piece, TokenProbability):
            assert tokens is not None
            tokens.append(piece)
        else:
            pieces.append(piece or "")

    return emit


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_texts_at_the_same_time_are_those_of_describe(
    engine: Engine, model: qa.AudioModel, expected: list[qa.Description]
) -> None:
    pieces: dict[int, list[str]] = {number: [] for number in range(len(FILES))}
    jobs = []
    for number, data in enumerate(FILES):
        job = text_job(model, data, 8 + number, emit=into(pieces[number]))
        engine.submit(job)
        jobs.append(job)
        time.sleep(0.002)  # later ones join those in progress
    for number, (job, description) in enumerate(zip(jobs, expected, strict=True)):
        (result,) = job.future.result(20)
        (answer,) = description.answers
        assert result.token_ids == answer.token_ids
        assert result.text == "".join(pieces[number]) == answer.text
        assert result.ended_by == answer.ended_by
        assert result.audio_tokens == answer.audio_tokens
        assert result.prompt_tokens == answer.prompt_tokens
    wait_for(lambda: engine.running == engine.waiting == 0)


def test_a_cancelled_text_gives_its_slot_to_the_next(engine: Engine, model: qa.AudioModel) -> None:
    long = [text_job(model, data, LONG) for data in FILES[:5]]
    for job in long:
        engine.submit(job)
    wait_for(lambda: all(job.first_token for job in long))
    next_job = text_job(model, FILES[5])
    engine.submit(next_job)
    time.sleep(0.05)
    assert not next_job.has_begun  # all slots are taken
    long[2].future.cancel()
    assert len(next_job.future.result(20)) == 1
    assert not any(job.future.done() for job in long if job is not long[2])
    for job in long:
        job.future.cancel()
    wait_for(lambda: engine.running == 0)


def test_the_queue_is_bounded(engine: Engine, model: qa.AudioModel) -> None:
    jobs = [text_job(model, FILES[number % 12], LONG) for number in range(21)]
    for job in jobs[:5]:
        engine.submit(job)
    wait_for(lambda: engine.running == 5)
    for job in jobs[5:]:
        engine.submit(job)
    with pytest.raises(BusyError, match=r"as this server queues \(16\)"):
        engine.submit(text_job(model, FILES[0]))
    for job in jobs:
        job.future.cancel()
    wait_for(lambda: engine.running == engine.waiting == 0)
    with pytest.raises(CancelledError):
        jobs[-1].future.result()


def test_hidden_states_of_several_jobs_share_passes(
    engine: Engine, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tap, pool = model.dimensions.tap("audio_tower"), Pooling()
    reader = RecordingReader(model.pipeline, ApiLimits())
    config = model.pipeline.window_config(30)
    sizes: list[int] = []
    capture = model.pipeline.capture

    def counting(windows: Sequence[object], *arguments: object, **options: object) -> object:
        sizes.append(len(windows))
        return capture(windows, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(model.pipeline, "capture", counting)
    started, blocked = threading.Event(), threading.Event()

    def emit_blocks(_number: int, _piece: TextPiece) -> None:
        started.set()
        blocked.wait(20)

    blocking = text_job(model, FILES[0], emit=emit_blocks)
    engine.submit(blocking)
    assert started.wait(20)  # the engine is in a step, and jobs arrive meanwhile
    reducer = pool.pool_window
    jobs = [
        CaptureJob(partial(reader.read, [Upload("clip", data)], config), (tap,), reducer)
        for data in FILES
    ]
    for job in jobs:
        engine.submit(job)
    wait_for(lambda: all(job.recordings for job in jobs))
    time.sleep(0.01)
    blocked.set()
    for job, data in zip(jobs, FILES, strict=True):
        (captured,) = job.future.result(20)
        vector = pool.combine([output[tap] for output in captured.outputs])
        assert np.allclose(vector, model.encode(data), rtol=1e-5, atol=1e-6)
    assert sizes[0] > 6
    assert blocking.future.result(20)


def test_captures_that_generate(engine: Engine, model: qa.AudioModel) -> None:
    tap = model.dimensions.tap("lm.2")
    reader = RecordingReader(model.pipeline, ApiLimits())
    texts = [text_job(model, data, 60) for data in FILES[:3]]
    job = CaptureJob(
        lambda: reader.read([Upload("clip", FILES[4])], model.pipeline.window_config(30)),
        (tap,),
        rows_and_segments,
        model.pipeline.tokenizer.render(None),
        Sampling(4),
    )
    for text in texts:
        engine.submit(text)
    engine.submit(job)
    (captured,) = job.future.result(20)
    (rows, segments) = captured.outputs[0][tap]
    states = model.activations(FILES[4], taps=["lm.2"], generate=4)["lm.2"]
    assert segments[-1] == ("generated", 4)
    assert np.allclose(rows, states.data, rtol=1e-4, atol=1e-5)
    assert all(len(each.future.result(20)[0].token_ids) == 60 for each in texts)


def test_what_cannot_be_decoded_is_the_jobs_own(engine: Engine, model: qa.AudioModel) -> None:
    good, bad = text_job(model, FILES[0]), text_job(model, b"RIFF nothing")
    engine.submit(bad)
    engine.submit(good)
    with pytest.raises(qa.AudioError, match="clip"):
        bad.future.result(20)
    assert good.future.result(20)


def test_a_text_that_overflows_in_a_step_fails_alone(
    engine: Engine, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one clip become NaN between the encoder and the language model."""
    encode = model.pipeline.encode_audio
    bad, bad_frames = text_job(model, FILES[3]), model.pipeline.log_mel(CLIPS[3]).valid_frames

    def encode_audio(mels: Sequence[qa.LogMel], on_layer: object = None) -> list[torch.Tensor]:
        is_bad = [mel.valid_frames == bad_frames for mel in mels]
        rows = encode(mels)
        return [
            each * float("nan") if broken else each
            for each, broken in zip(rows, is_bad, strict=True)
        ]

    jobs = [text_job(model, data, 40) for data in FILES[:3]]
    for job in jobs:
        engine.submit(job)
    alone = [job.future.result(20) for job in jobs]
    monkeypatch.setattr(model.pipeline, "encode_audio", encode_audio)
    pieces: list[str] = []
    tokens: list[TokenProbability] = []
    jobs = [text_job(model, data, 40) for data in FILES[:2]]
    jobs.append(text_job(model, FILES[2], 40, emit=into(pieces, tokens), top_count=0))
    for job in jobs:
        engine.submit(job)
    wait_for(lambda: len(tokens) > 2)
    engine.submit(bad)
    with pytest.raises(qa.AudioError, match=r"^clip: float32 overflows at lm\.0"):
        bad.future.result(20)
    results = [job.future.result(20)[0] for job in jobs]
    assert [each.token_ids for each in results] == [each.token_ids for (each,) in alone]
    assert "".join(pieces) == alone[2][0].text
    assert tuple(each.token_id for each in tokens) == results[2].token_ids
    np.testing.assert_allclose(
        [each.log_probability for each in tokens],
        [each.log_probability for each in results[2].probabilities],
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_mistake_fails_the_jobs_and_not_the_engine(
    engine: Engine, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(engine._texts, "join", fail)
    job = text_job(model, FILES[0])
    engine.submit(job)
    with pytest.raises(RuntimeError, match="a mistake"):
        job.future.result(20)
    monkeypatch.undo()
    job = text_job(model, FILES[0])
    engine.submit(job)
    assert job.future.result(20)


def test_draining(model: qa.AudioModel, engine: Engine) -> None:
    """An engine of its own; the other one has nothing to do meanwhile."""
    stopping = Engine(model.pipeline, ApiLimits())
    stopping.wait_until_ready()
    job, long = text_job(model, FILES[0], 40), text_job(model, FILES[1], 100_000)
    stopping.submit(job)
    assert stopping.drain(20)
    assert job.future.result(0)
    with pytest.raises(NotReadyError, match=r"^The server is stopping"):
        stopping.submit(text_job(model, FILES[0]))
    stopping.close()
    hurried = Engine(model.pipeline, ApiLimits())
    hurried.wait_until_ready()
    hurried.submit(long)
    assert not hurried.drain(0.05)
    hurried.close()
    with pytest.raises(NotReadyError, match="stopped before the request ended"):
        long.future.result(0)


def test_weights_that_cannot_be_used(checkpoint: Path, tmp_path: Path) -> None:
    name = "language_model.model.layers.1.mlp.down_proj.weight"
    broken = changed_checkpoint(checkpoint, tmp_path / "nan", name, lambda w: w * float("nan"))
    engine = Engine(qa.load(broken, dtype="float32").pipeline, ApiLimits())
    with pytest.raises(qa.CheckpointError, match="holds NaN or infinity"):
        engine.wait_until_ready()
    engine.close()


@pytest.mark.parametrize(
    ("stops", "text"),
    [
        ((), "one two three"),
        (("two",), "one"),
        ((" three", "four"), "one two"),
        (("x",), "one two three"),
        (("one",), ""),
    ],
)
def test_stop_texts(model: qa.AudioModel, stops: tuple[str, ...], text: str) -> None:
    """Nothing of a stop text is emitted, whatever tokens it is made of."""
    tokenizer = model.pipeline.tokenizer
    pieces: list[str] = []
    answer = AnswerText(tokenizer, stops, pieces.append)
    token_ids = tokenizer.encode("one two three")
    for count in range(1, len(token_ids) + 1):
        if not answer.is_stopped:
            answer.update(token_ids[:count], is_last=count == len(token_ids))
    assert answer.text == "".join(pieces) == text
    assert answer.is_stopped == (text != "one two three")
