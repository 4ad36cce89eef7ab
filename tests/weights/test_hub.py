"""Checkpoints of a hub: huggingface_hub's own client, a server on the loopback interface."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import close_session, constants

import qwen_audio
from checkpoints import random_checkpoint
from hub_server import COMMIT, HEADER, Hub, serve, use_hub
from qwen_audio.errors import CheckpointError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.tap import Tap
from qwen_audio.weights.hub import HubFiles
from qwen_audio.weights.safetensors_file import read_header

MODEL = "owner/Tiny-Audio"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In many shards, so that a tap does not need them all."""
    return random_checkpoint(tmp_path_factory.mktemp("hub") / "model", shards=8)


@pytest.fixture
def folder(shared_folder: Path, tmp_path: Path) -> Path:
    """What the hub holds: a test may change it."""
    return Path(shutil.copytree(shared_folder, tmp_path / "model"))


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, and a cache of this test's own."""
    with serve() as hub:
        hub.repos[MODEL] = folder
        use_hub(hub, tmp_path, monkeypatch)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # of retries
        yield hub
    close_session()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Called, it cuts the network off, as HF_HUB_OFFLINE does."""
    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def shards_of(folder: Path, prefix: str) -> set[str]:
    files: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
    return {file for name, file in files.items() if name.startswith(prefix)}


def read_for_header(folder: Path, shards: set[str]) -> int:
    return sum(min(HEADER, (folder / shard).stat().st_size) for shard in shards)


# What is fetched.


def test_opening_fetches_no_weights(hub: Hub) -> None:
    checkpoint = Checkpoint(MODEL)
    assert hub.fetched() == ["config.json", INDEX]
    assert checkpoint.revision == COMMIT
    assert checkpoint.dimensions.lm_width == 96


def test_reading_fetches_what_is_read(hub: Hub, folder: Path) -> None:
    checkpoint = Checkpoint(MODEL)
    hub.forget()
    part = checkpoint.tensors.read("audio_tower.layers.0.")
    wanted = shards_of(folder, "audio_tower.layers.0.")
    assert set(hub.fetched()) == wanted
    assert len(wanted) < len(shards_of(folder, ""))
    local = Checkpoint(folder).tensors.read("audio_tower.layers.0.")
    assert part.keys() == local.keys()
    assert all(torch.equal(part[name], local[name]) for name in local)
    size = sum(tensor.nbytes for tensor in local.values())
    assert hub.sent.total() == read_for_header(folder, wanted) + size

    hub.forget()
    checkpoint.tensors.read("audio_tower.layers.0.")
    assert hub.requests == []


@pytest.mark.parametrize("tap", ["mel", "encoder.0", "audio_tower", "lm.1"])
def test_a_tap_fetches_what_stands_left_of_it(tap: str, hub: Hub, folder: Path) -> None:
    """The whole way, and to the same numbers as from the folder."""
    clip = np.random.default_rng(0).normal(size=8000).astype(np.float32) / 10
    model = qwen_audio.load(MODEL, device="cpu")
    heard = model.encode(clip, tap=tap, sampling_rate=16_000)
    shards = {file for file in hub.fetched() if file.endswith(".safetensors")}
    needed = {
        name: shards_of(folder, name)
        for name in Checkpoint(folder).required_tensors(Tap.parse(tap))
    }
    assert shards == set().union(*needed.values())
    headers = {shard: read_header(folder / shard) for shard in shards}
    tensors = sum(headers[shard][name].bytes for name, (shard,) in needed.items())
    sent = sum(hub.sent[shard] for shard in shards)
    assert tensors <= sent - read_for_header(folder, shards) <= 1.02 * tensors
    local = qwen_audio.load(folder, device="cpu").encode(clip, tap=tap, sampling_rate=16_000)
    np.testing.assert_array_equal(heard, local)


@pytest.mark.parametrize("tap", ["encoder.1", "projector", "lm.2", None])
def test_what_a_tap_fetches_is_known_before(tap: str | None, hub: Hub, folder: Path) -> None:
    checkpoint, parsed = Checkpoint(MODEL), None if tap is None else Tap.parse(tap)
    missing = checkpoint.missing_bytes(parsed)
    assert hub.sent.total() - read_for_header(folder, set(hub.sent) & shards_of(folder, "")) == sum(
        (folder / file).stat().st_size for file in ("config.json", INDEX)
    )
    hub.forget()
    told: list[tuple[int, int]] = []
    checkpoint.fetch(parsed, lambda done, total: told.append((done, total)))
    assert told[-1] == (missing, missing)
    assert hub.sent.total() == missing
    assert checkpoint.missing_bytes(parsed) == 0
    hub.forget()
    checkpoint.fetch(parsed)
    assert hub.requests == []


def test_a_model_of_one_file(hub: Hub, tmp_path: Path) -> None:
    hub.repos["owner/single"] = random_checkpoint(tmp_path / "single", shards=1)
    checkpoint = Checkpoint("owner/single")
    assert hub.fetched() == ["config.json", "model.safetensors"]
    assert len(checkpoint.tensors.read("")) == len(Checkpoint(tmp_path / "single").tensors.read(""))


def test_a_revision_by_name(hub: Hub) -> None:
    other = "f" * 40
    hub.revisions |= {"v2": other, other: other}
    checkpoint = Checkpoint(MODEL, "v2")
    assert checkpoint.revision == other
    assert checkpoint.folder.name == other


def test_every_file_is_of_the_commit_first_seen(hub: Hub, folder: Path) -> None:
    """`main` may move while a model is being read: its shards must not be another model's."""
    checkpoint = Checkpoint(MODEL)
    other = "e" * 40
    hub.revisions = {"main": other, COMMIT: COMMIT, other: other}
    checkpoint.tensors.read("audio_tower.layer_norm.")
    checkpoint.file("tokenizer.json")
    assert {path.name for path in (checkpoint.folder.parent).iterdir()} == {COMMIT}
    assert Checkpoint(MODEL).revision == other


