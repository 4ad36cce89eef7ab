"""Every tap equals transformers' composite model, in any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qwen_audio as qa
from checkpoints import EMBEDDED, random_checkpoint
from qwen_audio.audio.log_mel import LogMel
from qwen_audio.inference.encoder import AudioEncoder
from qwen_audio.inference.reducers import all_rows
from qwen_audio.models.kv_cache import KeyValueCache
from qwen_audio.models.packed_attention import Packing, packed_attention
from qwen_audio.models.tap import Tap
from reference import PLAIN, Reference, relative_error, sound

TOLERANCE = 1e-5

GEOMETRIES: dict[str, dict[str, int]] = {
    "grouped-query": {},
    "128 mel bins": {"mel_bins": 128, "width": 80, "encoder_heads": 5, "seed": 1},
    "as many key heads as heads": {"heads": 6, "kv_heads": 6, "lm_layers": 2, "seed": 2},
    "one layer each": {"encoder_layers": 1, "lm_layers": 1, "kv_heads": 1, "seed": 3},
    "narrow encoder, wide decoder": {"width": 32, "encoder_heads": 2, "lm_width": 160, "seed": 4},
}

# 40 ms is the shortest clip, 30 s the longest; lengths around every step of the frame counts.
samples = st.one_of(
    st.integers(640, 640 + 4 * 640),
    st.integers(640, 480_000),
    st.sampled_from([640, 641, 799, 800, 801, 16_000, 479_680, 479_841, 479_999, 480_000]),
)


@pytest.fixture(scope="module", params=[*GEOMETRIES, "embedded"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[qa.AudioModel, Reference]:
    """This package's model and transformers', on the same checkpoint."""
    folder = EMBEDDED
    if request.param != "embedded":
        folder = random_checkpoint(tmp_path_factory.mktemp("pair"), **GEOMETRIES[request.param])
    return qa.load(folder, dtype="float32", device="cpu"), Reference(folder)


def check(
    model: qa.AudioModel,
    reference: Reference,
    clips: list[np.ndarray],
    record: dict[str, float],
) -> None:
    """1e-5, or where float32 itself is coarser (a trained encoder's last layer multiplies rounding
    by ten), twice transformers' own distance from its float64 result."""
    taps = [str(tap) for tap in model.taps]
    actual = model.activations(clips, taps=taps, sampling_rate=16_000)
    for clip, frames in zip(clips, actual, strict=True):
        expected = reference.taps(clip)
        assert set(expected) == set(taps)
        for tap in taps:
            error = relative_error(frames[tap].data, expected[tap])
            allowed = TOLERANCE if error < TOLERANCE else 2 * reference.rounding(clip)[tap]
            assert error < allowed, f"{tap} of a clip of {clip.size} samples"
            record[tap.split(".")[0]] = max(record.get(tap.split(".")[0], 0.0), error)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.04, 4.99, 29.98, 30.0])
def test_every_tap_equals_transformers(
    pair: tuple[qa.AudioModel, Reference], seconds: float, parity_errors: dict[str, float]
) -> None:
    check(*pair, [sound(seconds)], parity_errors)


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(lengths=st.lists(samples, min_size=1, max_size=3), seed=st.integers(0, 1000))
def test_packed_batches_equal_transformers(
    pair: tuple[qa.AudioModel, Reference],
    parity_errors: dict[str, float],
    lengths: list[int],
    seed: int,
) -> None:
    clips = [sound(n / 16_000, seed + i) for i, n in enumerate(lengths)]
    check(*pair, clips, parity_errors)


@pytest.mark.slow
def test_silence_and_a_loud_end(
    pair: tuple[qa.AudioModel, Reference], parity_errors: dict[str, float]
) -> None:
    """The extractor clamps relative to the loudest frame, at any position."""
    quiet = np.full(20_000, 1e-5, np.float32)
    loud_end = quiet.copy()
    loud_end[-30:] = 0.9
    check(*pair, [np.zeros(8_000, np.float32), quiet, loud_end], parity_errors)


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(lengths=st.lists(samples, min_size=2, max_size=5), seed=st.integers(0, 1000))
def test_batch_equals_single(checkpoint: Path, lengths: list[int], seed: int) -> None:
    model = qa.load(checkpoint)
    clips = [sound(n / 16_000, seed + i) for i, n in enumerate(lengths)]
    taps = [str(tap) for tap in model.taps]
    together = model.activations(clips, taps=taps, sampling_rate=16_000)
    for clip, frames in zip(clips, together, strict=True):
        alone = model.activations(clip, taps=taps, sampling_rate=16_000)
        for tap in taps:
            assert relative_error(frames[tap].data, alone[tap].data) < TOLERANCE


