"""Many recordings and taps: one pass, results in order, pooled as computed, bounded prefetch."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoderLayer

import qwen_audio as qa
from forked import run_forked
from qwen_audio.inference.options import PoolingName, SpanName, check_span
from qwen_audio.inference.pooling import Pooling
from qwen_audio.weights.device import MIN_BATCH_FRAMES
from reference import sound
from reference_pooling import pool

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, dtype="float32")


def threads() -> list[str]:
    """Names of the prefetch threads."""
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith(("audio", "prefetch"))]


def threads_ended() -> bool:
    """Whether these threads end within 2 s."""
    deadline = time.monotonic() + 2
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not threads()


# Any set of taps in one pass.

TAPS = ["mel", "encoder.0", "encoder.2", "encoder.-1", "audio_tower", "projector"]
LM_TAPS = ["lm.0", "lm.1", "lm.-1", "lm.norm"]
CLIP = sound(3.3)
windowings = st.sampled_from([(30.0, None), (2.0, None), (1.0, 0.5), (0.04, None)])


@pytest.mark.slow
@settings(max_examples=20)
@given(
    taps=st.lists(st.sampled_from(TAPS + LM_TAPS), min_size=1, max_size=5),
    pooling=st.sampled_from(get_args(PoolingName)),
    span=st.sampled_from(get_args(SpanName)),
    windowing=windowings,
    lengths=st.lists(st.integers(640, CLIP.size), min_size=1, max_size=3),
)
def test_several_taps_equal_single_taps(
    model: qa.AudioModel,
    taps: list[str],
    pooling: PoolingName,
    span: SpanName,
    windowing: tuple[float, float | None],
    lengths: list[int],
) -> None:
    """And the pooled result of `activations`, for any windows."""
    if span in ("prompt", "last"):
        taps = [tap for tap in taps if tap in LM_TAPS] or ["lm.2"]
    window, hop = windowing
    if window < 1:
        lengths = [min(length, 4000) for length in lengths]
    clips = [CLIP[:length] for length in lengths]
    window_options: dict[str, Any] = {"window_seconds": window, "hop_seconds": hop, **RATE}
    options: dict[str, Any] = {"pooling": pooling, "span": span, **window_options}
    together = model.encode(clips, tap=taps, **options)
    frames = model.activations(clips, taps=taps, **window_options)
    assert list(together) == list(dict.fromkeys(taps))
    for tap, vectors in together.items():
        check_span(span, model.dimensions.tap(tap))
        assert isinstance(vectors, list) == (pooling == "none")
        assert len(vectors) == len(clips)
        single = model.encode(clips, tap=tap, **options)
        for vector_or_rows, alone, states in zip(vectors, single, frames, strict=True):
            expected = pool(states[tap], span, pooling)
            assert vector_or_rows.dtype == np.float32
            np.testing.assert_array_equal(vector_or_rows, alone)
            np.testing.assert_allclose(vector_or_rows, expected, rtol=1e-6, atol=1e-6)
            if pooling != "mean":
                np.testing.assert_array_equal(vector_or_rows, expected)


def test_one_recording_gives_one_dict(model: qa.AudioModel) -> None:
    encoded = model.encode(CLIP, tap=["lm.-1", qa.Tap.parse("mel")], **RATE)
    assert {name: vector.shape for name, vector in encoded.items()} == {
        "lm.-1": (96,),
        "mel": (80,),
    }
    empty = model.encode([], tap=("mel", "lm.0"))
    assert {name: vectors.shape for name, vectors in empty.items()} == {
        "mel": (0, 80),
        "lm.0": (0, 96),
    }
    with pytest.raises(qa.OptionError, match="taps is empty"):
        model.encode(CLIP, tap=[], **RATE)
    with pytest.raises(qa.OptionError, match="at tap mel"):
        model.encode(CLIP, tap=["lm.0", "mel"], span="last", **RATE)
    with pytest.raises(qa.OptionError, match="with mel, audio_tower"):
        model.encode(CLIP, tap=["mel", "audio_tower"], prompt="What?", **RATE)


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kinds of the layers that ran, in order."""
    run: list[str] = []
    for kind, name in ((Qwen2AudioEncoderLayer, "encoder"), (Qwen2DecoderLayer, "lm")):
        forward = kind.forward

        def counted(
            layer: Any, *args: Any, _forward: Any = forward, _name: str = name, **options: Any
        ) -> Any:
            run.append(_name)
            return _forward(layer, *args, **options)

        monkeypatch.setattr(kind, "forward", counted)
    return run


