"""Checkpoints as transformers and its users save them: the same numbers as from_pretrained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioModel,
)

import qwen_audio as qa
from checkpoints import EMBEDDED, VOCAB_SIZE, edit_json, random_checkpoint
from qwen_audio.errors import CheckpointError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.tensors import EMBEDDINGS, LM_HEAD
from reference import PLAIN, Reference, relative_error, sound

CLIP = sound(0.4)
PROMPT = PLAIN + "Describe the music:"
Model = Qwen2AudioForConditionalGeneration


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    sizes = {"width": 32, "encoder_layers": 1, "encoder_heads": 2, "lm_width": 48, "lm_layers": 2}
    return random_checkpoint(folder, shards=1, **sizes)


@pytest.fixture
def model(original: Path) -> Any:
    """transformers' model, for a test to change and save."""
    return Model.from_pretrained(original)


def save(model: Any, folder: Path, **options: Any) -> Path:
    """Model and processor, as a training script ends."""
    model.save_pretrained(folder, **options)
    AutoProcessor.from_pretrained(EMBEDDED).save_pretrained(folder)
    return folder


def check(folder: Path, reference: Reference | None = None, prompt: str = PROMPT) -> qa.AudioModel:
    """Every tap, and the logits, equal those of the reference: transformers, given the folder."""
    reference = reference or Reference(folder)
    model = qa.load(folder, dtype="float32", device="cpu")
    states = model.activations(CLIP, taps=model.taps, prompt=prompt, sampling_rate=16_000)
    expected = reference.taps(CLIP, prompt)
    assert {str(tap) for tap in model.taps} == expected.keys()
    for tap, rows in expected.items():
        assert relative_error(states[tap].data, rows) < 1e-5, tap
    last = torch.from_numpy(expected["lm.norm"])
    logits = model.pipeline.lm.logits(last).numpy()
    assert relative_error(logits, reference.model.lm_head(last).detach().numpy()) < 1e-5
    return model


# Files that transformers 5 writes.


def test_saved_by_transformers_5(model: Any, tmp_path: Path) -> None:
    """Which has no preprocessor_config.json."""
    folder = save(model, tmp_path)
    assert (folder / "processor_config.json").is_file()
    assert not (folder / "preprocessor_config.json").exists()
    check(folder)


@pytest.mark.parametrize("shard_bytes", [10**9, 100_000])
def test_names_of_modules(shard_bytes: int, model: Any, tmp_path: Path) -> None:
    folder = save(model, tmp_path, save_original_format=False, max_shard_size=shard_bytes)
    stored = {name for file in folder.glob("*.safetensors") for name in load_file(file)}
    assert {"lm_head.weight", "model.language_model.norm.weight"} <= stored
    assert (folder / "model.safetensors.index.json").exists() == (shard_bytes < 10**9)
    check(folder)


