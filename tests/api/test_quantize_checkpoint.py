"""Folders with quantised weights: they hold what `quantize=` computes with, and are whole."""

from __future__ import annotations

import errno
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2AudioForConditionalGeneration

import qwen_audio as qa
from adapters import write_adapter
from checkpoints import edit_json, random_checkpoint
from families import CASES
from hub_server import COMMIT, Hub, serve, use_hub
from quantized_checkpoints import packed
from qwen_audio.api import quantize_checkpoint as module
from qwen_audio.errors import AudioError, AudioWarning, CheckpointError, OptionError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.families.qwen3_omni import Qwen3Omni
from qwen_audio.models.tensors import EMBEDDINGS, LM_HEAD
from qwen_audio.weights.option_values import QUANTIZATIONS
from qwen_audio.weights.quantization import LinearFormat, quantize_matrix, unpack_nibbles
from reference import sound

DOWN = "language_model.model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"width": 32, "encoder_layers": 1, "encoder_heads": 2, "lm_width": 128, "lm_layers": 1}
    return random_checkpoint(tmp_path_factory.mktemp("base"), shards=1, **sizes)


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", tmp_path / "assets")
    return tmp_path / "assets"


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_it_computes_what_quantize_does(
    quantize: str, base: Path, tmp_path: Path, assets: Path
) -> None:
    out = qa.quantize_checkpoint(base, tmp_path / "out", quantize=quantize)
    assert out == tmp_path / "out"
    assert not assets.exists()  # nor is anything else left
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    model, expected = qa.load(out), qa.load(base, quantize=quantize)
    assert model.spec("lm.1").quantization == f"ct-{QUANTIZATIONS[quantize]}"
    options: dict[str, Any] = {"taps": ["encoder.1", "lm.norm"], "sampling_rate": 16_000}
    states = [each.activations(sound(0.4), **options) for each in (model, expected)]
    for tap in options["taps"]:
        np.testing.assert_array_equal(states[0][tap].data, states[1][tap].data)
    cost, expected_cost = model.cost(), expected.cost()
    assert cost.min_memory_bytes == expected_cost.min_memory_bytes
    stored = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    assert cost.read_bytes < stored < sum(f.stat().st_size for f in base.glob("*.safetensors"))


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_any_vocabulary_is_read_back(
    quantize: str, base: Path, tmp_path: Path, assets: Path
) -> None:
    """Rows are not packed: their number is any."""
    odd = Path(shutil.copytree(base, tmp_path / "odd"))
    tensors = load_file(base / "model.safetensors")
    for name in (EMBEDDINGS, LM_HEAD):
        tensors[name] = torch.cat([tensors[name], tensors[name][:1]])
    save_file(tensors, odd / "model.safetensors", {"format": "pt"})
    edit_json(odd / "config.json", text_config__vocab_size=1105)
    rows = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    model = qa.load(qa.quantize_checkpoint(odd, tmp_path / "out", quantize=quantize))
    expected = qa.load(odd, quantize=quantize)
    expected.pipeline.fetch_weights(None)
    logits = [each.pipeline.lm.logits(rows.to(each.pipeline.dtype)) for each in (model, expected)]
    assert logits[0].shape == (3, 1105)
    assert torch.equal(*logits)


@pytest.mark.slow
def test_calibrated_weights_change_less(base: Path, tmp_path: Path) -> None:
    """Of other recordings than those of the calibration, too."""
    heard = [qa.Waveform(sound(0.5, seed), name=f"{seed}") for seed in range(4)]
    shown: list[tuple[Any, ...]] = []
    outs = (
        qa.quantize_checkpoint(base, tmp_path / "nearest", quantize="int4-g128"),
        qa.quantize_checkpoint(
            base,
            tmp_path / "calibrated",
            quantize="int4-g128",
            calibrate=heard,
            on_progress=lambda *each: shown.append(each),
        ),
    )
    options: dict[str, Any] = {"taps": ["lm.1"], "sampling_rate": 16_000}
    expected, nearest, calibrated = (
        qa.load(path, dtype="float32").activations(sound(0.8, 9), **options)["lm.1"].data
        for path in (base, *outs)
    )
    errors = [np.linalg.norm(data - expected) for data in (nearest, calibrated)]
    assert errors[1] < 0.7 * errors[0]
    files = [load_file(out / "model-00001-of-00001.safetensors") for out in outs]
    packed_head = "language_model.lm_head.weight_packed"
    assert not torch.equal(files[0][packed_head], files[1][packed_head])
    encoder = [name for name in files[0] if name.startswith("audio_tower.")]
    assert all(torch.equal(files[0][name], files[1][name]) for name in encoder)
    config = json.loads((outs[1] / "config.json").read_text())
    assert config["quantized_from"]["calibration_positions"] > 4 * 12  # a prompt, at least
    assert config["quantized_from"]["uncalibrated_matrices"] == 0
    assert shown[-1][:4] == ("captioning", 4, 4, "recordings")


