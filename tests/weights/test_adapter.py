"""LoRA adapters merged at load: as transformers computes with the merged weights."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2AudioForConditionalGeneration

import qwen_audio as qa
from adapters import WEIGHTS, write_adapter
from checkpoints import edit_json, random_checkpoint
from qwen_audio.errors import CheckpointError, OptionError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.tensors import EMBEDDINGS, LM_HEAD
from qwen_audio.weights.adapter import Adapter
from reference import PLAIN, Reference, relative_error, sound

CLIP = sound(0.4)
Q_PROJ_OF_FILES = "language_model.model.layers.0.self_attn.q_proj"
PROMPT = PLAIN + "Describe the music:"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"width": 32, "encoder_layers": 2, "encoder_heads": 2, "lm_width": 48, "lm_layers": 2}
    return random_checkpoint(tmp_path_factory.mktemp("base"), shards=1, **sizes)


@pytest.fixture(scope="module")
def reference(base: Path) -> Reference:
    return Reference(base)


@pytest.fixture
def model(reference: Reference) -> Any:
    """transformers' model, for a test to change."""
    return copy.deepcopy(reference.model)


@pytest.fixture
def merged_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tensors that are merged, in order."""
    names: list[str] = []
    merge = Adapter.merge

    def recording_merge(self: Adapter, name: str, *rest: Any) -> torch.Tensor:
        names.append(name)
        return merge(self, name, *rest)

    monkeypatch.setattr(Adapter, "merge", recording_merge)
    return names


def check(
    base: Path, adapter: Path, model: Any, reference: Reference, **options: Any
) -> qa.AudioModel:
    """Every tap, and the logits, equal those of transformers' model with merged weights."""
    merged = copy.copy(reference)
    merged.model = model
    expected, unchanged = merged.taps(CLIP, PROMPT), reference.taps(CLIP, PROMPT)
    assert any(relative_error(expected[tap], unchanged[tap]) > 0.01 for tap in expected)
    ours = qa.load(base, adapter=adapter, dtype="float32", device="cpu", **options)
    states = ours.activations(CLIP, taps=ours.taps, prompt=PROMPT, sampling_rate=16_000)
    for tap, rows in expected.items():
        assert relative_error(states[tap].data, rows) < 1e-5, tap
    last = torch.from_numpy(expected["lm.norm"])
    logits = ours.pipeline.lm.logits(last).numpy()
    assert relative_error(logits, model.lm_head(last).detach().numpy()) < 1e-5
    return ours