def rename(folder: Path, new: Callable[[str], str]) -> None:
    file = folder / "model.safetensors"
    save_file({new(name): t for name, t in load_file(file).items()}, file, {"format": "pt"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "new",
    [
        lambda name: f"model.{name}",
        lambda name: name.replace("language_model.model.", "language_model."),
        lambda name: name.replace("language_model.model.", "model.language_model."),
        lambda name: name.removeprefix("language_model.") if "lm_head" in name else name,
    ],
)
def test_names_in_between(
    new: Callable[[str], str], original: Path, model: Any, tmp_path: Path
) -> None:
    folder = save(model, tmp_path)
    rename(folder, new)
    check(folder, Reference(original))


def test_canonical_names_stay(original: Path) -> None:
    for name in load_file(original / "model.safetensors"):
        assert Checkpoint(original).family.canonical_name(name) == name


@pytest.mark.parametrize("key", ["feature_extractor", "audio_processor"])
def test_the_processor_config_comes_first(key: str, model: Any, tmp_path: Path) -> None:
    """As in transformers: preprocessor_config.json may be left over from another checkpoint."""
    folder = save(model, tmp_path)
    shutil.copy(EMBEDDED / "preprocessor_config.json", folder)
    edit_json(folder / "preprocessor_config.json", feature_size=128)
    settings = json.loads((folder / "processor_config.json").read_text())
    settings[key] = settings.pop("feature_extractor")
    (folder / "processor_config.json").write_text(json.dumps(settings))
    assert Checkpoint(folder).feature_extractor.feature_size == 80
    del settings[key]  # as transformers 4 writes it
    (folder / "processor_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json has feature_size=128"):
        Checkpoint(folder)


def test_a_single_file_comes_before_an_index(original: Path, tmp_path: Path) -> None:
    """An index may be left over from shards that the file has replaced."""
    folder = Path(shutil.copytree(original, tmp_path / "both"))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b"}}')
    check(folder)


def test_a_tokenizer_without_tokenizer_json(original: Path, tmp_path: Path) -> None:
    """As transformers 4 writes a slow one."""
    folder = Path(shutil.copytree(original, tmp_path / "slow"))
    (folder / "tokenizer.json").unlink()
    prompt = "Größe 12: what’s\n\n this?"
    expected = AutoTokenizer.from_pretrained(folder)(PLAIN + prompt)["input_ids"]
    tokenizer = Checkpoint(folder).tokenizer()
    assert list(tokenizer.encode(tokenizer.render(prompt))) == expected


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("processor_config.json", {"chat_template": "{{ messages[0]['role'] }} says"}),
        ("processor_config.json", {"chat_template": {"default": "{{ messages[0]['role'] }} says"}}),
        ("chat_template.json", {"chat_template": "{{ messages[0]['role'] }} says"}),
        ("tokenizer_config.json", {"chat_template": "not used by the processor"}),
    ],
)
def test_chat_templates(file: str, content: dict[str, Any], original: Path, tmp_path: Path) -> None:
    """The one that transformers' processor uses."""
    folder = Path(shutil.copytree(original, tmp_path / "copy"))
    (folder / "processor_config.json").write_text("{}")
    if file == "tokenizer_config.json":
        (folder / "chat_template.jinja").unlink()
    edit_json(folder / file, **content) if (folder / file).exists() else (folder / file).write_text(
        json.dumps(content)
    )
    tokenizer = Checkpoint(folder).tokenizer(chat=True)
    messages = [tokenizer.user_message("What is this?", audio=True)]
    processor: Any = AutoProcessor.from_pretrained(folder)
    expected = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert tokenizer.apply_chat_template(messages) == expected


# Vocabularies and heads.


@pytest.mark.parametrize("tokens", [1100, 1152])
@pytest.mark.filterwarnings("ignore")
def test_a_resized_vocabulary(tokens: int, model: Any, tmp_path: Path) -> None:
    model.resize_token_embeddings(tokens)
    folder = save(model, tmp_path)
    prompt = PROMPT
    if tokens > VOCAB_SIZE:  # for tokens of one's own
        processor: Any = AutoProcessor.from_pretrained(folder)
        assert processor.tokenizer.add_tokens([f"<new-{k}>" for k in range(9)]) == 9
        processor.save_pretrained(folder)
        prompt = f"{PROMPT} <new-8>"
    checked = check(folder, prompt=prompt)
    assert checked.pipeline.checkpoint.vocabulary_size == tokens
    assert max(checked.pipeline.tokenizer.encode(prompt)) >= min(tokens, VOCAB_SIZE) - 8