@pytest.mark.parametrize(
    ("taps", "expected"),
    [
        (["mel"], []),
        (["encoder.0", "mel"], []),
        (["encoder.2", "encoder.1", "encoder.0"], ["encoder"] * 2),
        (["audio_tower", "encoder.1", "encoder.3", "mel"], ["encoder"] * 3),
        (["lm.0", "projector"], ["encoder"] * 3),
        (["lm.2", "lm.1", "encoder.2", "lm.0"], ["encoder"] * 3 + ["lm"] * 2),
        (["lm.norm", "lm.-1"], ["encoder"] * 3 + ["lm"] * 3),
    ],
)
def test_layers_run_once_and_stop_after_the_deepest(
    taps: list[str], expected: list[str], model: qa.AudioModel, layers: list[str]
) -> None:
    model.encode([CLIP, CLIP[:9000]], tap=taps, **RATE)
    assert layers == expected
    del layers[:]
    model.activations([CLIP, CLIP[:9000]], taps=taps, **RATE)
    assert layers == expected


@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
def test_pooled_rows_are_freed(
    model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch, pooling: PoolingName
) -> None:
    """When a tap is pooled, the rows of earlier taps are freed; only vectors remain."""
    seen: list[tuple[int, weakref.ref[Any]]] = []
    stale: list[int] = []
    window = Pooling.pool_window

    def watched(how: Pooling, rows: Any, runs: Any) -> Any:
        tap = len(seen) // 2  # of two clips
        stale.append(sum(ref() is not None for of, ref in seen if of < tap))
        seen.append((tap, weakref.ref(rows)))
        pooled = window(how, rows, runs)
        values = pooled.values
        assert values.untyped_storage().nbytes() == rows.shape[1] * values.element_size()
        return pooled

    monkeypatch.setattr(Pooling, "pool_window", watched)
    taps = ["lm.0", "lm.1", "lm.2", "lm.3", "lm.norm"]
    model.encode([CLIP, CLIP[:9000]], tap=taps, pooling=pooling, **RATE)
    assert stale == [0] * 10


# One recording after another.


LONG = [sound(30.0, seed) for seed in range(3)]