ADAPTERS: dict[str, dict[str, Any]] = {
    "alpha over rank": {},
    "rank-stabilised": {"use_rslora": True},
    "ranks and alphas of some modules": {
        "rank_pattern": {"q_proj": 2, "layers.1.fc1": 6},
        "alpha_pattern": {"v_proj": 3, "layers.0.q_proj": 5},
    },
    "the adapter's name in names": {"infix": ".default"},
    "no prefix": {"prefix": ""},
    "convolutions": {"targets": ("conv1", "conv2")},
    "embeddings and head": {"targets": ("embed_tokens", "lm_head", "o_proj")},
    "ways of starting that leave the base alone": {"init_lora_weights": "gaussian"},
    "settings of other tools": {"lorap_emb_lr": 1e-6, "lora_dtype": None, "peft_version": "9"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTERS)
def test_merged_adapters(
    name: str, base: Path, model: Any, reference: Reference, tmp_path: Path
) -> None:
    check(base, write_adapter(tmp_path, model, **ADAPTERS[name]), model, reference)


def test_names_of_an_adapter_trained_with_transformers_4(
    base: Path, model: Any, reference: Reference, tmp_path: Path
) -> None:
    write_adapter(tmp_path, model)
    tensors = {
        name.replace(".model.model.language_model.", ".model.language_model.model.").replace(
            ".model.model.", ".model."
        ): tensor
        for name, tensor in load_file(tmp_path / WEIGHTS).items()
    }
    assert (
        "base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.weight" in tensors
    )
    save_file(tensors, tmp_path / WEIGHTS)
    check(base, tmp_path, model, reference)


def replaced_parameters(model: Any) -> dict[str, torch.Tensor]:
    """Biases, and modules that were trained as a whole."""
    parameters = dict(model.named_parameters())
    names = [name for name in parameters if "conv1.bias" in name or "q_proj.bias" in name]
    names += [name for name in parameters if "multi_modal_projector" in name]
    names += ["lm_head.weight", "model.language_model.embed_tokens.weight"]
    generator = torch.Generator().manual_seed(1)
    return {n: torch.randn(parameters[n].shape, generator=generator) for n in names}


@pytest.mark.parametrize(
    "wrapped", [lambda n: n, lambda n: n.replace("q_proj.", "q_proj.base_layer.")]
)
def test_parameters_trained_as_a_whole(
    wrapped: Callable[[str], str], base: Path, model: Any, reference: Reference, tmp_path: Path
) -> None:
    write_adapter(tmp_path, model, targets=("v_proj",), replaced=replaced_parameters(model))
    tensors = {wrapped(name): tensor for name, tensor in load_file(tmp_path / WEIGHTS).items()}
    save_file(tensors, tmp_path / WEIGHTS)
    check(base, tmp_path, model, reference)


def test_a_term_beside_a_replaced_tensor(
    base: Path, model: Any, reference: Reference, tmp_path: Path
) -> None:
    """PEFT saves embeddings and heads as a whole, too, where they are adapted."""
    whole = {
        "lm_head.weight": torch.randn(model.lm_head.weight.shape),
        "model.language_model.embed_tokens.weight": torch.randn(model.lm_head.weight.shape),
    }
    parameters = dict(model.named_parameters())
    for name, value in whole.items():
        parameters[name].data.copy_(value)
    write_adapter(tmp_path, model, targets=("lm_head", "embed_tokens"))
    tensors = load_file(tmp_path / WEIGHTS)
    for name, value in whole.items():
        tensors[f"base_model.model.{name.replace('.weight', '.base_layer.weight')}"] = value
    save_file(tensors, tmp_path / WEIGHTS)
    check(base, tmp_path, model, reference)


@pytest.mark.slow
def test_streamed_layers_are_merged(
    base: Path, model: Any, reference: Reference, tmp_path: Path, merged_names: list[str]
) -> None:
    adapter = write_adapter(tmp_path, model)
    opened = qa.load(base, adapter=adapter, dtype="float32", device="cpu")
    check(base, adapter, model, reference, max_memory=opened.cost().min_memory_bytes)
    least = opened.cost("lm.norm").min_memory_bytes
    streamed = qa.load(base, adapter=adapter, dtype="float32", device="cpu", max_memory=least)
    options: dict[str, Any] = {"tap": "lm.norm", "pooling": "none", "sampling_rate": 16_000}
    vectors = opened.encode(CLIP, **options)
    del merged_names[:]
    for _ in range(2):
        np.testing.assert_array_equal(streamed.encode(CLIP, **options), vectors)
    assert merged_names.count(f"{Q_PROJ_OF_FILES}.weight") == 2


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_in_float32_and_rounded_once(
    dtype: str, stored: torch.dtype, base: Path, model: Any, tmp_path: Path
) -> None:
    """Within one rounding of the sums, computed in blocks of rows or at once."""
    folder, adapter = tmp_path / "base", tmp_path / "adapter"
    model.to(stored).save_pretrained(folder)
    for file in base.glob("*.json"):
        if file.name != "config.json":
            shutil.copy(file, folder)
    rounded = Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    write_adapter(adapter, rounded)
    merged = tmp_path / "merged"
    rounded.save_pretrained(merged)
    opened = Checkpoint(folder, adapter=adapter).tensors
    expected = load_file(merged / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        for size in (1 << 22, 100):
            patch.setattr("qwen_audio.weights.adapter._VALUES_PER_BLOCK", size)
            for name, tensor in opened.read("", dtype=getattr(torch, dtype)).items():
                difference = (tensor.float() - expected[name]).abs().max()
                limit = 1e-6 if dtype == "float32" else 2**-8
                assert difference <= limit * expected[name].abs().max(), name


def test_only_needed_tensors_are_read_and_counted(
    base: Path, model: Any, tmp_path: Path, merged_names: list[str]
) -> None:
    adapter = write_adapter(tmp_path, model)
    checkpoint = Checkpoint(base, adapter=adapter)
    ours = qa.load(base, adapter=adapter, dtype="float32", device="cpu")
    ours.encode(CLIP, tap="encoder.1", sampling_rate=16_000)
    layer = "audio_tower.layers.0."
    read = set(merged_names)
    assert read == {
        f"{layer}{part}.weight" for part in ("self_attn.q_proj", "self_attn.v_proj", "fc1")
    }
    plain = Checkpoint(base)
    added = {name: checkpoint.stored_bytes(name) - plain.stored_bytes(name) for name in read}
    sizes = {name: tensor.nbytes for name, tensor in load_file(tmp_path / WEIGHTS).items()}
    assert sum(added.values()) == sum(
        size for name, size in sizes.items() if "audio_tower.layers.0." in name
    )
    difference = (
        ours.cost("encoder.1").read_bytes
        - qa.load(base, dtype="float32").cost("encoder.1").read_bytes
    )
    assert difference == sum(added.values())
    assert ours.cost().parameters == qa.load(base).cost().parameters


@pytest.mark.slow
def test_parity_and_generation_use_the_adapter(base: Path, model: Any, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", model)
    ours = qa.load(base, adapter=adapter, dtype="float32", device="cpu")
    assert ours.adapter == str(adapter)
    assert repr(str(adapter)) in repr(ours)
    report = ours.check_parity(qa.Waveform(CLIP, "clip"))
    assert report.holds
    assert report.adapter == ours.spec().adapter
    merged = tmp_path / "merged"
    shutil.copytree(base, merged)
    model.save_pretrained(merged)
    options: dict[str, Any] = {"sampling_rate": 16_000, "max_new_tokens": 6}
    assert ours.describe(CLIP, **options) == qa.load(merged, dtype="float32").describe(
        CLIP, **options
    )


# The identity of vectors.


def test_the_content_hash_is_in_the_spec(
    base: Path, model: Any, reference: Reference, tmp_path: Path
) -> None:
    """Of what the adapter changes, not of names and files."""
    plain = qa.load(base).spec()
    assert plain.adapter is None

    def spec(name: str, **options: Any) -> qa.EmbeddingSpec:
        fresh = copy.deepcopy(reference.model)
        return qa.load(base, adapter=write_adapter(tmp_path / name, fresh, **options)).spec()

    first = spec("first")
    assert first.adapter is not None
    assert len(first.adapter) == 40
    same = [spec("moved"), spec("infix", infix=".default"), spec("dropout", lora_dropout=0.5)]
    assert {each.fingerprint for each in same} == {first.fingerprint}
    others = [
        spec("seed", seed=1),
        spec("alpha", lora_alpha=9),
        spec("rslora", use_rslora=True),
        spec("fewer", targets=("q_proj",)),
        spec("rank", rank=5),
    ]
    assert len({first.fingerprint, plain.fingerprint, *(s.fingerprint for s in others)}) == 7
    assert qa.EmbeddingSpec.from_json(first.to_json()) == first


# Adapters that can't be merged.


def change_settings(**settings: Any) -> Callable[[Path], object]:
    return lambda folder: edit_json(folder / "adapter_config.json", **settings)


def change_tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return apply


Q_PROJ = "base_model.model.model.language_model.layers.0.self_attn.q_proj"

DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another kind": (
        change_settings(peft_type="IA3"),
        "is an adapter of type IA3; only LoRA can be merged here: merge it with PEFT",
    ),
    "no kind": (change_settings(peft_type=None), "is an adapter of type None; only LoRA"),
    "DoRA": (change_settings(use_dora=True), "is a variant of LoRA, with use_dora=True"),
    "a new variant": (change_settings(use_xora=[1]), "is a variant of LoRA, with use_xora=[1]"),
    "layers repeated": (change_settings(layer_replication=[[0, 1]]), "with layer_replication="),
    "single tokens": (change_settings(trainable_token_indices=[5]), "trainable_token_indices=[5]"),
    "PiSSA": (
        change_settings(init_lora_weights="pissa_niter_4"),
        "was initialised with 'pissa_niter_4', which changes the base weights, too: save it as",
    ),
    "OLoRA": (change_settings(init_lora_weights="olora"), "was initialised with 'olora'"),
    "an alpha that is no number": (change_settings(lora_alpha="x"), "an invalid lora_alpha"),
    "a pattern that is none": (change_settings(alpha_pattern={"(": 1}), "an invalid lora_alpha"),
    "settings that are not JSON": (
        lambda f: (f / "adapter_config.json").write_text("{"),
        "can't be read as JSON",
    ),
    "no settings": (lambda f: (f / "adapter_config.json").unlink(), "it is no PEFT adapter"),
    "a whole checkpoint": (
        lambda f: (f / "adapter_config.json").rename(f / "config.json"),
        "has no adapter_config.json: it is a whole checkpoint, load it as one",
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no adapter_model.safetensors: save it"),
    "pickled weights": (
        lambda f: (f / WEIGHTS).rename(f / "adapter_model.bin"),
        "has no adapter_model.safetensors: adapter_model.bin holds pickled weights",
    ),
    "damaged weights": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]),
        "is not a complete safetensors file",
    ),
    "no tensors": (change_tensors(lambda t: t.clear()), "has no tensors"),
    "one factor": (
        change_tensors(lambda t: t.pop(f"{Q_PROJ}.lora_A.weight")),
        "has only one of the factors A and B for language_model.model.layers.0.self_attn.q_proj",
    ),
    "factors of different ranks": (
        change_tensors(lambda t: t.update({f"{Q_PROJ}.lora_A.weight": torch.zeros(3, 48)})),
        "have shapes (3, 48) and (48, 4), which don't belong together",
    ),
    "a magnitude vector": (
        change_tensors(lambda t: t.update({f"{Q_PROJ}.lora_magnitude_vector": torch.zeros(48)})),
        "is a variant of LoRA: it has base_model.model.model.language_model",
    ),
    "biases of factors": (
        change_tensors(lambda t: t.update({f"{Q_PROJ}.lora_B.bias": torch.zeros(48)})),
        "is a variant of LoRA: it has base_model.model.model.language_model",
    ),
    "two adapters": (
        change_tensors(lambda t: t.update({f"{Q_PROJ}.lora_A.b.weight": torch.zeros(4, 48)})),
        "has two tensors for language_model.model.layers.0.self_attn.q_proj.weight",
    ),
    "a module of another model": (
        change_tensors(lambda t: t.update({"base_model.model.score.weight": torch.zeros(2, 2)})),
        "changes 1 tensor that this model lacks, score.weight: it was trained on owner/base",
    ),
    "another width": (
        change_tensors(lambda t: t.update({f"{Q_PROJ}.lora_A.weight": torch.zeros(4, 50)})),
        "in the shape (48, 50), but this model has (48, 48): it was trained on owner/base",
    ),
    "another vocabulary": (
        change_tensors(lambda t: t.update({"base_model.model.lm_head.weight": torch.zeros(9, 48)})),
        f"changes {LM_HEAD} in the shape (9, 48), but this model has (1104, 48)",
    ),
    "integers": (
        change_tensors(lambda t: t.update({f"{Q_PROJ}.bias": torch.zeros(48, dtype=torch.int64)})),
        "is stored as I64",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_other_adapters_are_errors(damage: str, base: Path, model: Any, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", model)
    Checkpoint(base, adapter=folder)
    apply, expected = DAMAGES[damage]
    apply(folder)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(base, adapter=folder)
    message = str(caught.value)
    assert expected in message
    assert str(folder) in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["nothing", "/no/such/folder", "./a", ""])
def test_names_that_are_no_adapters(name: str, base: Path) -> None:
    with pytest.raises(CheckpointError, match="is not an adapter: give the folder with its adap"):
        Checkpoint(base, adapter=name)


def test_tied_embeddings_can_not_be_adapted(base: Path, model: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "tied")
    tensors = load_file(folder / "model.safetensors")
    del tensors[LM_HEAD]
    save_file(tensors, folder / "model.safetensors")
    edit_json(folder / "config.json", tie_word_embeddings=True)
    Checkpoint(folder, adapter=write_adapter(tmp_path / "linear", model))
    adapter = write_adapter(tmp_path / "adapter", model, targets=("embed_tokens",))
    with pytest.raises(CheckpointError, match=r"changes the embeddings of .* which are its head"):
        Checkpoint(folder, adapter=adapter)


def test_an_adapter_inside_a_whole_checkpoint(
    base: Path, model: Any, reference: Reference, tmp_path: Path
) -> None:
    """It is not ignored, and not merged without being asked for."""
    folder = Path(shutil.copytree(base, tmp_path / "both"))
    write_adapter(folder, model)
    with pytest.raises(OptionError, match="holds a whole model and an adapter: give adapter="):
        Checkpoint(folder)
    check(folder, folder, model, reference)


def test_rows_of_the_embedding_table(base: Path, model: Any, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path, model, targets=("embed_tokens",))
    opened = Checkpoint(base, adapter=adapter)
    table = opened.tensors.read(EMBEDDINGS)[""]
    rows = opened.embedding_rows([7, 3, 7])
    for row, token in zip(rows, (7, 3, 7), strict=True):
        torch.testing.assert_close(row, table[token], rtol=0, atol=1e-6)
    assert opened.embedding_rows([]) == []
