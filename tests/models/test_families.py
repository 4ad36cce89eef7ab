"""Every family against transformers' own model; `families.CASES` has what differs.

A family that is registered must be there, and passes all of this.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import qwen_audio as qa
from checkpoints import edit_json
from families import CASES, Case, TransformersReference
from qwen_audio.analysis.occlusion import occluded
from qwen_audio.audio.waveform import Waveform
from qwen_audio.errors import CheckpointError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.registry import FAMILIES
from qwen_audio.models.tap import Stage
from qwen_audio.models.tensors import EMBEDDINGS
from reference import relative_error, sound

TOLERANCE = 1e-5
SECONDS = (1.0, 7.013, 31.4)
RATE: dict[str, Any] = {"sampling_rate": 16_000}


class Pair(NamedTuple):
    """A family's checkpoint, here and in transformers."""

    case: Case
    folder: Path
    model: qa.AudioModel
    reference: TransformersReference


@pytest.fixture(scope="module", params=[*CASES.values()], ids=[*CASES])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    case: Case = request.param
    folder = tmp_path_factory.mktemp(case.model_type)
    case.write(folder)
    model = qa.load(folder, dtype="float32")
    return Pair(case, folder, model, TransformersReference(case, folder))


def stored_tensors(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def copy_of(folder: Path, copy: Path, changed: dict[str, torch.Tensor] | None = None) -> Path:
    """A copy of a checkpoint, with other tensors if some are given."""
    shutil.copytree(folder, copy)
    if changed is not None:
        for file in copy.glob("*.safetensors*"):
            file.unlink()
        save_file(changed, copy / "model.safetensors", {"format": "pt"})
    return copy


def error_message(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_registered_family_is_tested() -> None:
    known = {(kind, entry.architecture) for entry in FAMILIES for kind in entry.model_types[:1]}
    tested = {(case.model_type, case.stored_class or case.model_class) for case in CASES.values()}
    assert known == tested


@pytest.mark.slow
def test_every_tap_equals_transformers(pair: Pair) -> None:
    """Clips in one pass against each alone; longer ones in windows as long as both take at once."""
    clips = [Waveform(sound(seconds, seed)) for seed, seconds in enumerate(SECONDS)]
    model, taps = pair.model, [str(tap) for tap in pair.model.taps]
    seconds = min(pair.case.longest, 60.0)
    prompt_text = model.pipeline.tokenizer.render(None) if pair.case.language_model else ""
    states = model.activations(clips, taps=taps, window_seconds=seconds)
    for clip, by_tap in zip(clips, states, strict=True):
        windows = clip.windows(model.pipeline.window_config(seconds))
        expected = [pair.reference.taps(clip.samples_in(each), prompt_text) for each in windows]
        for tap in taps:
            rows = np.concatenate([each[tap] for each in expected])
            assert relative_error(by_tap[tap].data, rows) < TOLERANCE, tap
            assert rows.shape[1] == model.dimensions.width(qa.Tap.parse(tap))


@pytest.mark.slow
def test_batch_equals_single(pair: Pair) -> None:
    clips, taps = [sound(seconds) for seconds in (0.3, 2.0, 0.1)], [str(t) for t in pair.model.taps]
    together = pair.model.activations(clips, taps=taps, **RATE)
    for clip, by_tap in zip(clips, together, strict=True):
        alone = pair.model.activations(clip, taps=taps, **RATE)
        for tap in taps:
            assert relative_error(by_tap[tap].data, alone[tap].data) < TOLERANCE, tap


@pytest.mark.slow
def test_generated_tokens_equal_transformers(pair: Pair) -> None:
    clip, prompt = sound(2.5, seed=3), "What is this?"
    if not pair.case.language_model:
        with pytest.raises(CheckpointError, match="has no language model, and takes no prompts"):
            pair.model.describe(clip, prompt=prompt, **RATE)
        return
    prompt_text = pair.model.pipeline.tokenizer.render(prompt)
    expected = pair.reference.generate(clip, prompt_text, 24)
    description = pair.model.describe(clip, prompt=prompt, max_new_tokens=24, **RATE)
    assert description.answers[0].token_ids == expected
    assert len(set(expected)) > 4  # it says something
    ids = pair.reference.inputs(clip, prompt_text)["input_ids"]
    answer = description.answers[0]
    positions = answer.audio_tokens + answer.padding_tokens + answer.prompt_tokens
    assert positions == ids.numel()


@pytest.mark.slow
def test_attention_weights_equal_transformers(pair: Pair) -> None:
    """Of two clips in one pass, against transformers' eager attention of each alone."""
    clips = [Waveform(sound(seconds)) for seconds in (2.5, 1.0)]
    if not pair.case.language_model:
        with pytest.raises(CheckpointError, match="has no language model"):
            pair.model.attention(clips)
        return
    found = pair.model.attention(clips, span="all")
    for clip, weights in zip(clips, found, strict=True):
        expected = pair.reference.attention_weights(clip.samples, weights.prompt)
        assert relative_error(weights.weights, expected) < TOLERANCE
        audio = weights.is_audio.nonzero()[0]
        assert np.array_equal(
            weights.keys.start_seconds[audio],
            pair.model.dimensions.row_times[Stage.LM].starts(len(audio)),
        )


@pytest.mark.slow
def test_scores_equal_transformers(pair: Pair) -> None:
    """Each choice in the pass of all against it alone, after the family's own prompt."""
    clip, choices = sound(1.5, seed=4), ["Yes", "No, it is", "No, it was", "Never"]
    if not pair.case.language_model:
        with pytest.raises(CheckpointError, match="has no language model"):
            pair.model.score(clip, choices=choices, **RATE)
        return
    tokenizer = pair.model.pipeline.tokenizer
    with pytest.warns(qa.ScoreWarning):
        scores = pair.model.score(clip, "What is this?", choices=choices, **RATE)
    prompt_text = tokenizer.render("What is this?")
    assert scores.prompt == prompt_text
    assert scores.leading_space == (not tokenizer.uses_chat_template)
    for number, text in enumerate(choices):
        ids = tokenizer.encode_text(f" {text}" if scores.leading_space else text)
        rows = pair.reference.log_probabilities(clip, prompt_text, ids)
        expected = np.array([rows[place, token] for place, token in enumerate(ids)])
        actual = np.array(scores.token_log_probabilities[0][number])
        assert relative_error(actual, expected) < TOLERANCE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::qwen_audio.ScoreWarning")
def test_ablation_scores_each_sound_as_score_does(pair: Pair) -> None:
    """Other sounds as recordings of their own; shuffled tokens as by an edit of those of audio."""
    clip, other = sound(1.5, seed=4), sound(0.4, seed=5)
    options: dict[str, Any] = {"answers": ["Yes"], "others": [other], **RATE}
    if not pair.case.language_model:
        with pytest.raises(CheckpointError, match="has no language model"):
            pair.model.audio_ablation(clip, **options)
        return
    found = pair.model.audio_ablation(clip, "What?", **options)
    random = np.random.default_rng(0)
    noise = random.standard_normal(clip.size) * np.sqrt(np.mean(clip.astype(np.float64) ** 2))

    def permuted(rows: torch.Tensor) -> torch.Tensor:
        return rows[torch.from_numpy(random.permutation(len(rows)))]

    def alone(samples: np.ndarray) -> float:
        scores = pair.model.score(samples, "What?", choices=["Yes"], **RATE)
        return float(scores.log_probability[0, 0])

    heard = alone(clip)
    with pair.model.edit("projector", permuted):
        shuffled = alone(clip)
    replaced = [np.zeros_like(clip), noise.astype(np.float32), np.resize(other, clip.size)]
    expected = [heard, shuffled, *map(alone, replaced)]
    np.testing.assert_allclose(found.log_probability[0], expected, atol=1e-5)
    assert np.diff(np.sort(expected)).min() > 5e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::qwen_audio.ScoreWarning")
def test_occlusion_scores_each_clip_as_score_does(pair: Pair) -> None:
    clip, choices = sound(1.2, seed=4), ["Yes", "No"]
    options: dict[str, Any] = {"window_seconds": 0.6, "hop_seconds": 0.5, **RATE}
    if not pair.case.language_model:
        with pytest.raises(CheckpointError, match="has no language model"):
            pair.model.occlusion(clip, **options)
        return
    found = pair.model.occlusion(clip, "What?", answers=choices, **options)
    silenced = [occluded(clip, start, 9_600) for start in (0, 8_000, 9_600)]
    scores = pair.model.score([clip, *silenced], "What?", choices=choices, **RATE)
    expected = np.stack([each.log_probability[0] for each in scores])
    np.testing.assert_allclose([found.heard, *found.log_probabilities], expected, atol=1e-5)
    assert np.abs(found.effect).min() > 1e-5


def test_the_chat_template_is_the_processors(pair: Pair) -> None:
    if not pair.case.language_model:
        assert pair.model.pipeline.checkpoint.family.prompt_format is None
        return
    tokenizer = pair.model.pipeline.tokenizer
    turns = tokenizer.turns("Is it fast?")
    rendered = tokenizer.apply_chat_template(turns)
    expected = pair.case.rendered_turns(pair.reference.processor, turns)
    assert "Is it fast?" in rendered
    assert rendered == expected
    assert rendered.count(tokenizer.format.audio) == 1


def test_rows_have_times_that_cover_the_window(pair: Pair) -> None:
    """Each row begins where the one before it ends, and the last ends within a row of the clip."""
    clip, dimensions = sound(1.87), pair.model.dimensions
    states = pair.model.activations(clip, taps=[str(tap) for tap in pair.model.taps], **RATE)
    for name, frames in states.items():
        audio = frames.indices("audio")
        starts, ends = frames.start_seconds[audio], frames.end_seconds[audio]
        longest = max(dimensions.times(qa.Tap.parse(name)).pattern_seconds)
        assert starts[0] == 0
        np.testing.assert_allclose(starts[1:], ends[:-1])
        assert 0 <= 1.87 - ends[-1] < 2 * longest, name


def test_every_tensor_is_read_and_no_other(pair: Pair) -> None:
    """Names are those in the files, or tied; the bytes of a text are all of theirs."""
    checkpoint, stored = Checkpoint(pair.folder), stored_tensors(pair.folder)
    family = checkpoint.family
    used = {n: t for n, t in stored.items() if not n.startswith(family.ignored_names)}
    required = checkpoint.required_tensors(None)
    shapes = {family.canonical_name(name): tuple(tensor.shape) for name, tensor in used.items()}
    assert {name: required[name].shape for name in shapes} == shapes
    assert family.ties_head or len(required) == len(shapes)
    bytes_of_all = sum(tensor.nbytes for tensor in used.values())
    needed = checkpoint.tensors.without_duplicates(required)
    assert sum(checkpoint.stored_bytes(name) for name in needed) == bytes_of_all
    taps = {str(each.tap) for each in required.values()}
    head = {"None"} if pair.case.language_model else set()
    assert taps == {str(tap) for tap in checkpoint.dimensions.taps()} - {"mel"} | head


def test_a_tap_reads_no_tensors_of_later_ones(pair: Pair) -> None:
    model = qa.load(pair.folder, dtype="float32")
    modules = model.pipeline.modules
    for tap in model.taps:
        if tap.stage is not Stage.MEL:
            model.activations(sound(0.5), taps=[tap], **RATE)
            names = model.pipeline.checkpoint.required_tensors(tap)
            assert sum(map(modules._weight_bytes, modules._resident)) == sum(
                model.pipeline.checkpoint.weight_bytes(name, torch.float32)
                for name in names
                if name != EMBEDDINGS
            )


def test_missing_extra_and_ignored_tensors(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = stored_tensors(pair.folder)
    ignored = Checkpoint(pair.folder).family.ignored_names
    name = next(n for n in stored if "layers.1." in n and not n.startswith(ignored))
    extra = {name.replace("layers.1.", "layers.9."): stored[name].clone()}
    shorn = {other: tensor for other, tensor in stored.items() if other != name}
    wide = {**stored, name: torch.zeros(3, *stored[name].shape)}
    assert "lacks 1 tensor, " in error_message(copy_of(pair.folder, tmp_path / "a", shorn))
    message = error_message(copy_of(pair.folder, tmp_path / "b", stored | extra))
    assert "has 1 tensor that its config lacks" in message
    assert "has shape" in error_message(copy_of(pair.folder, tmp_path / "c", wide))
    more = {**stored, "other_part.x": torch.zeros(1)}
    ignoring = copy_of(pair.folder, tmp_path / "i", more)
    assert "other_part.x" in error_message(ignoring)
    family = type(Checkpoint(pair.folder).family)
    monkeypatch.setattr(family, "ignored_names", (*family.ignored_names, "other_part."))
    Checkpoint(ignoring)
    foreign = error_message(copy_of(pair.folder, tmp_path / "d", {**stored, "x.y": torch.zeros(1)}))
    assert f"that {Checkpoint(pair.folder).family.title} lacks, x.y" in foreign


def test_a_field_that_is_not_supported_is_named(pair: Pair, tmp_path: Path) -> None:
    assert pair.case.unsupported
    for number, (key, (value, expected)) in enumerate(pair.case.unsupported.items()):
        copy = copy_of(pair.folder, tmp_path / str(number))
        edit_json(copy / "config.json", **{key: value})
        assert expected in error_message(copy)


def test_the_model_type_decides(pair: Pair, tmp_path: Path) -> None:
    settings = json.loads((pair.folder / "config.json").read_text(encoding="utf-8"))
    assert settings["model_type"] == pair.case.model_type
    assert settings["architectures"] == [pair.case.stored_class or pair.case.model_class]
    copy = copy_of(pair.folder, tmp_path / "copy")
    edit_json(copy / "config.json", model_type="unheard_of")
    message = error_message(copy)
    assert "is of type 'unheard_of'; only " in message
    assert all(repr(kind) in message for entry in FAMILIES for kind in entry.model_types)


@pytest.mark.slow
def test_the_parity_report_holds(pair: Pair) -> None:
    report = pair.model.check_parity()
    assert report.holds
    assert not report.skipped_taps