def lowest_cosine(actual: np.ndarray, expected: np.ndarray) -> float:
    """The lowest cosine similarity of corresponding rows."""
    lengths = np.linalg.norm(actual, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((actual * expected).sum(1) / lengths).min())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grouped-query", "as many key heads as heads"])
def test_bfloat16_error_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    """Both sides round every product to 8 bits: they differ from each other no more than twice as
    far as transformers' bfloat16 does from its float32, and by no more than a cosine of .999."""
    folder = random_checkpoint(tmp_path / "c", **GEOMETRIES[name])
    model, reference = qa.load(folder, dtype="bfloat16"), Reference(folder)
    taps = [str(tap) for tap in model.taps]
    clips = [sound(seconds, seed) for seed, seconds in enumerate([0.04, 1.7, 8.0])]
    exact = [reference.taps(clip) for clip in clips]
    reference.model.bfloat16()
    for clip, precise, frames in zip(
        clips, exact, model.activations(clips, taps=taps, sampling_rate=16_000), strict=True
    ):
        expected = reference.taps(clip)
        for tap in taps:
            between = lowest_cosine(frames[tap].data, expected[tap])
            rounding = lowest_cosine(expected[tap], precise[tap])
            assert between > 0.999, tap
            assert 1 - between <= 4 * (1 - rounding) + 1e-5, tap  # four times: of squares
            if tap != "mel":
                assert np.abs(frames[tap].data - precise[tap]).max() > 1e-4


def test_a_chat_prompt_equals_transformers(checkpoint: Path) -> None:
    model, reference = qa.load(checkpoint, chat=True), Reference(checkpoint)
    clip = sound(2.5)
    turn = [{"type": "audio", "audio": clip}, {"type": "text", "text": "Is it fast?"}]
    prompt = reference.processor.apply_chat_template(
        [{"role": "user", "content": turn}], add_generation_prompt=True, tokenize=False
    )
    expected = reference.taps(clip, prompt)
    actual = model.activations(
        clip, taps=["lm.0", "lm.-1", "lm.norm"], prompt="Is it fast?", sampling_rate=16_000
    )
    assert relative_error(actual["lm.0"].data, expected["lm.0"]) < TOLERANCE
    assert relative_error(actual["lm.-1"].data, expected["lm.3"]) < TOLERANCE
    assert relative_error(actual["lm.norm"].data, expected["lm.norm"]) < TOLERANCE


# Two audio tokens at least: with one, transformers takes a legacy path that can not generate.
@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.09, 30.0])
def test_generated_tokens_equal_transformers(
    pair: tuple[qa.AudioModel, Reference], seconds: float
) -> None:
    model, reference = pair
    clip = sound(seconds, seed=7)
    prompt = "What is this?"
    expected = reference.generate(clip, PLAIN + prompt, max_new_tokens=12)
    description = model.describe(clip, prompt=prompt, max_new_tokens=12, sampling_rate=16_000)
    assert description.answers[0].token_ids == expected


@pytest.mark.slow
def test_generated_tokens_of_a_batch_equal_transformers(checkpoint: Path) -> None:
    model, reference = qa.load(checkpoint), Reference(checkpoint)
    clips = [sound(seconds, seed) for seed, seconds in enumerate([0.5, 7.0, 2.0])]
    descriptions = model.describe(clips, max_new_tokens=10, sampling_rate=16_000)
    for clip, description in zip(clips, descriptions, strict=True):
        expected = reference.generate(clip, PLAIN + "Describe the music:", 10)
        assert description.answers[0].token_ids == expected


@pytest.mark.slow
def test_the_checkpoints_repetition_penalty_is_applied(tmp_path: Path) -> None:
    from checkpoints import edit_json

    folder = random_checkpoint(tmp_path / "c")
    clip = sound(1.0)
    without = qa.load(folder).describe(clip, max_new_tokens=12, sampling_rate=16_000)
    edit_json(folder / "generation_config.json", repetition_penalty=0.3)
    expected = Reference(folder).generate(clip, PLAIN + "Describe the music:", 12)
    actual = qa.load(folder).describe(clip, max_new_tokens=12, sampling_rate=16_000)
    assert actual.answers[0].token_ids == expected
    assert without.answers[0].token_ids != expected


