"""Checkpoints on a hub: huggingface_hub's own client, a server on the loopback interface."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import close_session, constants
from safetensors.torch import load_file, save_file
from transformers import Qwen2AudioForConditionalGeneration

import qwen_audio
from adapters import write_adapter
from checkpoints import edit_json, random_checkpoint
from hub_server import COMMIT, HEADER_REQUEST_BYTES, Hub, serve, use_hub
from qwen_audio.errors import CheckpointError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.tap import Tap
from qwen_audio.weights.hub import HubFiles
from qwen_audio.weights.safetensors_file import read_header
from reference import sound

MODEL = "owner/Tiny-Audio"
INDEX = "model.safetensors.index.json"
SMALL_FILES = ["config.json", "preprocessor_config.json", INDEX]
"""Downloaded to open a checkpoint."""


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In many shards, so that a tap doesn't need all of them."""
    return random_checkpoint(tmp_path_factory.mktemp("hub") / "model", shards=8)


@pytest.fixture
def folder(shared_folder: Path, tmp_path: Path) -> Path:
    """The hub's files, which a test may change."""
    return Path(shutil.copytree(shared_folder, tmp_path / "model"))


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, and an empty cache."""
    with serve() as hub:
        hub.repos[MODEL] = folder
        use_hub(hub, tmp_path, monkeypatch)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # of retries
        yield hub
    close_session()


@pytest.fixture
def go_offline(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it to go go_offline, as with HF_HUB_OFFLINE."""
    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def error_message(*args: Any, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def shards_of(folder: Path, prefix: str) -> set[str]:
    files: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
    return {file for name, file in files.items() if name.startswith(prefix)}


def header_bytes(folder: Path, shards: set[str]) -> int:
    return sum(min(HEADER_REQUEST_BYTES, (folder / shard).stat().st_size) for shard in shards)


# Downloads.


def test_opening_fetches_no_weights(hub: Hub) -> None:
    checkpoint = Checkpoint(MODEL)
    assert hub.fetched() == SMALL_FILES
    assert checkpoint.revision == COMMIT
    assert checkpoint.dimensions.lm_width == 96


def test_reading_downloads_only_those_tensors(hub: Hub, folder: Path) -> None:
    checkpoint = Checkpoint(MODEL)
    hub.clear_log()
    tensors = checkpoint.tensors.read("audio_tower.layers.0.")
    shards = shards_of(folder, "audio_tower.layers.0.")
    assert set(hub.fetched()) == shards
    assert len(shards) < len(shards_of(folder, ""))
    local = Checkpoint(folder).tensors.read("audio_tower.layers.0.")
    assert tensors.keys() == local.keys()
    assert all(torch.equal(tensors[name], local[name]) for name in local)
    size = sum(tensor.nbytes for tensor in local.values())
    assert hub.bytes_sent.total() == header_bytes(folder, shards) + size

    hub.clear_log()
    checkpoint.tensors.read("audio_tower.layers.0.")
    assert hub.requests == []


@pytest.mark.slow
@pytest.mark.parametrize("tap", ["mel", "encoder.0", "audio_tower", "lm.1"])
def test_a_tap_downloads_only_the_stages_up_to_it(tap: str, hub: Hub, folder: Path) -> None:
    """And its vectors equal those computed from the folder."""
    clip = np.random.default_rng(0).normal(size=8000).astype(np.float32) / 10
    model = qwen_audio.load(MODEL, device="cpu")
    vector = model.encode(clip, tap=tap, sampling_rate=16_000)
    shards = {file for file in hub.fetched() if file.endswith(".safetensors")}
    needed = {
        name: shards_of(folder, name)
        for name in Checkpoint(folder).required_tensors(Tap.parse(tap))
    }
    assert shards == set().union(*needed.values())
    headers = {shard: read_header(folder / shard) for shard in shards}
    needed_bytes = sum(headers[shard][name].bytes for name, (shard,) in needed.items())
    sent = sum(hub.bytes_sent[shard] for shard in shards)
    assert needed_bytes <= sent - header_bytes(folder, shards) <= 1.02 * needed_bytes
    local = qwen_audio.load(folder, device="cpu").encode(clip, tap=tap, sampling_rate=16_000)
    np.testing.assert_array_equal(vector, local)


@pytest.mark.slow
@pytest.mark.parametrize("tap", ["encoder.1", "projector", "lm.2", None])
def test_missing_bytes_are_those_that_are_downloaded(
    tap: str | None, hub: Hub, folder: Path
) -> None:
    checkpoint, parsed = Checkpoint(MODEL), None if tap is None else Tap.parse(tap)
    missing = checkpoint.missing_bytes(parsed)
    assert hub.bytes_sent.total() - header_bytes(
        folder, set(hub.bytes_sent) & shards_of(folder, "")
    ) == sum((folder / file).stat().st_size for file in SMALL_FILES)
    hub.clear_log()
    reports: list[tuple[int, int]] = []
    checkpoint.fetch(parsed, lambda done, total: reports.append((done, total)))
    assert reports[-1] == (missing, missing)
    assert hub.bytes_sent.total() == missing
    assert checkpoint.missing_bytes(parsed) == 0
    hub.clear_log()
    checkpoint.fetch(parsed)
    assert hub.requests == []


def test_a_model_of_one_file(hub: Hub, tmp_path: Path) -> None:
    hub.repos["owner/single"] = random_checkpoint(tmp_path / "single", shards=1)
    checkpoint = Checkpoint("owner/single")
    assert hub.fetched() == [*SMALL_FILES[:2], "model.safetensors"]
    assert len(checkpoint.tensors.read("")) == len(Checkpoint(tmp_path / "single").tensors.read(""))


@pytest.mark.slow
def test_a_model_saved_by_transformers_5(hub: Hub, folder: Path, go_offline: Any) -> None:
    """Settings of the feature extractor in processor_config.json, names of modules, other rows."""
    rename_weights(
        folder, lambda name: name.replace("language_model.model.", "model.language_model.")
    )
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": settings}))
    edit_json(folder / "config.json", text_config__vocab_size=1100)
    model = qwen_audio.load(MODEL, device="cpu", dtype="float32")
    assert hub.fetched() == ["config.json", "processor_config.json", INDEX]
    clip = np.random.default_rng(0).normal(size=8000).astype(np.float32) / 10
    answer = model.describe(clip, sampling_rate=16_000, max_new_tokens=4)
    local = qwen_audio.load(folder, device="cpu", dtype="float32")
    assert answer == local.describe(clip, sampling_rate=16_000, max_new_tokens=4)
    assert model.pipeline.checkpoint.vocabulary_size == 1104
    assert model.cost().parameters == local.cost().parameters
    go_offline()
    again = qwen_audio.load(MODEL, device="cpu", dtype="float32")
    assert again.describe(clip, sampling_rate=16_000, max_new_tokens=4) == answer


def test_tied_embeddings_are_downloaded_once(hub: Hub, folder: Path) -> None:
    edit_json(folder / "config.json", text_config__tie_word_embeddings=True)
    rename_weights(folder, lambda name: None if "lm_head" in name else name)
    checkpoint = Checkpoint(MODEL)
    missing = checkpoint.missing_bytes(None)
    hub.clear_log()
    checkpoint.fetch(None)
    assert hub.bytes_sent.total() == missing
    assert checkpoint.missing_bytes(None) == 0
    local = Checkpoint(folder).tensors.read("language_model.lm_head.")["weight"]
    hub.clear_log()
    assert torch.equal(checkpoint.tensors.read("language_model.lm_head.")["weight"], local)
    assert hub.requests == []


def test_a_model_without_a_processor(hub: Hub, folder: Path, go_offline: Any) -> None:
    """Said when it is opened; the tokenizer isn't downloaded for that."""
    (folder / "tokenizer.json").rename(folder / "t")
    Checkpoint(MODEL)  # vocab.json is there
    assert "vocab.json" not in hub.fetched()
    (folder / "vocab.json").unlink()
    assert (
        f"{MODEL} has no tokenizer (tokenizer.json or tekken.json): save the processor"
        in error_message(MODEL)
    )
    (folder / "t").rename(folder / "tokenizer.json")
    Checkpoint(MODEL)
    assert "tokenizer.json" not in hub.fetched()
    go_offline()
    Checkpoint(MODEL)
    (folder / "preprocessor_config.json").unlink()
    hub.repos["owner/other"] = folder
    constants.HF_HUB_OFFLINE = False
    assert "owner/other has no settings of a feature extractor" in error_message("owner/other")


def test_a_cache_that_does_not_know_the_processor_config(hub: Hub, go_offline: Any) -> None:
    """It was filled by a version that didn't ask for it."""
    folder = Checkpoint(MODEL).folder
    shutil.rmtree(folder.parent.parent / ".no_exist")
    (folder / INDEX).touch()
    go_offline()
    assert Checkpoint(MODEL).feature_extractor.feature_size == 80


def rename_weights(folder: Path, new: Callable[[str], str | None]) -> None:
    """Rename tensors in all shards and the index; None deletes them."""
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] = {
        renamed: file for name, file in index["weight_map"].items() if (renamed := new(name))
    }
    (folder / INDEX).write_text(json.dumps(index))
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        save_file({renamed: t for name, t in tensors.items() if (renamed := new(name))}, file)


