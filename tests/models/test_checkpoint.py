"""Checkpoints in folders: which tensors are read, and errors for damaged ones."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    Qwen2AudioForConditionalGeneration,
    WhisperFeatureExtractor,
)

import qwen_audio
from checkpoints import EMBEDDED, ROW_TIMES, VOCAB_SIZE, edit_json, random_checkpoint
from qwen_audio.errors import CheckpointError
from qwen_audio.inference.cost import estimate_cost
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.families.qwen2_audio import Qwen2Audio
from qwen_audio.models.tap import ModelDimensions, Tap
from qwen_audio.models.tensors import EMBEDDINGS
from qwen_audio.weights import safetensors_file
from qwen_audio.weights.module_store import ModuleStore

INDEX = "model.safetensors.index.json"


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Every tensor on disk, read by safetensors itself."""
    tensors: dict[str, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint, for a test to damage."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def error_message(folder: Path, **options: Any) -> str:
    """The error's text: one line that names the checkpoint or the file."""
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert ": " in message or ";" in message
    return message


# Valid checkpoints.


@pytest.mark.parametrize("number", [1, 2, 5])
def test_any_number_of_shards(number: int, tmp_path: Path) -> None:
    folder = random_checkpoint(tmp_path / "checkpoint", shards=number)
    assert (folder / INDEX).exists() == (number > 1)
    assert len(list(folder.glob("*.safetensors"))) <= number
    on_disk = tensors_of(folder)
    checkpoint = Checkpoint(folder)
    assert checkpoint.tensors.read("").keys() == on_disk.keys()
    for name, tensor in checkpoint.tensors.read("").items():
        assert torch.equal(tensor, on_disk[name])


def test_names_on_disk_are_those_that_transformers_saves(checkpoint: Path) -> None:
    """transformers 5 still saves the names released in 2024, not those of its modules."""
    model = Qwen2AudioForConditionalGeneration.from_pretrained(checkpoint)
    required = Checkpoint(checkpoint).family.tensor_requirements()
    assert required.keys() == tensors_of(checkpoint).keys()
    parameters = dict(model.named_parameters())
    assert len(required) == len(parameters)
    for name, (_, shape, _) in required.items():
        module_name = name.replace("language_model.model.", "language_model.")
        module_name = module_name.replace("language_model.lm_head.", "lm_head.")
        in_memory = parameters[
            module_name if module_name.startswith("lm_head") else f"model.{module_name}"
        ]
        assert tuple(in_memory.shape) == shape


def test_dimensions(checkpoint: Path, tmp_path: Path) -> None:
    assert Checkpoint(checkpoint).dimensions == ModelDimensions(80, 3, 64, 64, 3, 96, ROW_TIMES, 96)
    other = random_checkpoint(
        tmp_path, mel_bins=128, width=32, encoder_layers=1, lm_width=64, lm_layers=2
    )
    assert Checkpoint(other).dimensions == ModelDimensions(128, 1, 32, 32, 2, 64, ROW_TIMES, 64)


def test_the_embedded_checkpoint_is_the_default() -> None:
    assert Checkpoint().folder == Checkpoint("embedded").folder == EMBEDDED


# Tensors read.


@pytest.fixture
def tensors_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tensors that are read (whole, or a row), in order."""
    names: list[str] = []
    original = safetensors_file._read_values

    def recording_read(opened: Any, name: str, *rest: Any, **options: Any) -> torch.Tensor:
        names.append(name)
        return original(opened, name, *rest, **options)

    monkeypatch.setattr(safetensors_file, "_read_values", recording_read)
    return names


def test_opening_reads_no_weights(checkpoint: Path, tensors_read: list[str]) -> None:
    opened = Checkpoint(checkpoint)
    sizes = {name: tensor.nbytes for name, tensor in tensors_of(checkpoint).items()}
    for tap in (*opened.dimensions.taps(), None):
        required = [
            name
            for name in sizes
            if name != EMBEDDINGS and (tap is None or needs(name, tap, opened.dimensions))
        ]
        read_bytes = estimate_cost(opened, tap, torch.float32).read_bytes
        assert read_bytes == sum(sizes[name] for name in required)
    assert tensors_read == []
    opened.tensors.read("audio_tower.conv1.")  # the fixture works
    assert sorted(tensors_read) == ["audio_tower.conv1.bias", "audio_tower.conv1.weight"]


@pytest.mark.parametrize(
    "prefix", ["audio_tower.conv1.", "audio_tower.layers.1.", "language_model.model.layers.2.", ""]
)
def test_only_tensors_with_the_prefix_are_read(
    prefix: str, checkpoint: Path, tensors_read: list[str]
) -> None:
    on_disk = tensors_of(checkpoint)
    expected = {name.removeprefix(prefix) for name in on_disk if name.startswith(prefix)}
    tensors = Checkpoint(checkpoint).tensors.read(prefix)
    assert tensors.keys() == expected
    assert sorted(tensors_read) == sorted(prefix + name for name in expected)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, on_disk[prefix + name])


@pytest.mark.parametrize("prefix", ["audio_tower.layers.99.", "layers.1.", "conv1.", "weight"])
def test_prefixes_match_from_the_start_of_names(prefix: str, checkpoint: Path) -> None:
    assert Checkpoint(checkpoint).tensors.read(prefix) == {}


def needs(name: str, tap: Tap | None, dimensions: ModelDimensions) -> bool:
    """Whether a tap needs a tensor: its stage is at or before the tap."""
    if tap is None:
        return True
    taps = [str(t) for t in dimensions.taps()]
    suffix = name.removeprefix("audio_tower.").removeprefix("language_model.model.")
    stage = "encoder" if name.startswith("audio_tower.") else "lm"
    if suffix.startswith("layers."):
        first = f"{stage}.{int(suffix.split('.')[1]) + 1}"
    elif name.startswith("language_model.lm_head."):
        return False
    elif suffix.startswith("layer_norm"):
        first = "audio_tower"
    elif suffix.startswith("norm"):
        first = "lm.norm"
    elif name.startswith("multi_modal_projector."):
        first = "projector"
    else:
        first = f"{stage}.0"
    return taps.index(first) <= taps.index(str(tap))


def test_a_tap_costs_the_tensors_up_to_it(checkpoint: Path) -> None:
    opened = Checkpoint(checkpoint)
    on_disk = tensors_of(checkpoint)
    for tap in (*opened.dimensions.taps(), None):
        required = [t for name, t in on_disk.items() if needs(name, tap, opened.dimensions)]
        cost = estimate_cost(opened, tap, torch.float32)
        assert cost.tensors == len(required)
        assert cost.parameters == sum(tensor.numel() for tensor in required)
        embedding_bytes = on_disk[EMBEDDINGS].nbytes * (tap is None or tap.in_language_model)
        assert cost.read_bytes == sum(tensor.nbytes for tensor in required) - embedding_bytes
        assert cost.download_bytes == 0
    all_parameters = sum(t.numel() for t in on_disk.values())
    assert estimate_cost(opened, Tap.parse("mel"), torch.float32).tensors == 0
    assert estimate_cost(opened, None, torch.float32).parameters == all_parameters


def test_costs_count_the_bytes_stored(copy: Path) -> None:
    for file in copy.glob("*.safetensors"):
        save_file({name: t.bfloat16() for name, t in load_file(file).items()}, file)
    opened = Checkpoint(copy)
    cost = estimate_cost(opened, Tap.parse("projector"), torch.float32)
    assert cost.read_bytes == 2 * cost.parameters


def test_a_tap_reads_the_tensors_of_its_cost_estimate(
    checkpoint: Path, tensors_read: list[str]
) -> None:
    """A model that encodes at one tap reads exactly the tensors that are counted."""
    clip = np.random.default_rng(0).normal(size=8000).astype(np.float32) / 10
    opened = Checkpoint(checkpoint)
    for tap in map(Tap.parse, ("mel", "encoder.0", "encoder.2", "projector", "lm.1", "lm.norm")):
        del tensors_read[:]
        qwen_audio.load(checkpoint, device="cpu").encode(clip, tap=tap, sampling_rate=16_000)
        assert sorted(set(tensors_read)) == sorted(
            name for name in tensors_of(checkpoint) if needs(name, tap, opened.dimensions)
        )
        rows = tensors_read.count(EMBEDDINGS)  # one for each token of the prompt
        assert rows == (6 if tap.in_language_model else 0)
        assert len(tensors_read) == estimate_cost(opened, tap, torch.float32).tensors + max(
            0, rows - 1
        )


@pytest.mark.parametrize("row", [VOCAB_SIZE, 10**6, -1])
def test_a_token_id_beyond_the_embedding_table_is_an_error(row: int, checkpoint: Path) -> None:
    """A tokenizer may have been extended without the model."""
    opened = Checkpoint(checkpoint)
    embeddings = tensors_of(checkpoint)[EMBEDDINGS]
    assert torch.equal(opened.embedding_rows([VOCAB_SIZE - 1])[0], embeddings[-1])
    with pytest.raises(CheckpointError, match=f"row {row} .* {VOCAB_SIZE} rows"):
        opened.embedding_rows([0, row])


def test_modules_are_built_once_with_the_weights(checkpoint: Path, tensors_read: list[str]) -> None:
    modules = ModuleStore(Checkpoint(checkpoint).tensors, torch.device("cpu"), torch.float64)
    norm = modules.get("audio_tower.layer_norm.", lambda: nn.LayerNorm(64))
    assert modules.get("audio_tower.layer_norm.", lambda: nn.LayerNorm(64)) is norm
    assert len(tensors_read) == 2
    on_disk = tensors_of(checkpoint)
    assert torch.equal(norm.weight, on_disk["audio_tower.layer_norm.weight"].double())
    assert norm.weight.dtype == torch.float64
    assert not norm.weight.requires_grad
    assert not norm.training


def test_modules_of_another_shape_are_not_built(checkpoint: Path) -> None:
    modules = ModuleStore(Checkpoint(checkpoint).tensors, torch.device("cpu"), torch.float32)
    with pytest.raises(RuntimeError, match="size mismatch"):
        modules.get("audio_tower.layer_norm.", lambda: nn.LayerNorm(63))
    with pytest.raises(RuntimeError, match="Missing key"):
        modules.get("language_model.lm_head.", lambda: nn.Linear(96, VOCAB_SIZE))


# Revisions.


def test_equal_weights_are_the_same_revision(checkpoint: Path, copy: Path) -> None:
    revision = Checkpoint(checkpoint).revision
    assert len(revision) == 40
    assert int(revision, 16) >= 0
    assert Checkpoint(copy).revision == revision


@pytest.mark.parametrize(
    "prefix", ["audio_tower.layers.1.", "multi_modal_projector.", "language_model.lm_head."]
)
def test_weights_trained_further_are_another_revision(prefix: str, copy: Path) -> None:
    """Whichever module was trained; shapes, names and config stay the same."""
    before = Checkpoint(copy).revision
    for file in copy.glob("*.safetensors"):
        tensors = {
            name: tensor * 1.0001 if name.startswith(prefix) else tensor
            for name, tensor in load_file(file).items()
        }
        save_file(tensors, file, metadata={"format": "pt"})
    assert Checkpoint(copy).revision != before


def test_any_changed_value_of_a_small_tensor_is_another_revision(copy: Path) -> None:
    revisions = {Checkpoint(copy).revision}
    name = "audio_tower.layer_norm.bias"
    for file in copy.glob("*.safetensors"):
        tensors = load_file(file)
        if name in tensors:
            for index in (0, 31, 63):
                tensors[name][index] += 1
                save_file(tensors, file, metadata={"format": "pt"})
                revisions.add(Checkpoint(copy).revision)
    assert len(revisions) == 4


def test_another_config_is_another_revision(copy: Path) -> None:
    before = Checkpoint(copy).revision
    edit_json(copy / "config.json", text_config__rms_norm_eps=1e-5)
    assert Checkpoint(copy).revision != before


def test_byte_samples_are_spread_over_each_tensor(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"large": torch.zeros(1_000_000), "small": torch.zeros(3)}, file)
    before = list(safetensors_file.tensor_byte_samples(file))
    assert sum(map(len, before)) < 10_000
    for half in range(2):
        large = torch.zeros(1_000_000)
        large[500_000 * half : 500_000 * (half + 1)] = 1
        save_file({"large": large, "small": torch.zeros(3)}, file)
        assert list(safetensors_file.tensor_byte_samples(file)) != before


# Errors.


def test_a_folder_has_no_revisions(checkpoint: Path) -> None:
    message = error_message(checkpoint, revision="main")
    assert "revision='main' was given with" in message
    assert str(checkpoint) in message


def test_a_folder_that_is_not_a_checkpoint(tmp_path: Path) -> None:
    assert error_message(tmp_path) == (
        f"{tmp_path} has no config.json: it is not a checkpoint folder"
    )


@pytest.mark.parametrize("name", ["/no/such/folder", "./here", "~/there", "model", "a/b/c", "../x"])
def test_a_missing_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = error_message(Path(name)) if "~" not in name else error_message(name)  # type: ignore[arg-type]
    assert "is not a checkpoint: give 'embedded', an existing folder, or a hub model" in message


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def config(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: edit_json(folder / "config.json", **changes)


def index(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: edit_json(folder / INDEX, **changes)


def shard_of(folder: Path, name: str) -> Path:
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][name]


def change(name: str, new: Callable[[Tensor], Tensor | None]) -> Callable[[Path], object]:
    """Replace a tensor within its shard; if `new` returns None, delete it."""

    def damage(folder: Path) -> None:
        file = shard_of(folder, name)
        tensors: dict[str, Any] = load_file(file)
        tensors[name] = new(tensors[name])
        save_file({n: t for n, t in tensors.items() if t is not None}, file)

    return damage


def truncate(fraction: float) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        file = sorted(folder.glob("*.safetensors"))[1]
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * fraction)])

    return damage


NORM = "audio_tower.layer_norm.weight"
EXTRA = "audio_tower.layers.9.fc1.weight"
ATTENTION = "language_model.model.layers.1.self_attn.q_proj.weight"

DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (remove("config.json"), "has no config.json"),
    "config is not JSON": (write("config.json", "{"), "config.json can't be read as JSON"),
    "config is not an object": (write("config.json", "[1]"), "config.json is not a JSON object"),
    "config is not text": (write("config.json", "\0"), "config.json can't be read as JSON"),
    "another model type": (
        config(model_type="qwen2_vl"),
        "is of type 'qwen2_vl', a language model for images and text; only 'qwen2_audio'",
    ),
    "no model type": (config(model_type=None), "has a config.json without model_type"),
    "another text model": (config(text_config__model_type="llama"), "type 'llama'"),
    "sliding windows": (
        config(text_config__layer_types=["full_attention", "sliding_attention", "full_attention"]),
        "only 'qwen2' with full attention",
    ),
    "sliding windows, as released models write them": (
        config(
            text_config__layer_types=None,
            text_config__use_sliding_window=True,
            text_config__sliding_window=128,
            text_config__max_window_layers=1,
        ),
        "only 'qwen2' with full attention",
    ),
    "a config that contradicts itself": (
        config(text_config__layer_types=["full_attention"]),
        "config.json is not valid",
    ),
    "a number that is text": (config(text_config__hidden_size="wide"), "config.json is not valid"),
    "a shorter encoder": (
        config(audio_config__max_source_positions=750),
        "has an audio encoder of 750 positions; only 1500",
    ),
    "more layers in the config": (
        config(audio_config__encoder_layers=4),
        "lacks 15 tensors, audio_tower.layers.3.",
    ),
    "fewer layers in the config": (
        config(audio_config__encoder_layers=2),
        "has 15 tensors that its config lacks, audio_tower.layers.2.",
    ),
    "another width in the config": (
        config(text_config__intermediate_size=200),
        "has shape (96, 192), but its config requires (96, 200)",
    ),
    "no weights": (
        lambda folder: list(map(Path.unlink, list(folder.glob("*.safetensors*")))),
        "neither model.safetensors.index.json nor model.safetensors",
    ),
    "no index": (remove(INDEX), "neither model.safetensors.index.json nor model.safetensors"),
    "an index that is not JSON": (write(INDEX, "no"), "can't be read as JSON"),
    "an empty index": (write(INDEX, "{}"), "has no weight_map"),
    "an index without files": (write(INDEX, '{"weight_map": {"a": 1}}'), "has no weight_map"),
    "an index without a map": (write(INDEX, '{"weight_map": [1]}'), "has no weight_map"),
    "an index that refers to another folder": (
        write(INDEX, '{"weight_map": {"a": "../other/model.safetensors"}}'),
        "has no weight_map of tensors and files beside it",
    ),
    "a tensor missing in the index": (
        lambda f: edit_index(f, lambda files: files.pop(NORM)),
        f"lacks 1 tensor, {NORM}: ",
    ),
    "an extra tensor in the index": (
        lambda f: edit_index(f, lambda files: files.update({EXTRA: files[NORM]})),
        f"has 1 tensor that its config lacks, {EXTRA}: ",
    ),
    "a tensor indexed in another shard": (
        lambda f: edit_index(
            f,
            lambda files: files.update({NORM: next(o for o in files.values() if o != files[NORM])}),
        ),
        f"and the index disagree on {NORM}",
    ),
    "a missing shard": (
        lambda f: shard_of(f, NORM).unlink(),
        "lacks its shard model-0000",
    ),
    "a tensor missing in its shard": (
        change(NORM, lambda _: None),
        f"and the index disagree on {NORM}: download",
    ),
    "a tensor of another shape": (
        change(NORM, lambda tensor: tensor[:-1].clone()),
        f"tensor {NORM} has shape (63,), but its config requires (64,)",
    ),
    "a tensor transposed": (
        change("language_model.model.layers.0.mlp.up_proj.weight", lambda t: t.T.contiguous()),
        "has shape (96, 192), but its config requires (192, 96)",
    ),
    "a tensor in 8 bits": (
        change(ATTENTION, lambda tensor: tensor.to(torch.int8)),
        f"tensor {ATTENTION} is stored as I8; only F64, F32, F16, BF16 are supported",
    ),
    "a tensor in 8-bit floats": (
        change(ATTENTION, lambda tensor: tensor.to(torch.float8_e4m3fn)),
        "is stored as F8_E4M3",
    ),
    "a truncated shard": (truncate(0.6), "is not a complete safetensors file"),
    "a shard truncated in its header": (truncate(0.001), "is not a complete safetensors file"),
    "an empty shard": (truncate(0), "is not a complete safetensors file"),
    "a shard that is not safetensors": (
        lambda f: (
            shard_of(f, NORM).write_bytes(b"version https://git-lfs.github.com/spec/v1\n") and None
        ),
        "is not a complete safetensors file",
    ),
}


def edit_index(folder: Path, edit: Callable[[dict[str, str]], Any]) -> None:
    content = json.loads((folder / INDEX).read_text())
    edit(content["weight_map"])
    (folder / INDEX).write_text(json.dumps(content))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_errors(damage: str, copy: Path) -> None:
    apply, expected = DAMAGES[damage]
    assert Checkpoint(copy)
    apply(copy)
    message = error_message(copy)
    assert expected in message
    assert str(copy) in message


def test_many_missing_tensors_are_abbreviated(copy: Path) -> None:
    """Three names and an ellipsis: a checkpoint of another depth lacks hundreds."""
    edit_json(copy / "config.json", audio_config__encoder_layers=40)
    message = error_message(copy)
    assert "…" in message
    assert len(message) < 500


def test_a_damaged_checkpoint_of_one_file(tmp_path: Path) -> None:
    folder = random_checkpoint(tmp_path / "checkpoint", shards=1)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert "model.safetensors is not a complete safetensors file" in error_message(folder)


def test_a_shard_deleted_after_opening(copy: Path) -> None:
    opened = Checkpoint(copy)
    for file in copy.glob("*.safetensors"):
        file.unlink()
    assert len(opened.required_tensors(None)) == len(opened.family.tensor_requirements())
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        opened.tensors.read("audio_tower.layer_norm.")


# Files other than weights.


def test_the_feature_extractor_is_that_of_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    extractor = Checkpoint(checkpoint).feature_extractor
    assert isinstance(extractor, WhisperFeatureExtractor)
    assert extractor.feature_size == 80
    other = random_checkpoint(tmp_path, mel_bins=128)
    assert Checkpoint(other).feature_extractor.feature_size == 128


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            remove("preprocessor_config.json"),
            "no settings of a feature extractor (processor_config.json or "
            "preprocessor_config.json): save the processor beside the weights",
        ),
        (remove("tokenizer.json"), "no tokenizer (tokenizer.json or tekken.json): save the"),
        (write("preprocessor_config.json", "{"), "can't be read as JSON"),
        (write("processor_config.json", "{"), "can't be read as JSON"),
        (write("processor_config.json", '{"feature_extractor": 5}'), "is not valid"),
        (write("preprocessor_config.json", '{"n_fft": "wide"}'), "is not valid"),
        (lambda f: edit_json(f / "preprocessor_config.json", n_fft=512), "n_fft=512"),
        (
            lambda f: edit_json(f / "preprocessor_config.json", feature_size=128),
            "preprocessor_config.json has feature_size=128, but this model takes 80",
        ),
        (
            lambda f: edit_json(f / "preprocessor_config.json", feature_extractor_type="Clap"),
            "preprocessor_config.json describes a Clap, but Qwen2-Audio takes",
        ),
    ],
)
def test_missing_and_unsupported_processors(
    damage: Callable[[Path], object], expected: str, copy: Path
) -> None:
    for name in ("vocab.json", "merges.txt"):
        (copy / name).unlink()
    Checkpoint(copy)
    damage(copy)
    assert expected in error_message(copy)


def test_the_generation_config_may_be_missing(copy: Path) -> None:
    assert Checkpoint(copy).generation_config["eos_token_id"] == 1093
    (copy / "generation_config.json").unlink()
    assert Checkpoint(copy).generation_config == {}


def test_other_files(checkpoint: Path) -> None:
    opened = Checkpoint(checkpoint)
    assert opened.file("tokenizer.json") == checkpoint / "tokenizer.json"
    assert opened.file("nothing.json") is None


# Tensor names and shapes.


def test_every_tensor_is_needed_by_its_tap_and_all_later_ones() -> None:
    opened = Checkpoint()
    required = opened.family.tensor_requirements()
    taps = {str(each.tap) for each in required.values()}
    assert taps == {str(tap) for tap in opened.dimensions.taps()} - {"mel"} | {"None"}
    for name, (tap, shape, _) in required.items():
        assert math.prod(shape) > 0
        for other in opened.dimensions.taps():
            assert needs(name, other, opened.dimensions) == (tap is not None and tap <= other)


def test_tensors_of_the_7b_model() -> None:
    """From its published config: 8.4 billion parameters, 0.64 billion in the audio encoder."""
    settings = {
        "text_config": {
            "model_type": "qwen2",
            "hidden_size": 4096,
            "intermediate_size": 11_008,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "num_hidden_layers": 32,
            "vocab_size": 156_032,
        }
    }
    required = Qwen2Audio(settings, "7B").tensor_requirements()
    parameters = {name: math.prod(each.shape) for name, each in required.items()}
    assert sum(parameters.values()) == 8_397_094_912
    encoder = [n for name, n in parameters.items() if name.startswith("audio_tower.")]
    assert sum(encoder) == 636_968_960
    assert required["audio_tower.conv1.weight"].shape == (1280, 128, 3)
    assert required["multi_modal_projector.linear.weight"].shape == (4096, 1280)


def test_listing_tensors_allocates_no_weights() -> None:
    """One layer of this model would take 50 TB."""
    text = {"model_type": "qwen2", "hidden_size": 1 << 20, "intermediate_size": 1 << 22}
    required = Qwen2Audio({"text_config": text}, "huge").tensor_requirements()
    assert required["language_model.model.layers.0.mlp.up_proj.weight"].shape == (1 << 22, 1 << 20)