@pytest.mark.slow
@pytest.mark.parametrize("names", [(EMBEDDINGS, LM_HEAD), (EMBEDDINGS,), (LM_HEAD,)])
def test_a_padded_vocabulary(
    names: tuple[str, ...], original: Path, model: Any, tmp_path: Path
) -> None:
    """Which config.json doesn't know: transformers refuses it, the stored rows are what it has."""
    folder = save(model, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    for name in names:
        tensors[name] = torch.nn.functional.pad(tensors[name], (0, 0, 0, 48))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    opened = qa.load(folder, dtype="float32", device="cpu")
    expected = qa.load(original, dtype="float32", device="cpu")
    options: dict[str, Any] = {"sampling_rate": 16_000, "tap": "lm.norm", "pooling": "none"}
    vectors = opened.encode(CLIP, **options)
    np.testing.assert_array_equal(vectors, expected.encode(CLIP, **options))
    size = VOCAB_SIZE + 48 * (LM_HEAD in names)
    assert opened.pipeline.checkpoint.vocabulary_size == size
    logits = opened.pipeline.lm.logits(torch.from_numpy(vectors))
    assert logits.shape[1] == size
    assert torch.equal(
        logits[:, :VOCAB_SIZE], expected.pipeline.lm.logits(torch.from_numpy(vectors))
    )
    tokens = 48 * opened.dimensions.lm_width
    added = opened.cost().parameters - expected.cost().parameters
    assert added == len(names) * tokens
    assert opened.describe(CLIP, sampling_rate=16_000, max_new_tokens=3).answers
    lens = opened.lens(CLIP, sampling_rate=16_000, nearest=True)
    assert lens.top_ids.max() < size


def without(folder: Path, *names: str) -> None:
    file = folder / "model.safetensors"
    tensors = {name: t for name, t in load_file(file).items() if name not in names}
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.slow
@pytest.mark.parametrize("absent", [LM_HEAD, EMBEDDINGS])
@pytest.mark.parametrize("key", ["text_config__tie_word_embeddings", "tie_word_embeddings"])
def test_tied_embeddings_stored_once(key: str, absent: str, model: Any, tmp_path: Path) -> None:
    """As transformers wrote them until 5.0; today's would leave the head random."""
    model.lm_head.weight.data.copy_(model.model.language_model.embed_tokens.weight)
    folder, full = save(model, tmp_path / "tied"), save(model, tmp_path / "full")
    without(folder, absent)
    edit_json(folder / "config.json", **{key: True})
    checked = check(folder, Reference(full))
    assert checked.describe(CLIP, sampling_rate=16_000, max_new_tokens=3).answers
    untied, tied = qa.load(full, dtype="float32").cost(), checked.cost()
    assert untied.tensors - tied.tensors == 1
    assert untied.parameters - tied.parameters == VOCAB_SIZE * checked.dimensions.lm_width
    assert untied.read_bytes == tied.read_bytes  # of the table only rows are read


@pytest.mark.parametrize("equal", [True, False])
def test_a_tied_head_that_is_stored_is_used(equal: bool, model: Any, tmp_path: Path) -> None:
    """By transformers, too, whatever the config says."""
    if equal:
        model.lm_head.weight.data.copy_(model.model.language_model.embed_tokens.weight)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    check(save(model, tmp_path))


def test_a_model_without_its_head(original: Path, tmp_path: Path) -> None:
    folder = save(Qwen2AudioModel.from_pretrained(original), tmp_path)
    with pytest.raises(CheckpointError, match="lacks the language model's head, language_model"):
        Checkpoint(folder)


# Configurations of earlier versions.


CONFIGS: dict[str, dict[str, Any]] = {
    "dtype as torch_dtype": {"dtype": None, "torch_dtype": "float32"},
    "no dtype": {"dtype": None, "text_config__dtype": None, "audio_config__dtype": None},
    "the audio token as audio_token_id": {"audio_token_index": None, "audio_token_id": 1096},
    "no layer types": {"text_config__layer_types": None},
    "rope_theta instead of rope_parameters": {
        "text_config__rope_parameters": None,
        "text_config__rope_theta": 10_000.0,
        "text_config__rope_scaling": None,
    },
    "layers of the encoder twice": {"audio_config__num_hidden_layers": 1},
    "keys of the first release": {
        "ignore_index": -100,
        "vocab_size": 156_032,
        "audio_config__init_std": 0.02,
        "text_config__use_mrope": False,
        "transformers_version": "4.38.1",
    },
    "defaults left out": {
        **dict.fromkeys(
            f"audio_config__{key}"
            for key in ("activation_function", "dropout", "max_source_positions", "scale_embedding")
        ),
        **dict.fromkeys(
            f"text_config__{key}"
            for key in (
                *("attention_dropout", "hidden_act", "rms_norm_eps", "rope_parameters"),
                *("sliding_window", "use_sliding_window", "max_window_layers", "use_cache"),
                *("tie_word_embeddings", "layer_types", "initializer_range"),
            )
        ),
    },
    "no types of its parts": {"audio_config__model_type": None, "text_config__model_type": None},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_configurations(name: str, original: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(original, tmp_path / "copy"))
    edit_json(folder / "config.json", **CONFIGS[name])
    model = check(folder)
    assert model.pipeline.checkpoint.dtype is torch.float32


def test_the_dtype_of_the_files_where_the_config_has_none(model: Any, tmp_path: Path) -> None:
    folder = save(model.to(torch.float16), tmp_path)
    edit_json(folder / "config.json", dtype=None, text_config__dtype=None, audio_config__dtype=None)
    assert Checkpoint(folder).dtype is torch.float16