@pytest.mark.slow
def test_experts_that_nothing_is_routed_to_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a model as if without parts that aren't read, which would be refused."""
    CASES["qwen3_omni_moe"].write(tmp_path / "omni")
    monkeypatch.setattr(Qwen3Omni, "ignored_names", ())
    stored = load_file(tmp_path / "omni/model.safetensors")
    stored = {name: each for name, each in stored.items() if "visual." not in name}
    for k in range(2):  # all are routed to the same two of six
        stored[f"thinker.model.layers.{k}.mlp.gate.weight"].zero_()
    save_file(stored, tmp_path / "omni/model.safetensors", {"format": "pt"})
    with pytest.warns(AudioWarning, match=r"24 matrices \(such as .*experts.* nearest"):
        out = qa.quantize_checkpoint(
            tmp_path / "omni", tmp_path / "out", calibrate=[qa.Waveform(sound(0.5))]
        )
    config = json.loads((out / "config.json").read_text())
    assert config["quantized_from"]["uncalibrated_matrices"] == 24


def test_what_calibration_takes(base: Path, tmp_path: Path) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"calibrate": []}, "calibrate= has no recordings"),
        ({"calibrate": [sound(1)], "quantize": "int8"}, "int8 has none: leave it out"),
        ({"calibrate": [sound(1)], "quantize": "int2"}, "use one of int8, int4"),
    )
    for options, message in cases:
        with pytest.raises(OptionError, match=message):
            qa.quantize_checkpoint(base, tmp_path / "out", **options)
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioError, match=r"a\.wav"):
        qa.quantize_checkpoint(base, tmp_path / "out", calibrate=tmp_path / "a.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_the_bits_in_the_files(base: Path, tmp_path: Path) -> None:
    """As compressed-tensors 0.17 reads them, which transformers then loads without a difference."""
    out = qa.quantize_checkpoint(base, tmp_path / "out")
    files = load_file(out / "model-00001-of-00001.safetensors")
    original = load_file(base / "model.safetensors")
    matrix = quantize_matrix(original[DOWN], LinearFormat(4, 32))
    assert matrix.zero_points is not None
    assert (
        files[f"{DOWN}_packed"].numpy().tolist()
        == packed(unpack_nibbles(matrix.values).numpy()).tolist()
    )
    zeros = packed(matrix.zero_points.T.numpy()).T
    assert files[f"{DOWN}_zero_point"].tolist() == zeros.tolist()
    assert torch.equal(files[f"{DOWN}_scale"], matrix.scales)
    assert files[f"{DOWN}_scale"].dtype is torch.bfloat16
    assert files[f"{DOWN}_shape"].tolist() == [128, 256]
    head = files["language_model.lm_head.weight"]
    assert (head.dtype, files["language_model.lm_head.weight_scale"].shape) == (
        torch.int8,
        (len(head), 1),
    )
    config = json.loads((out / "config.json").read_text())
    stated = config["quantization_config"]
    assert (stated["quant_method"], stated["format"]) == ("compressed-tensors", "mixed-precision")
    layers, last = stated["config_groups"].values()
    assert layers["weights"] == {
        "num_bits": 4,
        "type": "int",
        "symmetric": False,
        "strategy": "group",
        "group_size": 32,
        "dynamic": False,
    }
    assert last["targets"] == ["re:.*lm_head$"]
    assert last["input_activations"]["strategy"] == "token"
    assert r"re:.*audio_tower\..*layers\.\d+\.fc1$" in stated["ignore"]
    assert config["quantized_from"]["revision"] == Checkpoint(base).revision
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == files.keys()
    assert index["metadata"]["total_size"] == sum(part.nbytes for part in files.values())


def test_tied_and_resized_embeddings_and_an_adapter(base: Path, tmp_path: Path) -> None:
    model = Qwen2AudioForConditionalGeneration.from_pretrained(base)
    adapter = write_adapter(tmp_path / "adapter", model)
    tied = Path(shutil.copytree(base, tmp_path / "tied"))
    tensors = load_file(base / "model.safetensors")
    head = tensors.pop("language_model.lm_head.weight")
    tensors[EMBEDDINGS] = torch.cat([head, head[:8]])
    save_file(tensors, tied / "model.safetensors", {"format": "pt"})
    edit_json(tied / "config.json", text_config__tie_word_embeddings=True)
    config = json.loads(
        (qa.quantize_checkpoint(tied, tmp_path / "out") / "config.json").read_text()
    )
    assert config["text_config"]["vocab_size"] == 1112
    assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is False
    assert Checkpoint(tmp_path / "out").vocabulary_size == 1112

    merged = qa.quantize_checkpoint(base, tmp_path / "merged", quantize="int8", adapter=adapter)
    expected = quantize_matrix(
        Checkpoint(base, adapter=adapter).tensors.read(DOWN)[""], LinearFormat(8)
    )
    read = Checkpoint(merged).tensors.read(DOWN)[""]
    assert torch.equal(read, expected.dequantize(torch.float32))


def test_what_is_in_the_folder_is_kept(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes").write_text("")
    for force, reason in (
        (False, r"out exists: name another folder, or replace it with force=True"),
        (True, r"out is no checkpoint, and force=True replaces nothing else"),
    ):
        with pytest.raises(OptionError, match=reason):
            qa.quantize_checkpoint(base, out, force=force)
    (out / "notes").unlink()
    qa.quantize_checkpoint(base, out)  # an empty folder may be there
    with pytest.raises(OptionError, match="out exists"):
        qa.quantize_checkpoint(base, out)
    qa.quantize_checkpoint(base, out, quantize="int8", force=True)
    assert Checkpoint(out).quantization == "ct-int8"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(OptionError, match=r"is stored quantised \(ct-int8\): leave quantize="):
        qa.quantize_checkpoint(out, tmp_path / "again")
    with pytest.raises(OptionError, match="is what is to be quantised: name another folder"):
        qa.quantize_checkpoint(base, base, force=True)
    assert Checkpoint(base).quantization is None


@pytest.mark.parametrize(
    ("raised", "expected", "reason"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (OSError(errno.ENOSPC, "No space left on device"), CheckpointError, "can't be written"),
    ],
)
def test_nothing_half_is_left(
    raised: BaseException,
    expected: type[BaseException],
    reason: str | None,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the second of several files, with a checkpoint there that is to be replaced."""
    out = qa.quantize_checkpoint(base, tmp_path / "out", quantize="int8")
    monkeypatch.setattr(module, "_FILE_BYTES", 50_000)
    calls: Counter[str] = Counter()

    def failing_save(*arguments: Any, **options: Any) -> None:
        calls["save"] += 1
        if calls["save"] == 2:
            raise raised
        write(*arguments, **options)

    write = safetensors.torch.save_file
    monkeypatch.setattr(safetensors.torch, "save_file", failing_save)
    with pytest.raises(expected, match=reason):
        qa.quantize_checkpoint(base, out, force=True)
    assert Checkpoint(out).quantization == "ct-int8"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    # A process that is killed removes nothing.
    monkeypatch.setattr(module, "_remove", lambda _: None)
    calls.clear()
    with pytest.raises(expected):
        qa.quantize_checkpoint(base, tmp_path / "killed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.partial", "out"]
    with pytest.raises(CheckpointError, match=r"killed\.partial has no config\.json"):
        Checkpoint(tmp_path / "killed.partial")
    monkeypatch.undo()
    qa.quantize_checkpoint(base, tmp_path / "killed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "out"]


def test_a_full_disk(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match="has 1000 bytes free: free disk space, or name a"):
        qa.quantize_checkpoint(base, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as running:
        use_hub(running, tmp_path / "home", monkeypatch)
        yield running


@pytest.mark.slow
def test_a_hub_model(base: Path, tmp_path: Path, hub: Hub) -> None:
    hub.repos["owner/model"] = base
    out = qa.quantize_checkpoint("owner/model", tmp_path / "out")
    config = json.loads((out / "config.json").read_text())
    assert config["quantized_from"] == {
        "model": "owner/model",
        "revision": COMMIT,
        "adapter": None,
        "quantize": "int4",
        "calibration_positions": None,
        "uncalibrated_matrices": None,
    }
    assert Checkpoint(out).file("tokenizer.json") is not None
    local = qa.quantize_checkpoint(base, tmp_path / "local")
    shards = [path / "model-00001-of-00001.safetensors" for path in (out, local)]
    assert shards[0].read_bytes() == shards[1].read_bytes()