def test_states_of_generated_tokens_equal_transformers(checkpoint: Path) -> None:
    """The span `generated` is what the composite model computes when it reads its own answer."""
    model, reference = qa.load(checkpoint), Reference(checkpoint)
    clip = sound(1.7)
    frames = model.activations(
        clip, taps=["lm.1", "lm.norm", "encoder.1"], generate=6, sampling_rate=16_000
    )
    new = reference.generate(clip, PLAIN + "Describe the music:", 6)
    inputs = reference.inputs([clip], [PLAIN + "Describe the music:"])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([new])], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.inference_mode():
        out = reference.model(**inputs, output_hidden_states=True)
    generated = frames["lm.1"].indices("generated")
    assert len(generated) == len(new)
    assert relative_error(frames["lm.1"].data, out.hidden_states[1][0].numpy()) < TOLERANCE
    assert relative_error(frames["lm.norm"].data, out.hidden_states[-1][0].numpy()) < TOLERANCE
    assert [span.kind for span in frames["encoder.1"].spans] == ["audio"]


# Pitfalls: each of these fails if the step it names is left out.


def test_without_the_padding_mask_the_encoder_gives_other_numbers(checkpoint: Path) -> None:
    """The composite model builds a mask, and the encoder uses it, whatever its docstring says."""
    model, reference = qa.load(checkpoint), Reference(checkpoint)
    clip = sound(2.0)
    actual = model.encode(clip, tap="audio_tower", pooling="none", sampling_rate=16_000)
    features = reference.inputs([clip], [PLAIN])["input_features"]
    with torch.inference_mode():
        unmasked = reference.tower(features).last_hidden_state[0, : len(actual)].numpy()
    assert relative_error(actual, reference.taps(clip)["audio_tower"]) < TOLERANCE
    assert relative_error(actual, unmasked) > 1e-2


def test_frames_after_the_end_of_the_clip_matter(checkpoint: Path) -> None:
    """Convolutions reach one or two mel frames past the end: zeros there give other numbers."""
    model = qa.load(checkpoint)
    line = model.pipeline
    for samples_count in (16_000, 16_160):  # an even and an odd number of mel frames
        mel = line.log_mel(sound(samples_count / 16_000))
        cut = mel.input_features.copy()
        cut[:, mel.valid_frames :] = 0
        tap = Tap.parse("encoder.0")
        shorn = LogMel(cut, mel.valid_frames)
        whole = line.encoder.forward([mel], [tap], all_rows)[tap][0]
        zeroed = line.encoder.forward([shorn], [tap], all_rows)[tap][0]
        assert relative_error(zeroed.numpy(), whole.numpy()) > 1e-3
        assert torch.equal(whole[:-1], zeroed[:-1])


def test_only_the_needed_layers_are_built(checkpoint: Path) -> None:
    model = qa.load(checkpoint)
    encoder: AudioEncoder = model.pipeline.encoder
    clip = sound(1.0)
    built = encoder._modules._resident
    assert built == {}
    model.encode(clip, tap="mel", sampling_rate=16_000)
    assert built == {}
    model.encode(clip, tap="encoder.1", sampling_rate=16_000)
    assert [name for name in built if "layers" in name] == ["audio_tower.layers.0."]
    assert "audio_tower.layer_norm." not in built
    model.encode(clip, tap="lm.1", sampling_rate=16_000)
    lm_layers = [name for name in built if name.startswith("language_model.model.layers.")]
    assert lm_layers == ["language_model.model.layers.0."]
    assert "language_model.model.norm." not in built
    assert "language_model.lm_head." not in built


def test_attention_stays_inside_each_clip() -> None:
    """Changing a neighbour changes nothing, to the last bit."""
    module = torch.nn.Module()
    module.is_causal, module.layer_idx = True, 0  # type: ignore[assignment]
    query, key, value = torch.randn(3, 1, 2, 9, 4, generator=torch.Generator().manual_seed(0))

    def attend() -> torch.Tensor:
        cache = KeyValueCache(1, 2, 4, torch.float32, torch.device("cpu"))
        with cache.extend([cache.add(), cache.add()], [4, 5]) as cached:
            packing = Packing((4, 5), cached)
            return packed_attention(module, query, key, value, None, packing=packing, scaling=0.5)[
                0
            ]

    first = attend()
    key[:, :, 4:] = 100.0
    again = attend()
    assert torch.equal(first[:, :4], again[:, :4])
    assert not torch.equal(first[:, 4:], again[:, 4:])
