"""Edits: as transformers with hooks, in any batch; what they leave alone, and what they state."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import qwen_audio as qa
from edit_hooks import edited_logits
from families import CASES
from qwen_audio.errors import TapError
from qwen_audio.inference.decoder_input import DecoderInput
from qwen_audio.inference.edits import EditPlace
from reference import Reference, relative_error, sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}
CLIP, OTHER = sound(1.0), sound(1.37, seed=1)
TAPS = ("mel", "encoder.0", "encoder.2", "audio_tower", "projector", "lm.0", "lm.2", "lm.norm")
INNER = ("lm.2.heads", "lm.2.attention", "lm.1.mlp")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, dtype="float32")


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Reference:
    return Reference(checkpoint)


def logits(model: qa.AudioModel, clips: list[np.ndarray]) -> list[np.ndarray]:
    """Of all positions of each clip, in one pass."""
    states = model.activations(clips, taps=["lm.norm"], return_tensors="pt", **RATE)
    return [model.pipeline.lm.logits(each["lm.norm"].data).numpy() for each in states]


def halve_and_roll(rows: Tensor) -> Tensor:
    return 0.5 * rows.roll(1, 0) + 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tap", "span"),
    [
        *((tap, "audio") for tap in (*TAPS, *INNER)),
        *(("lm.1", span) for span in ("prompt", "last", "all")),
    ],
)
def test_an_edit_equals_transformers_with_a_hook(
    model: qa.AudioModel, reference: Reference, tap: str, span: str
) -> None:
    expected = edited_logits(reference, CLIP, tap, span, halve_and_roll)
    with model.edit(tap, halve_and_roll, span=span):
        alone = logits(model, [CLIP])[0]
        batch = logits(model, [OTHER, CLIP])[1]
    assert relative_error(alone, expected) <= 1e-5
    assert relative_error(batch, expected) <= 1e-5
    unedited = logits(model, [CLIP])[0]
    assert tap == "lm.norm" or relative_error(unedited, expected) > 1e-3


def test_identity_changes_no_bit(model: qa.AudioModel) -> None:
    taps = list(map(str, model.dimensions.taps(inside_layers=True)))
    clips = [CLIP, OTHER]
    before = model.activations(clips, taps=taps, generate=3, **RATE)
    text = model.describe(clips, max_new_tokens=5, **RATE)
    with ExitStack() as stack:
        for tap in taps:
            stack.enter_context(model.edit(tap, qa.edits.identity(), span="all"))
        after = model.activations(clips, taps=taps, generate=3, **RATE)
        again = model.describe(clips, max_new_tokens=5, **RATE)
    assert len(before[0]["lm.1"].indices("generated")) == 3
    for one, two in zip(before, after, strict=True):
        for tap in taps:
            np.testing.assert_array_equal(one[tap].data, two[tap].data)
    assert [t.answers[0].token_ids for t in text] == [t.answers[0].token_ids for t in again]


def test_a_layer_adds_its_parts(model: qa.AudioModel) -> None:
    taps = ["lm.1", "lm.2.attention", "lm.2.mlp", "lm.2", "lm.2.heads"]
    states = model.activations(CLIP, taps=taps, **RATE)
    one, attention, mlp, two, heads = (states[tap].data for tap in taps)
    np.testing.assert_allclose(one + attention + mlp, two, atol=1e-5)
    with model.edit("lm.2.heads", qa.edits.scale_heads([1], 0.0), span="all"):
        zeroed = model.activations(CLIP, taps=["lm.2.heads"], **RATE)["lm.2.heads"].data
    by_head = zeroed.reshape(len(zeroed), 4, -1)
    assert not by_head[:, 1].any()
    np.testing.assert_array_equal(by_head[:, 0], heads.reshape(by_head.shape)[:, 0])
    assert model.encode(CLIP, tap="lm.2.attention", **RATE).shape == (96,)


def test_edits_act_in_the_order_in_which_they_are_entered(model: qa.AudioModel) -> None:
    one, two = qa.edits.add(np.ones(64)), qa.edits.scale(2.0)
    base = model.encode(CLIP, **RATE)
    with model.edit("audio_tower", one), model.edit("audio_tower", two):
        np.testing.assert_allclose(model.encode(CLIP, **RATE), 2 * (base + 1), rtol=1e-5, atol=1e-5)
        nested = model.spec().edits
    with model.edit("audio_tower", two), model.edit("audio_tower", one):
        np.testing.assert_allclose(model.encode(CLIP, **RATE), 2 * base + 1, rtol=1e-5, atol=1e-5)
        assert model.spec().edits != nested
    np.testing.assert_array_equal(model.encode(CLIP, **RATE), base)


def test_each_of_the_edits(model: qa.AudioModel) -> None:
    rows = model.encode(CLIP, pooling="none", **RATE)

    def after(edit: Any) -> np.ndarray:
        with model.edit("audio_tower", edit):
            return np.asarray(model.encode(CLIP, pooling="none", **RATE))

    edits = qa.edits
    np.testing.assert_allclose(after(edits.mean_over_time()) - rows.mean(0), 0, atol=1e-6)
    shuffled = after(edits.shuffle(1))
    assert not np.array_equal(shuffled, rows)
    np.testing.assert_array_equal(np.sort(shuffled, 0), np.sort(rows, 0))
    np.testing.assert_array_equal(shuffled, after(edits.shuffle(1)))
    assert not np.array_equal(shuffled, after(edits.shuffle(2)))
    vector = np.arange(rows.shape[1], dtype=np.float32)
    np.testing.assert_allclose(after(edits.add(vector, 0.5)), rows + 0.5 * vector, rtol=1e-5)
    assert not after(edits.zero()).any()
    np.testing.assert_array_equal(after(edits.keep_every(4)), np.asarray(rows)[::4])
    np.testing.assert_array_equal(after(edits.replace(np.ones_like(rows))), np.ones_like(rows))
    states = model.activations(sound(1.0, seed=7), taps=["audio_tower"], **RATE)["audio_tower"]
    np.testing.assert_array_equal(after(edits.replace(states)), states.data)


def test_a_mean_in_half_precision_is_rounded_once() -> None:
    rows = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)).bfloat16() + 1
    edited = qa.edits.mean_over_time().bind(EditPlace(qa.Tap.parse("mel"), "audio", 3))(rows)
    assert torch.equal(edited[0], rows.float().mean(0).bfloat16())


def test_streamed_layers_are_edited(checkpoint: Path, model: qa.AudioModel) -> None:
    whole = model.cost("lm.norm")
    streamed = qa.load(checkpoint, dtype="float32", max_memory=whole.min_memory_bytes + 400_000)
    vectors = []
    for each in (model, streamed):
        with each.edit("lm.1.mlp", qa.edits.scale(0.5), span="all"):
            vectors.append(np.asarray(each.encode(CLIP, tap="lm.3", **RATE)))
    np.testing.assert_array_equal(vectors[0], vectors[1])


@pytest.mark.slow
def test_quantised_products_are_edited(checkpoint: Path) -> None:
    model = qa.load(checkpoint, dtype="float32", quantize="int8")
    base = model.encode(CLIP, tap="lm.3", **RATE)
    with model.edit("lm.1", qa.edits.identity(), span="all"):
        np.testing.assert_array_equal(model.encode(CLIP, tap="lm.3", **RATE), base)
    with model.edit("lm.3", qa.edits.scale(2.0)):
        np.testing.assert_allclose(model.encode(CLIP, tap="lm.3", **RATE), 2 * base, rtol=1e-5)


def test_specs_name_the_edits_of_a_tap_and_those_before_it(model: qa.AudioModel) -> None:
    base = model.spec("lm.1")
    assert base.edits is None
    assert "edits" not in base.to_json()
    with model.edit("lm.2", qa.edits.zero()):
        assert model.spec("lm.1") == base
        assert model.spec("lm.2").edits == "lm.2[audio]: zero()"
    with model.edit("mel", qa.edits.shuffle(3)):
        vectors = model.encode([CLIP], tap="lm.1", **RATE)
    assert vectors.spec.edits == "mel[audio]: shuffle(seed=3)"
    assert vectors.spec.fingerprint != base.fingerprint
    assert qa.EmbeddingSpec.from_json(vectors.spec.to_json()) == vectors.spec


@pytest.mark.filterwarnings("ignore::qwen_audio.ScoreWarning")
def test_results_state_the_edits_they_were_made_under(model: qa.AudioModel) -> None:
    """And leave the field out where there are none."""
    described = "mel[audio]: scale(factor=1.1); lm.1[last]: scale(factor=2.0)"

    def results() -> list[Any]:
        """A description, and what has facts."""
        text = model.describe(CLIP, max_new_tokens=1, **RATE)
        message = {"role": "user", "content": [{"type": "audio", "audio": CLIP}]}
        session = model.session(CLIP, **RATE)
        return [
            text.answers[0],
            model.chat([message], max_new_tokens=1, **RATE),
            session.ask(max_new_tokens=1).answers[0],
            session.score(choices=["a", "b"]),
            model.score(CLIP, choices=["a", "b"], **RATE),
            model.classify(CLIP, ["a", "b"], **RATE),
            model.audio_ablation(CLIP, others=[OTHER], answers=["a"], **RATE),
            model.occlusion(CLIP, window_seconds=0.9, hop_seconds=0.9, **RATE),
            model.attention(CLIP, levels=[1], **RATE),
        ]

    for result in results():
        assert "edits" not in result.facts()
    with model.edit("mel", qa.edits.scale(1.1)):
        trace = model.trace(CLIP, sound(1.0, 3), answers=("a", "b"), taps=["lm.0"], **RATE)
        assert trace.facts()["edits"] == "mel[audio]: scale(factor=1.1)"
        with model.edit("lm.1", qa.edits.scale(2.0), span="last"):
            for result in results():
                assert result.facts()["edits"] == described, result
            text = model.describe(CLIP, max_new_tokens=1, **RATE)
    assert text.edits == described
    assert f"edits: {described}" in text._repr_html_()
    assert model.describe(CLIP, max_new_tokens=1, **RATE).edits is None


def test_functions_are_known_by_their_name_or_in_this_process_alone(model: qa.AudioModel) -> None:
    def edits_of(edit: Any) -> str | None:
        with model.edit("mel", edit):
            return model.spec("mel").edits

    assert edits_of(halve_and_roll) == edits_of(halve_and_roll)
    assert edits_of(lambda rows: rows) != edits_of(lambda rows: rows)
    named = qa.edits.function(lambda rows: rows, "same")
    assert edits_of(named) == "mel[audio]: function(name=same)"


def test_rows_that_are_kept_have_their_times(model: qa.AudioModel) -> None:
    full = model.activations(CLIP, taps=["projector", "lm.1"], **RATE)
    with model.edit("audio_tower", qa.edits.keep_every(5)):
        kept = model.activations(CLIP, taps=["encoder.1", "projector", "lm.1"], **RATE)
        rows = model.encode(CLIP, pooling="none", **RATE)
        answer = model.describe(CLIP, max_new_tokens=2, **RATE).answers[0]
    for tap in ("projector", "lm.1"):
        times, audio = full[tap], kept[tap].indices("audio")
        every = times.indices("audio")[::5]
        np.testing.assert_allclose(kept[tap].start_seconds[audio], times.start_seconds[every])
        np.testing.assert_allclose(kept[tap].end_seconds[audio], times.end_seconds[every])
        assert kept[tap].hop_seconds == pytest.approx(0.2)
    assert kept["encoder.1"].hop_seconds == pytest.approx(0.02)
    np.testing.assert_allclose(rows.start_seconds, [0, 0.2, 0.4, 0.6, 0.8])
    assert answer.audio_tokens == 5


def test_times_that_nobody_knows_are_an_error(model: qa.AudioModel) -> None:
    with model.edit("audio_tower", lambda rows: rows[3:]):
        assert model.encode(CLIP, **RATE).shape == (64,)
        with pytest.raises(qa.OptionError, match="nobody knows what times are left"):
            model.activations(CLIP, taps=["projector"], **RATE)
        with pytest.raises(qa.OptionError, match="nobody knows"):
            model.encode(CLIP, pooling="none", **RATE)


def test_edits_of_generated_rows_and_whole_prompts(model: qa.AudioModel) -> None:
    """A continuation with hidden states says what `describe` says, whatever the span."""
    for span in ("prompt", "last", "generated", "all"):
        with model.edit("lm.1", qa.edits.mean_over_time(), span=span):
            text = model.describe(CLIP, max_new_tokens=4, **RATE).answers[0]
            states = model.activations(CLIP, taps=["lm.2", "lm.norm"], generate=4, **RATE)
        rows = states["lm.norm"]
        last = torch.from_numpy(rows.data[len(rows) - 1 - len(text.token_ids) :])
        tokens = model.pipeline.lm.logits(last).argmax(-1).tolist()
        assert tuple(tokens[: len(text.token_ids)]) == text.token_ids, span


def test_sessions_use_no_cache_of_other_edits(model: qa.AudioModel) -> None:
    options: dict[str, Any] = {"max_new_tokens": 5}
    session = model.session(CLIP, **RATE)
    plain = session.ask("What?", **options)
    for edit, span in ((qa.edits.mean_over_time(), "prompt"), (qa.edits.zero(), "audio")):
        with model.edit("lm.1", edit, span=span):
            expected = model.describe(CLIP, prompt="What?", **options, **RATE)
            assert session.ask("What?", **options).answers == expected.answers
    assert session.ask("What?", **options).answers == plain.answers
    with model.edit("audio_tower", qa.edits.zero()):
        with pytest.raises(qa.OptionError, match="encoded without edits, and is asked about with"):
            session.ask("What?")
        inside = model.session(CLIP, **RATE)
    with pytest.raises(qa.OptionError, match="make a session of its own"):
        inside.ask("What?")


def test_each_audio_of_an_input_is_edited_by_itself(model: qa.AudioModel) -> None:
    pipeline, counts = model.pipeline, list[int]()
    mels = [pipeline.log_mel(clip) for clip in (CLIP, OTHER)]
    prompt = "<|audio_bos|><|AUDIO|><|audio_eos|>" * 2 + "Which?"

    def note(rows: Tensor) -> Tensor:
        counts.append(len(rows))
        return rows

    with model.edit("lm.1", note):
        (item,) = pipeline.build_inputs(prompt, [pipeline.encode_audio(mels)])
        pipeline.lm.forward([item], [qa.Tap.parse("lm.1")], lambda *_: None)
        bare = DecoderInput(item.token_ids, item.audio_rows)
        pipeline.lm.forward([bare], [qa.Tap.parse("lm.1")], lambda *_: None)
    assert counts == [25, 34, 59]


@pytest.mark.slow
def test_padding_is_left_alone(tmp_path: Path) -> None:
    case = next(case for name, case in CASES.items() if "voxtral" in name)
    case.write(tmp_path)
    model, seen = qa.load(tmp_path, dtype="float32"), dict[str, set[int]]()
    family = model.pipeline.checkpoint.family
    frames = model.pipeline.log_mel(CLIP).valid_frames
    taps = ("encoder.1", "audio_tower", "projector", "lm.1")
    with ExitStack() as stack:
        for tap in taps:

            def note(rows: Tensor, tap: str = tap) -> Tensor:
                seen.setdefault(tap, set()).add(len(rows))
                return rows

            stack.enter_context(model.edit(tap, note))
        model.describe(CLIP, max_new_tokens=2, **RATE)
    stages = [model.dimensions.tap(tap).stage for tap in taps]
    assert seen == {t: {family.rows(s, frames)} for t, s in zip(taps, stages, strict=True)}
    with (
        model.edit("audio_tower", qa.edits.keep_every(2)),
        pytest.raises(qa.OptionError, match="fixed number of rows"),
    ):
        model.describe(CLIP, **RATE)


def test_results_that_are_asked_for_later_are_of_the_edits_of_the_call(
    model: qa.AudioModel,
) -> None:
    with model.edit("audio_tower", qa.edits.zero()):
        later = model.encode_each([CLIP], **RATE)
        windows = model.describe_windows(CLIP, max_new_tokens=3, **RATE)
        now = model.describe(CLIP, max_new_tokens=3, **RATE)
    vectors = next(later)
    assert not np.asarray(vectors).any()
    assert vectors.spec.edits == "audio_tower[audio]: zero()"
    assert tuple(windows) == tuple(now.answers)


def test_other_threads_and_models_are_not_edited(checkpoint: Path, model: qa.AudioModel) -> None:
    found: list[np.ndarray] = []
    other = qa.load(checkpoint, dtype="float32")
    base = np.asarray(model.encode(CLIP, tap="lm.2", **RATE))
    with model.edit("lm.1.mlp", qa.edits.zero(), span="all"):
        thread = threading.Thread(
            target=lambda: found.append(np.asarray(model.encode(CLIP, tap="lm.2", **RATE)))
        )
        thread.start()
        thread.join()
        found.append(np.asarray(other.encode(CLIP, tap="lm.2", **RATE)))
        assert not np.array_equal(model.encode(CLIP, tap="lm.2", **RATE), base)
    for vector in found:
        np.testing.assert_array_equal(vector, base)


def bad_edits(model: qa.AudioModel) -> Iterator[tuple[str, Any, dict[str, Any], str]]:
    edits = qa.edits
    yield "lm.1", edits.zero(), {"span": "words"}, "span='words' at tap lm.1: use audio or prompt"
    yield "mel", edits.zero(), {"span": "last"}, "span='last' at tap mel: use audio or all"
    yield "lm.1", edits.keep_every(2), {}, "may change at audio_tower and projector only"
    yield "lm.1", edits.add(np.ones(3)), {}, "a vector of 3 numbers at lm.1"
    yield "lm.1", edits.replace(np.ones((2, 3))), {}, "rows of 3 numbers at lm.1"
    yield "lm.1", edits.scale_heads([0]), {}, "heads are apart at lm.K.heads only"
    yield "lm.1.heads", edits.scale_heads([4]), {}, "lm.1.heads has heads 0 to 3, not 4"
    yield "lm.1", "zero", {}, "an edit of type str: give one of qa.edits, or a function"
    yield "lm.1", lambda rows: rows[:-1], {}, "the edit made 24 rows of 25: return 25, or edit"
    yield "projector", lambda rows: rows[:0], {}, "made 0 rows of 25: return 1 to 25 rows"
    yield "mel", lambda rows: rows[:, 1:], {}, "returned numbers of shape (100, 79)"
    yield "mel", lambda _rows: None, {}, "returned an object of type NoneType"
    yield "mel", lambda rows: rows / 0, {}, "returned NaN or infinity"
    states = model.activations(CLIP, taps=["lm.2"], **RATE)["lm.2"]
    yield "lm.1", edits.replace(states), {}, "hidden states of lm.2 at lm.1"
    yield "lm.2", edits.replace(states), {"span": "generated"}, "no rows of the span 'generated'"


def test_bad_edits_are_one_line(model: qa.AudioModel) -> None:
    for tap, edit, options, message in bad_edits(model):
        with pytest.raises(qa.OptionError) as caught, model.edit(tap, edit, **options):
            model.describe(CLIP, max_new_tokens=1, **RATE)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    for make in (
        lambda: qa.edits.add([np.nan]),
        lambda: qa.edits.add("a"),
        lambda: qa.edits.keep_every(0),
        lambda: qa.edits.shuffle(-1),
        lambda: qa.edits.scale(float("inf")),
        lambda: qa.edits.scale_heads([]),
        lambda: qa.edits.function(3),
        lambda: qa.edits.function(halve_and_roll, ""),
    ):
        with pytest.raises(qa.OptionError):
            make()
    for tap in ("lm.0.mlp", "lm.1.norm", "encoder.1.mlp", "lm.norm.mlp"):
        with pytest.raises(TapError):
            model.dimensions.tap(tap)
