"""The methods of the model: same inputs, same windows, lists in and lists out, nothing dropped."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import qwen_audio as qa
from checkpoints import edit_json, random_checkpoint
from qwen_audio.models.tap import Tap
from qwen_audio.weights.tensor_store import TensorStore
from reference import sound
from reference_pooling import last_rows

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint)


def test_weights_are_read_when_needed(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = TensorStore.read_weights

    def spy(self: Any, prefix: str, **options: Any) -> Any:
        tensors = original(self, prefix, **options)
        read.extend(prefix + name for name in tensors)
        return tensors

    monkeypatch.setattr(TensorStore, "read_weights", spy)
    model = qa.load(checkpoint)
    assert read == []
    model.encode(sound(1), tap="mel", **RATE)
    assert read == []
    model.encode(sound(1), tap="encoder.1", **RATE)
    assert len(read) == model.cost("encoder.1").tensors
    model.encode(sound(1), tap="encoder.1", **RATE)
    assert len(read) == model.cost("encoder.1").tensors
    model.describe(sound(1), max_new_tokens=1, **RATE)
    # All but the embedding table, of which single rows are read.
    assert len(read) == len(set(read)) == model.cost(None).tensors - 1


def test_shapes(model: qa.AudioModel) -> None:
    clip, geometry = sound(1.0), model.dimensions
    assert model.encode(clip, **RATE).shape == (geometry.encoder_width,)
    assert model.encode([clip], **RATE).shape == (1, geometry.encoder_width)
    assert model.encode([clip, clip[:8000]], tap="projector", **RATE).shape == (
        2,
        geometry.lm_width,
    )
    assert model.encode([], **RATE).shape == (0, geometry.encoder_width)
    assert model.encode(clip, tap="encoder.2", pooling="none", **RATE).shape == (50, 64)
    listed = model.encode([clip, clip[:8000]], tap="mel", pooling="none", **RATE)
    assert [rows.shape for rows in listed] == [(100, 80), (50, 80)]
    assert model.encode(clip, tap="lm.2", **RATE).dtype == np.float32


def test_encode_is_activations_pooled(model: qa.AudioModel) -> None:
    clip = sound(2.0)
    frames = model.activations(clip, taps=["lm.1"], prompt="What?", **RATE)["lm.1"]
    ids = len(frames) - 50
    assert [span.kind for span in frames.spans] == ["prompt", "audio", "prompt"]
    audio = frames.data[frames.indices("audio")]
    assert len(audio) == 50
    options: dict[str, Any] = {"tap": "lm.1", "prompt": "What?", **RATE}
    np.testing.assert_allclose(model.encode(clip, **options), audio.mean(0), atol=1e-5)
    np.testing.assert_array_equal(model.encode(clip, pooling="max", **options), audio.max(0))
    np.testing.assert_array_equal(model.encode(clip, pooling="last", **options), audio[-1])
    last = model.encode(clip, span="last", **options)
    np.testing.assert_allclose(last, frames.data[-1], atol=1e-6)
    text = model.encode(clip, span="prompt", pooling="none", **options)
    assert len(text) == ids
    everything = model.encode(clip, span="all", pooling="none", **options)
    np.testing.assert_array_equal(everything, frames.data)


def test_all_kinds_of_input_give_the_same_vector(model: qa.AudioModel, tmp_path: Path) -> None:
    clip = sound(1.0)
    path = tmp_path / "clip.wav"
    soundfile.write(path, clip, 16_000, subtype="FLOAT")
    expected = model.encode(clip, **RATE)
    with path.open("rb") as opened:
        inputs = [str(path), path, path.read_bytes(), opened, qa.load_waveform(path)]
        vectors = model.encode(inputs)
    for vector in vectors:
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    np.testing.assert_array_equal(model.encode(torch.from_numpy(clip), **RATE), expected)


def test_every_method_takes_arrays_and_lists(model: qa.AudioModel) -> None:
    clips = [sound(0.5), sound(1.0)]
    assert len(model.describe(clips, max_new_tokens=2, **RATE)) == 2
    assert len(model.activations(clips, taps=["mel"], **RATE)) == 2
    assert len(model.session(clips, **RATE)) == 2
    assert len(model.inspect(clips, **RATE)) == 2
    for empty in (model.describe([]), model.session([]), model.inspect([])):
        assert empty == []
    assert model.activations([], taps=["mel"]) == []


def test_long_audio_is_processed_in_windows(model: qa.AudioModel) -> None:
    clip = np.concatenate([sound(30.0, 1), sound(12.5, 2)])
    frames = model.activations(clip, taps=["audio_tower", "lm.0"], **RATE)
    tower = frames["audio_tower"]
    assert [str(window) for window in tower.windows] == ["0:00–0:30", "0:30–0:42.50"]
    assert len(tower) == 750 + 312
    assert tower.start_seconds[749] == pytest.approx(29.96)
    assert tower.start_seconds[750] == pytest.approx(30.0)
    assert tower.start_seconds[-1] == pytest.approx(42.44)
    whole = model.encode(clip, pooling="none", **RATE)
    np.testing.assert_array_equal(whole, tower.data)
    second = model.encode(clip[480_000:], pooling="none", **RATE)
    np.testing.assert_allclose(whole[750:], second, atol=2e-5)
    assert [span.window for span in frames["lm.0"].spans] == [0, 0, 0, 1, 1, 1]
    assert last_rows(frames["lm.0"]) == [755, 755 + 6 + 312]
    description = model.describe(clip, max_new_tokens=3, **RATE)
    assert [answer.audio_tokens for answer in description.answers] == [750, 312]
    assert description == "\n".join(
        f"{qa.Window(a.start_seconds, a.end_seconds)}  {a.text}" for a in description.answers
    )


def test_windows_can_overlap(model: qa.AudioModel) -> None:
    frames = model.activations(
        sound(3.0), taps=["audio_tower"], window_seconds=2.0, hop_seconds=1.0, **RATE
    )["audio_tower"]
    assert [str(window) for window in frames.windows] == ["0:00–0:02", "0:01–0:03"]
    assert len(frames) == 100


def test_generated_rows_follow_the_prompt(model: qa.AudioModel) -> None:
    clip = sound(1.0)
    frames = model.activations(clip, taps=["lm.0", "lm.norm"], generate=4, **RATE)["lm.norm"]
    description = model.describe(clip, max_new_tokens=4, **RATE).answers[0]
    assert len(frames.indices("generated")) == len(description.token_ids) == 4
    assert frames.spans[-1].kind == "generated"
    assert last_rows(frames) == [len(frames) - 5]
    without = model.activations(clip, taps=["lm.norm"], **RATE)["lm.norm"]
    np.testing.assert_allclose(frames.data[: len(without)], without.data, atol=1e-5)


def test_sampling_is_repeatable_and_does_not_depend_on_the_batch(model: qa.AudioModel) -> None:
    options: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "seed": 3, "max_new_tokens": 8}
    clips = [sound(1.0, 1), sound(1.5, 2)]
    together = model.describe(clips, **options, **RATE)
    assert together == [model.describe(clip, **options, **RATE) for clip in clips]
    other = model.describe(clips, **{**options, "seed": 4}, **RATE)
    assert other != together
    assert model.describe(clips[0], max_new_tokens=8, **RATE) != together[0]


def test_streamed_text_equals_the_result(model: qa.AudioModel) -> None:
    clip = np.concatenate([sound(30.0, 1), sound(2.0, 2)])
    chunks: list[str] = []
    description = model.describe(clip, stream=chunks.append, max_new_tokens=6, **RATE)
    assert "".join(chunks) == description == model.describe(clip, max_new_tokens=6, **RATE)
    assert len(chunks) > 6


def test_an_answer_states_its_input_and_whether_it_is_complete(tmp_path: Path) -> None:
    folder = random_checkpoint(tmp_path / "stops")
    model = qa.load(folder)
    description = model.describe(sound(1.0), max_new_tokens=2, **RATE)
    (answer,) = description.answers
    assert (answer.audio_tokens, answer.prompt_tokens) == (25, 6)
    assert (answer.start_seconds, answer.end_seconds) == (0.0, 1.0)
    assert not answer.complete
    assert not description.complete
    stop = answer.token_ids[0]
    edit_json(folder / "generation_config.json", eos_token_id=stop)
    description = qa.load(folder).describe(sound(1.0), max_new_tokens=2, **RATE)
    assert description.complete
    assert description.answers[0].token_ids == (stop,)
    assert [a.ended_by for a in (answer, *description.answers)] == ["max_new_tokens", "stop token"]


def test_an_answer_ends_where_the_models_context_is_full(tmp_path: Path) -> None:
    """And the other answers of the batch don't."""
    folder = random_checkpoint(tmp_path)
    clips, options = [sound(0.2), sound(0.6), sound(0.1)], {"max_new_tokens": 9, **RATE}
    expected = qa.load(folder).describe(clips, **options)
    positions = 6 + 15  # of the prompt and the longest clip
    for extra in (0, 4):
        edit_json(folder / "config.json", text_config__max_position_embeddings=positions + extra)
        model = qa.load(folder)
        descriptions = model.describe(clips, **options)
        for description, whole in zip(descriptions, expected, strict=True):
            (answer,) = description.answers
            free = positions + extra - answer.audio_tokens - answer.prompt_tokens
            assert answer.token_ids == whole.answers[0].token_ids[: free + 1]
            assert answer.ended_by == ("context" if free + 1 < 9 else "max_new_tokens")
            assert not answer.complete
        assert model.session(clips[1], **RATE).ask(max_new_tokens=9) == descriptions[1]
        taps = model.activations(clips, taps=["lm.-1"], generate=9, **RATE)
        rows = [len(states["lm.-1"].indices("generated")) for states in taps]
        assert rows == [min(9, extra + 15 - tokens) for tokens in (5, 15, 2)]