def test_a_revision_by_name(hub: Hub) -> None:
    other = "f" * 40
    hub.revisions |= {"v2": other, other: other}
    checkpoint = Checkpoint(MODEL, "v2")
    assert checkpoint.revision == other
    assert checkpoint.folder.name == other


def test_every_file_is_of_the_resolved_commit(hub: Hub, folder: Path) -> None:
    """`main` may move while a model is being read: all shards must be of the same commit."""
    checkpoint = Checkpoint(MODEL)
    other = "e" * 40
    hub.revisions = {"main": other, COMMIT: COMMIT, other: other}
    checkpoint.tensors.read("audio_tower.layer_norm.")
    checkpoint.file("tokenizer.json")
    assert {path.name for path in (checkpoint.folder.parent).iterdir()} == {COMMIT}
    assert Checkpoint(MODEL).revision == other


def test_other_files(hub: Hub, folder: Path) -> None:
    checkpoint = Checkpoint(MODEL)
    path = checkpoint.file("tokenizer.json")
    assert path is not None
    assert path.read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert checkpoint.file("nothing.json") is None
    assert checkpoint.generation_config["eos_token_id"] == 1093
    assert checkpoint.feature_extractor.feature_size == 80


# Offline.


def test_cached_files_are_read_offline(hub: Hub, go_offline: Any, folder: Path) -> None:
    online = Checkpoint(MODEL)
    online.tensors.read("audio_tower.")
    assert online.file("chat_template.json") is None
    go_offline()
    del hub.requests[:]
    checkpoint = Checkpoint(MODEL)
    assert checkpoint.revision == COMMIT
    assert (
        checkpoint.tensors.read("audio_tower.").keys() == online.tensors.read("audio_tower.").keys()
    )
    assert checkpoint.file("chat_template.json") is None  # its absence is cached
    assert hub.requests == []