def test_other_files(hub: Hub, folder: Path) -> None:
    checkpoint = Checkpoint(MODEL)
    found = checkpoint.file("tokenizer.json")
    assert found is not None
    assert found.read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert checkpoint.file("nothing.json") is None
    assert checkpoint.generation_config["eos_token_id"] == 1093
    assert checkpoint.feature_extractor.feature_size == 80


# Offline.


def test_what_is_cached_is_read_offline(hub: Hub, offline: Any, folder: Path) -> None:
    online = Checkpoint(MODEL)
    online.tensors.read("audio_tower.")
    assert online.file("chat_template.json") is None
    offline()
    del hub.requests[:]
    checkpoint = Checkpoint(MODEL)
    assert checkpoint.revision == COMMIT
    assert (
        checkpoint.tensors.read("audio_tower.").keys() == online.tensors.read("audio_tower.").keys()
    )
    assert checkpoint.file("chat_template.json") is None  # the hub has said so once
    assert hub.requests == []


def test_what_is_not_cached_is_an_error_offline(hub: Hub, offline: Any, folder: Path) -> None:
    offline()
    message = refusal(MODEL)
    assert message.startswith(f"{MODEL}: config.json is not in the local cache and the hub can't")
    assert hub.requests == []


def test_a_shard_that_is_not_cached_is_an_error_offline(hub: Hub, offline: Any) -> None:
    checkpoint = Checkpoint(MODEL)
    offline()
    with pytest.raises(CheckpointError, match=r"model-0000.* is not in the local cache"):
        checkpoint.tensors.read("audio_tower.layer_norm.")


def test_an_optional_file_out_of_reach_is_no_file_missing(hub: Hub, offline: Any) -> None:
    """Were it taken for missing, an Instruct model offline would be asked as a base model is."""
    checkpoint = Checkpoint(MODEL)
    offline()
    with pytest.raises(CheckpointError, match=r"generation_config\.json is not in the local cache"):
        _ = checkpoint.generation_config
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja is not in the local cache"):
        checkpoint.file("chat_template.jinja")