def test_inspect_shapes_equal_activations(model: qa.AudioModel) -> None:
    clip = np.concatenate([sound(30.0, 1), sound(7.013, 2)])
    trace = model.inspect(clip, **RATE)
    taps = [str(tap) for tap in model.taps]
    frames = model.activations(clip, taps=taps, **RATE)
    for tap in trace.taps:
        assert frames[tap.tap].data.shape == (tap.rows, tap.width)
    assert [tap.tap for tap in trace.taps] == taps


def test_a_30_second_clip_with_the_default_prompt(model: qa.AudioModel) -> None:
    (window,) = model.inspect(sound(30.0), prompt="Describe the music:", **RATE).windows
    assert (window.prompt_tokens, window.positions) == (6, 756)
    assert (window.mel_frames, window.encoder_frames, window.audio_tokens) == (3000, 1500, 750)


def test_the_spec_names_what_decides_a_vector(model: qa.AudioModel, checkpoint: Path) -> None:
    spec = model.spec("lm.-1", prompt="What?", pooling="last", window_seconds=10.0)
    assert (spec.tap, spec.window_seconds, spec.hop_seconds) == ("lm.3", 10.0, 10.0)
    assert spec.prompt == "<|audio_bos|><|AUDIO|><|audio_eos|>What?"
    assert spec.model == str(checkpoint)
    assert qa.EmbeddingSpec.from_json(spec.to_json()) == spec
    assert model.spec("mel").fingerprint != model.spec("encoder.0").fingerprint


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, c: m.encode(c, tap="encoder.9", **RATE), qa.TapError, "encoder.0 to encoder.3"),
        (lambda m, c: m.encode(c, tap="decoder.1", **RATE), qa.TapError, "not a tap"),
        (lambda m, c: m.encode(c, span="last", **RATE), qa.OptionError, "language model"),
        (lambda m, c: m.encode(c, prompt="What?", **RATE), qa.OptionError, "reads a prompt"),
        (lambda m, c: m.encode(c), qa.AudioError, "sampling_rate"),
        (lambda m, c: m.activations(c, taps=[], **RATE), qa.OptionError, "empty"),
        (lambda m, c: m.activations(c, taps="mel", **RATE), qa.OptionError, "list of taps"),
        (lambda m, c: m.activations(c, taps=["mel"], generate=2, **RATE), qa.OptionError, "lm.K"),
        (lambda m, c: m.describe(c, window_seconds=31.0, **RATE), qa.OptionError, "30"),
        (lambda m, c: m.describe(c, hop_seconds=31.0, **RATE), qa.OptionError, "left out"),
        (lambda m, c: m.describe(c, max_new_tokens=0, **RATE), qa.OptionError, "from 1 to"),
        (lambda m, c: m.describe(c, temperature=-1.0, **RATE), qa.OptionError, "greedy"),
        (lambda m, c: m.describe(c, top_p=0.5, **RATE), qa.OptionError, "does nothing"),
        (lambda m, c: m.describe(c, prompt="<|AUDIO|><|AUDIO|>", **RATE), qa.OptionError, "chat"),
        (lambda m, c: m.describe([c], stream=print, **RATE), qa.OptionError, "at a time"),
        (lambda m, c: m.describe(c, prompt="a " * 5000, **RATE), qa.OptionError, "at most 4096"),
        (lambda m, c: m.session(c, **RATE).ask("?", follow_up=True), qa.OptionError, "no turns"),
    ],
)
def test_invalid_options(
    model: qa.AudioModel, call: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        call(model, sound(0.5))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_unknown_options_fail(model: qa.AudioModel) -> None:
    with pytest.raises(TypeError, match="normalise"):
        model.encode(sound(0.5), normalise=True, **RATE)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu:7"}, "try 'cpu'"),
        ({"dtype": "int8"}, "float32, bfloat16, float16"),
        ({"revision": "main"}, "folder"),
    ],
)
def test_load_errors(checkpoint: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(qa.QwenAudioError) as raised:
        qa.load(checkpoint, **options)
    assert message in str(raised.value)


def test_bfloat16_is_close_and_stated(checkpoint: Path, model: qa.AudioModel) -> None:
    coarse = qa.load(checkpoint, dtype="bfloat16")
    clip = sound(1.0)
    frames = coarse.activations(clip, taps=["audio_tower"], **RATE)["audio_tower"]
    assert frames.dtype == "bfloat16"
    assert coarse.spec().dtype == "bfloat16"
    exact = model.encode(clip, pooling="none", **RATE)
    cosine = (frames.data * exact).sum(1) / (
        np.linalg.norm(frames.data, axis=1) * np.linalg.norm(exact, axis=1)
    )
    assert cosine.min() > 0.999
    assert np.abs(frames.data - exact).max() > 1e-4


def test_taps_can_be_objects_and_keep_their_names(model: qa.AudioModel) -> None:
    found = model.activations(sound(0.5), taps=["lm.-1", Tap.parse("mel")], **RATE)
    assert list(found) == ["lm.-1", "mel"]
    assert str(found["lm.-1"].tap) == "lm.3"


def test_a_model_that_stops_at_turns_uses_the_chat_template(tmp_path: Path) -> None:
    folder = random_checkpoint(tmp_path / "instruct")
    edit_json(folder / "generation_config.json", eos_token_id=[1093, 1095])
    spec = qa.load(folder).spec("lm.0", prompt="What?")
    assert spec.prompt is not None
    assert spec.prompt.endswith("What?<|im_end|>\n<|im_start|>assistant\n")
    plain = qa.load(folder, chat=False).spec("lm.0", prompt="What?")
    assert plain.prompt == "<|audio_bos|><|AUDIO|><|audio_eos|>What?"


def test_results_can_be_copied_and_pickled(model: qa.AudioModel) -> None:
    description = model.describe(sound(0.5), max_new_tokens=2, **RATE)
    for copied in (
        copy.copy(description),
        copy.deepcopy(description),
        pickle.loads(pickle.dumps(description)),
    ):
        assert copied == description
        assert copied.answers == description.answers
        assert copied.source == description.source


def test_a_pickled_model_is_loaded_again(checkpoint: Path) -> None:
    """As a worker process gets it: no weights, and what decides its vectors and answers."""
    options: dict[str, Any] = {"dtype": "bfloat16", "chat": True}
    model = qa.load(checkpoint, device=torch.device("cpu"), **options)
    model.encode(sound(0.5), **RATE)
    pickled = pickle.dumps(model)
    assert len(pickled) < 1000
    copied = pickle.loads(pickled)
    assert copied.spec("lm.1", prompt="What?") == model.spec("lm.1", prompt="What?")
    clip = sound(0.5)
    np.testing.assert_array_equal(copied.encode(clip, **RATE), model.encode(clip, **RATE))
    limited = pickle.loads(pickle.dumps(qa.load(checkpoint, max_memory="500MB")))
    with pytest.raises(qa.OptionError, match="only 500MB may be used"):
        limited.describe(clip, **RATE)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ((np.zeros(800), 16_000), "with a tuple, which states its own rate"),
        ([0.0, 0.1], "a list holds several recordings"),
        ([np.zeros((32, 800))], "give several recordings as a list"),
    ],
)
def test_inputs_of_other_libraries(model: qa.AudioModel, audio: Any, message: str) -> None:
    with pytest.raises(qa.AudioError, match=message):
        model.encode(audio, sampling_rate=16_000)