@pytest.mark.parametrize("chat", [True, False])
def test_what_was_fetched_is_enough_offline(hub: Hub, go_offline: Any, chat: bool) -> None:
    """For text; its config files, the chat template included."""
    qwen_audio.load(MODEL, chat=chat).fetch("text")
    go_offline()
    answer = qwen_audio.load(MODEL, chat=chat).describe(
        sound(0.5), sampling_rate=16_000, max_new_tokens=2
    )
    assert answer.answers[0].token_ids


def test_an_uncached_model_is_an_error_offline(hub: Hub, go_offline: Any, folder: Path) -> None:
    go_offline()
    message = error_message(MODEL)
    assert message.startswith(f"{MODEL}: config.json is not in the local cache and the hub can't")
    assert hub.requests == []


def test_an_uncached_shard_is_an_error_offline(hub: Hub, go_offline: Any) -> None:
    checkpoint = Checkpoint(MODEL)
    go_offline()
    with pytest.raises(CheckpointError, match=r"model-0000.* is not in the local cache"):
        checkpoint.tensors.read("audio_tower.layer_norm.")


def test_an_optional_file_that_is_unreachable_is_not_absent(hub: Hub, go_offline: Any) -> None:
    """Else an Instruct model would be prompted like a base model when offline."""
    checkpoint = Checkpoint(MODEL)
    go_offline()
    with pytest.raises(CheckpointError, match=r"generation_config\.json is not in the local cache"):
        _ = checkpoint.generation_config
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja is not in the local cache"):
        checkpoint.file("chat_template.jinja")