def endless(made: list[int], clips: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Endless recordings; `made` lists those requested."""
    for number in itertools.count():
        made.append(number)
        yield clips[number % len(clips)]


def test_an_endless_stream_gives_vectors_in_order(model: qa.AudioModel) -> None:
    made: list[int] = []
    vectors: Any = model.encode_each(endless(made, LONG), tap="encoder.0", **RATE)
    assert made == []  # nothing before the first request
    expected = [model.encode(clip, tap="encoder.0", **RATE) for clip in LONG]
    for number in range(7):
        np.testing.assert_allclose(next(vectors), expected[number % 3], atol=1e-5)
    vectors.close()
    assert threads_ended()


@pytest.mark.slow
def test_prefetch_is_bounded(model: qa.AudioModel) -> None:
    """One batch in use, one ready, one begun, and some recordings being decoded."""
    made: list[int] = []
    vectors: Any = model.encode_each(endless(made, LONG), tap="mel", **RATE)
    next(vectors)
    before = -1
    while before != len(made):  # until the bound is reached
        before = len(made)
        time.sleep(1)
    batch = MIN_BATCH_FRAMES // 1500
    assert 6 <= len(made) <= 3 * batch + 2 + 5
    vectors.close()
    assert threads_ended()


@pytest.mark.parametrize("end", ["close", "forget"])
def test_closing_early_ends_the_threads(model: qa.AudioModel, end: str) -> None:
    vectors: Any = model.encode_each(endless([], [CLIP]), tap="mel", **RATE)
    next(vectors)
    assert threads()
    if end == "close":
        vectors.close()
    del vectors
    assert threads_ended()


def test_an_error_ends_the_threads(model: qa.AudioModel) -> None:
    """Even while the error and its traceback are referenced."""
    inputs = itertools.chain([sound(0.5), b"no sound"], endless([], [CLIP]))
    with pytest.raises(qa.AudioError) as raised:
        for _ in model.encode_each(inputs, tap="mel", **RATE):
            pass
    assert raised.value.__traceback__ is not None
    assert threads_ended()


def test_an_error_of_the_input_iterator_is_raised_unchanged(model: qa.AudioModel) -> None:
    def inputs() -> Iterator[np.ndarray]:
        yield sound(0.5)
        raise LookupError("the list of files is gone")

    with pytest.raises(LookupError, match="the list of files is gone"):
        list(model.encode_each(inputs(), tap="mel", **RATE))
    assert threads_ended()


BROKEN: list[Any] = [
    b"no sound",
    "/no/such/file.wav",
    np.zeros(100, np.float32),
    np.full(16_000, np.nan, np.float32),
    None,
]


@pytest.mark.slow
@settings(max_examples=15)
@given(st.lists(st.one_of(st.integers(0, 4), st.integers(-5, -1)), max_size=8), windowings)
def test_errors_are_yielded_in_order(
    model: qa.AudioModel, numbers: list[int], windowing: tuple[float, float | None]
) -> None:
    """Numbers from 0 are valid recordings, negative ones broken."""
    window, hop = windowing
    options: dict[str, Any] = {"tap": ["encoder.1", "lm.1"], "window_seconds": window, **RATE}
    options["hop_seconds"] = hop
    clips = {number: sound(0.2 + number / 3, number) for number in range(5)}
    inputs = [clips[number] if number >= 0 else BROKEN[number] for number in numbers]
    results = list(model.encode_each(inputs, errors="yield", **options))
    assert len(results) == len(numbers)
    whole = {n: model.encode(clip, **options) for n, clip in clips.items() if n in numbers}
    for number, result in zip(numbers, results, strict=True):
        if number < 0:
            assert isinstance(result, qa.AudioError)
            continue
        for tap, vector in result.items():
            np.testing.assert_allclose(vector, whole[number][tap], atol=2e-5)
    if any(number < 0 for number in numbers):
        with pytest.raises(qa.AudioError):
            list(model.encode_each(inputs, **options))
        with pytest.raises(qa.AudioError):
            model.encode(inputs, **options)
    assert threads_ended()


def test_endless_broken_recordings_yield_errors(model: qa.AudioModel) -> None:
    errors = model.encode_each(itertools.repeat(b"no sound"), errors="yield", tap="mel")
    for _ in range(3):
        assert isinstance(next(errors), qa.AudioError)
    errors.close()  # type: ignore[attr-defined]
    assert threads_ended()


INVALID_OPTIONS = {
    "errors='ignore'": "errors='ignore': use 'raise' or 'yield'",
    "errors=''": "use 'raise' or 'yield'",
    "pooling='sum'": "use one of mean",
    "span='last'": "only the language model",
    "tap='lm.99'": "lm.99",
    "tap=['mel', 'lm.99']": "lm.99",
    "tap=[]": "empty",
    "window_seconds=31": "31",
    "track=-1": "track=-1: use a whole number from 0",
    "track=True": "track=True: use a whole number",
    "on_damage='ignore'": "on_damage='ignore': use 'raise' or 'partial'",
    "prompt='What?'": "reads a prompt",
}


@pytest.mark.slow
def test_invalid_options_fail_at_the_call() -> None:
    """Not at the first vector. In a process of its own, without the type checks of tests."""
    program = """
import sys
import qwen_audio as qa
model = qa.load()
for options in sys.argv[1:]:
    try:
        eval("model.encode_each(iter([]), " + options + ")")
        print("nothing")
    except qa.QwenAudioError as error:
        print(error)
"""
    errors = run_forked(program, *INVALID_OPTIONS).splitlines()
    for message, error in zip(INVALID_OPTIONS.values(), errors, strict=True):
        assert message in error


@pytest.mark.slow
def test_mixed_files_and_arrays_keep_their_order(model: qa.AudioModel, tmp_path: Path) -> None:
    """Files that take long to decode beside arrays that need no decoding."""
    inputs: list[Any] = []
    clips = [sound(0.1 if number % 3 else 12.0, number) for number in range(9)]
    for number, clip in enumerate(clips):
        path = tmp_path / f"{number}.flac"
        soundfile.write(path, clip, 16_000, subtype="PCM_24")
        inputs.append([path, path.read_bytes(), str(path)][number % 3])
    encoded = list(model.encode_each(iter(inputs)))
    expected = [model.encode(clip, **RATE) for clip in clips]
    np.testing.assert_allclose(encoded, expected, atol=1e-4)
    assert np.abs(np.diff(expected, axis=0)).max(1).min() > 1e-2  # they differ


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_recordings(checkpoint: Path) -> None:
    """In a process of its own: MB that 160 more clips add to its peak."""
    program = f"""
import resource
import numpy as np
import qwen_audio as qa
model = qa.load({str(checkpoint)!r}, max_memory="8GB", dtype="float32")
clip = np.random.default_rng(0).normal(size=48_000).astype(np.float32) / 10
def run(count):
    clips = (clip * (1 - k / 10_000) for k in range(count))
    assert sum(1 for _ in model.encode_each(clips, tap="encoder.0", sampling_rate=16_000)) == count
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
run(40)
before = run(40)
print(run(200) - before)
"""
    assert float(run_forked(program)) < 20  # their samples alone are 31 MB


# Where rows are from.


def test_one_vector_a_window(model: qa.AudioModel) -> None:
    """Overlapping windows of a long recording: vectors equal those of the windows alone."""
    options: dict[str, Any] = {"window_seconds": 1.0, "hop_seconds": 0.5, **RATE}
    vectors = model.encode(CLIP, per="window", **options)
    starts = np.arange(6) * 0.5
    assert vectors.shape == (6, 64)
    np.testing.assert_array_equal(vectors.window, np.arange(6))
    np.testing.assert_allclose(vectors.start_seconds, starts)
    np.testing.assert_allclose(vectors.end_seconds, np.minimum(starts + 1, 3.3))
    assert set(vectors.source) == {"array (52800,)"}
    assert vectors.spec == model.spec(window_seconds=1.0, hop_seconds=0.5)
    for vector, start in zip(vectors, starts, strict=True):
        alone = model.encode(CLIP[round(start * 16_000) :][:16_000], **RATE)
        np.testing.assert_allclose(vector, alone, atol=1e-5)
    several = model.encode([CLIP, CLIP[:20_000]], tap=["mel", "lm.1"], per="window", **options)
    assert [len(rows) for rows in several["lm.1"]] == [6, 2]
    np.testing.assert_array_equal(several["mel"][1].start_seconds, [0, 0.5])
    assert list(map(len, model.encode_each([CLIP], per="window", **options))) == [6]
    with pytest.raises(qa.OptionError, match="per='window' has no effect with pooling='none'"):
        model.encode(CLIP, per="window", pooling="none", **RATE)
    with pytest.raises(qa.OptionError, match="use one of recording, window"):
        model.encode(CLIP, per="file", **RATE)  # type: ignore[call-overload]


def test_one_vector_a_recording(model: qa.AudioModel, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, CLIP, 16_000)
    vectors = model.encode([path, qa.Waveform(CLIP[:20_000], name="b")], window_seconds=1.0)
    assert vectors.source.tolist() == [str(path), "b"]
    assert vectors.window.tolist() == [-1, -1]
    np.testing.assert_allclose(vectors.start_seconds, [0, 0])
    np.testing.assert_allclose(vectors.end_seconds, [3.3, 1.25])
    assert vectors[1].source.tolist() == ["b"]


@pytest.mark.parametrize("span", get_args(SpanName))
@pytest.mark.parametrize("tap", ["mel", "encoder.1", "projector", "lm.1"])
def test_unpooled_rows_have_the_index_of_hidden_states(
    model: qa.AudioModel, tap: str, span: SpanName
) -> None:
    if span in ("prompt", "last") and tap != "lm.1":
        return
    options: dict[str, Any] = {"window_seconds": 1.0, **RATE}
    rows = model.encode(CLIP, tap=tap, pooling="none", span=span, **options)
    states = model.activations(CLIP, taps=[tap], **options)[tap]
    chosen = np.arange(len(states))
    if span in ("audio", "prompt"):
        chosen = states.indices(span)
    elif span == "last":
        stops = [s.stop for s in states.spans]
        chosen = np.array(
            [
                s - 1
                for s, n in zip(stops, states.spans, strict=True)
                if s == len(states) or states.index.window[s] != n.window
            ]
        )
    np.testing.assert_array_equal(rows, states.data[chosen])
    for name, column in states.index[chosen].columns().items():
        expected = np.full(len(chosen), "last") if (name, span) == ("span", "last") else column
        np.testing.assert_array_equal(rows.index.columns()[name], expected)
    assert (rows.index.token is not None) == (tap == "lm.1")


def test_tokens_are_the_prompts(model: qa.AudioModel) -> None:
    states = model.activations(CLIP[:9000], taps=["mel", "lm.0"], generate=3, **RATE)
    assert states["mel"].tokens == ()
    tokens = states["lm.0"].tokens
    text = "".join(token for token in tokens[: states["lm.0"].indices("generated")[0]])
    assert text == "<|audio_bos|><|audio_eos|>Describe the music:"
    answer = model.describe(CLIP[:9000], max_new_tokens=3, **RATE).answers[0]
    decoded = [model.pipeline.tokenizer.decode_token(token) for token in answer.token_ids]
    assert [tokens[row] for row in states["lm.0"].indices("generated")] == decoded
    assert {tokens[row] for row in states["lm.0"].indices("audio")} == {""}


def test_progress_is_by_window(model: qa.AudioModel) -> None:
    calls: list[tuple[Any, ...]] = []
    options: dict[str, Any] = {"tap": "mel", "window_seconds": 0.5, **RATE}
    clips = [CLIP[:16_000], CLIP[:8000]]
    model.encode(clips, on_progress=lambda *call: calls.append(call), **options)
    assert {call[0::3] for call in calls} == {("encoding", "recordings")}
    seconds = [(done, total, seconds) for _, done, total, _, seconds in calls]
    assert seconds[0] == (0, 2, 0.0)
    assert list(dict.fromkeys(seconds[1:])) == [
        *((0, 2, 0.5), (0, 2, 1.0), (1, 2, 1.0)),
        *((1, 2, 1.5), (2, 2, 1.5)),
    ]


@pytest.mark.parametrize("tap", ["mel", "encoder.1", "projector", "lm.1", "lm.norm"])
def test_tensors_are_the_rows_without_a_copy(model: qa.AudioModel, tap: str) -> None:
    """They can be used in training: autograd takes them."""
    states = model.activations(CLIP, taps=[tap], return_tensors="pt", **RATE)[tap]
    expected = model.activations(CLIP, taps=[tap], **RATE)[tap]
    assert isinstance(states.data, torch.Tensor)
    np.testing.assert_array_equal(states.data.numpy(), expected.data)
    np.testing.assert_array_equal(np.asarray(states), expected)
    assert states.to_torch() is states.data
    rows = model.encode(CLIP, tap=tap, pooling="none", span="all", return_tensors="pt", **RATE)
    np.testing.assert_array_equal(rows.numpy(), expected.data)
    pooled = model.encode([CLIP] * 2, tap=tap, return_tensors="pt", **RATE)
    np.testing.assert_array_equal(pooled.numpy(), model.encode([CLIP] * 2, tap=tap, **RATE))
    weight = torch.ones(rows.shape[1], requires_grad=True)
    (rows @ weight).sum().backward()
    assert weight.grad is not None
    with pytest.raises(qa.OptionError, match="use 'np'"):
        model.encode(CLIP, return_tensors="tf", **RATE)  # type: ignore[call-overload]