def test_a_model_downloaded_whole_is_complete_offline(
    hub: Hub, offline: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a download leaves a list of the model's files: what is not on it does not exist."""
    checkpoint = Checkpoint(MODEL)
    for file in folder.iterdir():
        checkpoint.file(file.name)
    listing = checkpoint.folder.parent.parent / "trees" / f"{COMMIT}.json"
    listing.parent.mkdir()
    files = {f.name: {"size": f.stat().st_size, "blob_id": "0" * 40} for f in folder.iterdir()}
    listing.write_text(json.dumps({"format_version": 1, "files": files}))
    offline()
    again = Checkpoint(MODEL)
    assert len(again.tensors.read("")) == len(Checkpoint(folder).tensors.read(""))
    assert again.file("tokenizer.json") is not None
    assert again.file("chat_template.json") is None
    assert huggingface_hub.get_cached_repo_tree(MODEL, revision=COMMIT)


def test_a_file_on_the_list_is_not_missing(hub: Hub, offline: Any) -> None:
    checkpoint = Checkpoint(MODEL)
    listing = checkpoint.folder.parent.parent / "trees" / f"{COMMIT}.json"
    listing.parent.mkdir()
    files = {"generation_config.json": {"size": 1, "blob_id": "0" * 40}}
    listing.write_text(json.dumps({"format_version": 1, "files": files}))
    offline()
    with pytest.raises(CheckpointError, match=r"generation_config\.json is not in the local cache"):
        _ = checkpoint.generation_config
    assert checkpoint.file("chat_template.jinja") is None


def test_a_hub_that_is_not_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert "the hub can't be reached" in refusal(MODEL)


# Refused.


def test_no_such_model(hub: Hub) -> None:
    message = refusal("owner/nobody")
    assert message.startswith("owner/nobody: config.json can't be fetched from the hub (")
    assert "Repository Not Found" in message
    assert "check the name, revision, network and access token" in message


def test_no_such_revision(hub: Hub) -> None:
    assert "Revision Not Found" in refusal(MODEL, revision="v9")


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model(status: int, hub: Hub) -> None:
    hub.status["config.json"] = (status, "GatedRepo")
    message = refusal(MODEL)
    assert "Cannot access gated repo" in message
    assert "access token" in message


def test_a_forbidden_file(hub: Hub) -> None:
    """A token without the right to it: no matter of the network."""
    hub.status["config.json"] = (403, "")
    message = refusal(MODEL)
    assert "403 Forbidden" in message
    assert "can't be reached" not in message


def test_a_hub_that_is_down(hub: Hub) -> None:
    hub.status["config.json"] = (503, "")
    message = refusal(MODEL)
    assert "503" in message


def test_a_model_without_a_config(hub: Hub, folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "Entry Not Found" in refusal(MODEL)


def test_a_model_without_weights(hub: Hub, folder: Path) -> None:
    (folder / INDEX).unlink()
    assert f"{MODEL} holds neither {INDEX} nor model.safetensors" in refusal(MODEL)


def test_a_shard_that_the_hub_lacks(hub: Hub, folder: Path) -> None:
    (shard,) = shards_of(folder, "audio_tower.layer_norm.weight")
    (folder / shard).unlink()
    checkpoint = Checkpoint(MODEL)
    with pytest.raises(CheckpointError, match=f"{shard} can't be fetched .*Entry Not Found"):
        checkpoint.tensors.read("audio_tower.layer_norm.")


def test_a_shard_that_breaks_off(hub: Hub, folder: Path) -> None:
    (shard,) = shards_of(folder, "audio_tower.layer_norm.weight")
    hub.truncate[shard] = 1000
    checkpoint = Checkpoint(MODEL)
    with pytest.raises(CheckpointError, match=f"{shard} can't be fetched from the hub") as caught:
        checkpoint.tensors.read("audio_tower.layer_norm.")
    assert "\n" not in str(caught.value)
    del hub.truncate[shard]
    assert len(checkpoint.tensors.read("audio_tower.layer_norm.")) == 2


def test_a_shard_of_another_model(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """Fetched late, it is checked as one in a folder is."""
    (shard,) = shards_of(folder, "audio_tower.layer_norm.weight")
    checkpoint = Checkpoint(MODEL)
    other = random_checkpoint(tmp_path / "other", shards=1)
    shutil.copy(other / "model.safetensors", folder / shard)
    with pytest.raises(CheckpointError, match="and the index disagree on"):
        checkpoint.tensors.read("audio_tower.layer_norm.")


@pytest.mark.parametrize("name", ["owner/na me", "owner/--x--", "ow..ner/name", "owner/name.git"])
def test_names_that_no_hub_has(name: str, hub: Hub) -> None:
    assert refusal(name).startswith(f"{name}: config.json can't be fetched from the hub")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["name", "a/b/c", "./a", "/a/b", "~/a", "../a", ""])
def test_names_that_are_no_hubs(name: str) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint: give 'embedded', an existing"):
        HubFiles.resolve(name, None)


def test_another_type_of_model_costs_one_file(hub: Hub, folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    assert "of type 'whisper'" in refusal(MODEL)
    assert hub.fetched() == ["config.json"]