@pytest.mark.slow
def test_a_model_downloaded_whole_is_complete_offline(
    hub: Hub, go_offline: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a download caches the list of the model's files: others don't exist."""
    checkpoint = Checkpoint(MODEL)
    for file in folder.iterdir():
        checkpoint.file(file.name)
    listing = checkpoint.folder.parent.parent / "trees" / f"{COMMIT}.json"
    listing.parent.mkdir()
    files = {f.name: {"size": f.stat().st_size, "blob_id": "0" * 40} for f in folder.iterdir()}
    listing.write_text(json.dumps({"format_version": 1, "files": files}))
    go_offline()
    again = Checkpoint(MODEL)
    assert len(again.tensors.read("")) == len(Checkpoint(folder).tensors.read(""))
    assert again.file("tokenizer.json") is not None
    assert again.file("chat_template.json") is None
    assert huggingface_hub.get_cached_repo_tree(MODEL, revision=COMMIT)


def test_a_listed_but_uncached_file_is_not_absent(hub: Hub, go_offline: Any) -> None:
    checkpoint = Checkpoint(MODEL)
    listing = checkpoint.folder.parent.parent / "trees" / f"{COMMIT}.json"
    listing.parent.mkdir()
    files = {"generation_config.json": {"size": 1, "blob_id": "0" * 40}}
    listing.write_text(json.dumps({"format_version": 1, "files": files}))
    go_offline()
    with pytest.raises(CheckpointError, match=r"generation_config\.json is not in the local cache"):
        _ = checkpoint.generation_config
    assert checkpoint.file("chat_template.jinja") is None


def test_an_unreachable_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert "the hub can't be reached" in error_message(MODEL)


# Errors of the hub.


def test_an_unknown_model(hub: Hub) -> None:
    message = error_message("owner/nobody")
    assert message.startswith("owner/nobody: config.json can't be fetched from the hub (")
    assert "Repository Not Found" in message
    assert "check the name, revision, network and access token" in message


def test_an_unknown_revision(hub: Hub) -> None:
    assert "Revision Not Found" in error_message(MODEL, revision="v9")


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model(status: int, hub: Hub) -> None:
    hub.error_status["config.json"] = (status, "GatedRepo")
    message = error_message(MODEL)
    assert "Cannot access gated repo" in message
    assert "access token" in message


def test_a_forbidden_file(hub: Hub) -> None:
    """A token without access is not reported as a network problem."""
    hub.error_status["config.json"] = (403, "")
    message = error_message(MODEL)
    assert "403 Forbidden" in message
    assert "can't be reached" not in message


def test_a_hub_that_is_down(hub: Hub) -> None:
    hub.error_status["config.json"] = (503, "")
    message = error_message(MODEL)
    assert "503" in message


def test_a_model_without_a_config(hub: Hub, folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "Entry Not Found" in error_message(MODEL)


def test_a_model_without_weights(hub: Hub, folder: Path) -> None:
    (folder / INDEX).unlink()
    assert f"{MODEL} has neither {INDEX} nor model.safetensors" in error_message(MODEL)


@pytest.mark.parametrize("has_config", [True, False])
def test_a_model_in_another_format(has_config: bool, hub: Hub, folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    if not has_config:
        (folder / "config.json").unlink()
    (folder / "model.gguf").touch()
    assert "model.gguf is in llama.cpp's format" in error_message(MODEL)


@pytest.mark.slow
def test_a_model_and_an_adapter_on_the_hub(
    hub: Hub, folder: Path, go_offline: Any, tmp_path: Path
) -> None:
    """The adapter is downloaded when it is loaded; of the model only what a tap needs."""
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
    replaced = {"lm_head.weight": torch.zeros(1104, 96)}
    adapter = write_adapter(tmp_path / "adapter", model, replaced=replaced)
    hub.repos["owner/adapter"] = adapter
    opened = qwen_audio.load(MODEL, adapter="owner/adapter", device="cpu", dtype="float32")
    expected = {*SMALL_FILES, "adapter_config.json", "adapter_model.safetensors"}
    head = shards_of(folder, "language_model.lm_head.")  # its header: it may have other rows
    assert set(hub.fetched()) == expected | head
    assert sum(hub.bytes_sent[shard] for shard in head) == header_bytes(folder, head)
    local = qwen_audio.load(folder, adapter=adapter, device="cpu", dtype="float32")
    assert opened.spec().adapter == local.spec().adapter
    whole = Checkpoint(MODEL).missing_bytes(None)
    missing = opened.pipeline.checkpoint.missing_bytes(None)
    assert whole - missing >= replaced["lm_head.weight"].nbytes  # which is not downloaded
    hub.clear_log()
    clip = np.random.default_rng(0).normal(size=8000).astype(np.float32) / 10
    vector = opened.encode(clip, tap="encoder.1", sampling_rate=16_000)
    np.testing.assert_array_equal(vector, local.encode(clip, tap="encoder.1", sampling_rate=16_000))
    assert "adapter_model.safetensors" not in hub.fetched()
    options: dict[str, Any] = {"sampling_rate": 16_000, "max_new_tokens": 3}
    answer = local.describe(clip, **options)
    assert opened.describe(clip, **options) == answer
    go_offline()
    again = qwen_audio.load(MODEL, adapter="owner/adapter", device="cpu", dtype="float32")
    assert again.describe(clip, **options) == answer
    pickled = pickle.dumps(again)  # which names the commit
    assert again.pipeline.checkpoint.revision.encode() in pickled
    assert pickle.loads(pickled).spec("lm.0") == again.spec("lm.0")


def test_a_hub_model_that_is_no_adapter(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match=r"adapter_config\.json can't be fetched"):
        Checkpoint(MODEL, adapter=MODEL)


def test_an_adapter_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    hub.repos["owner/adapter"] = tmp_path / "adapter"
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": MODEL})
    )
    assert error_message("owner/adapter").startswith(
        f"owner/adapter is an adapter (PEFT) for {MODEL}, not a whole checkpoint: load"
    )


def test_a_shard_missing_on_the_hub(hub: Hub, folder: Path) -> None:
    (shard,) = shards_of(folder, "audio_tower.layer_norm.weight")
    (folder / shard).unlink()
    checkpoint = Checkpoint(MODEL)
    with pytest.raises(CheckpointError, match=f"{shard} can't be fetched .*Entry Not Found"):
        checkpoint.tensors.read("audio_tower.layer_norm.")


def test_a_truncated_shard(hub: Hub, folder: Path) -> None:
    (shard,) = shards_of(folder, "audio_tower.layer_norm.weight")
    hub.truncate[shard] = 1000
    checkpoint = Checkpoint(MODEL)
    with pytest.raises(CheckpointError, match=f"{shard} can't be fetched from the hub") as caught:
        checkpoint.tensors.read("audio_tower.layer_norm.")
    assert "\n" not in str(caught.value)
    del hub.truncate[shard]
    assert len(checkpoint.tensors.read("audio_tower.layer_norm.")) == 2


def test_a_shard_of_another_model(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """A shard downloaded late is checked like a local one."""
    (shard,) = shards_of(folder, "audio_tower.layer_norm.weight")
    checkpoint = Checkpoint(MODEL)
    other = random_checkpoint(tmp_path / "other", shards=1)
    shutil.copy(other / "model.safetensors", folder / shard)
    with pytest.raises(CheckpointError, match="and the index disagree on"):
        checkpoint.tensors.read("audio_tower.layer_norm.")


@pytest.mark.parametrize("name", ["owner/na me", "owner/--x--", "ow..ner/name", "owner/name.git"])
def test_invalid_repo_names(name: str, hub: Hub) -> None:
    assert error_message(name).startswith(f"{name}: config.json can't be fetched from the hub")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["name", "a/b/c", "./a", "/a/b", "~/a", "../a", ""])
def test_names_that_are_not_repo_names(name: str) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint: give 'embedded', an existing"):
        HubFiles.resolve(name, None)


def test_another_model_type_downloads_only_the_config(hub: Hub, folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "qwen2_vl"}')
    assert "of type 'qwen2_vl'" in error_message(MODEL)
    assert hub.fetched() == ["config.json"]
