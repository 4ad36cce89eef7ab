"""Search over HTTP: the results of the collection's own method."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from collection_helpers import write_recording
from qwen_audio.serve.launch import RunningServer, launch_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> qa.AudioModel:
    """Used by tests only while the server has nothing to do."""
    return qa.load(dtype="float32")


@pytest.fixture(scope="module")
def collection(model: qa.AudioModel, tmp_path_factory: pytest.TempPathFactory) -> qa.Collection:
    folder = tmp_path_factory.mktemp("search")
    for seed in range(3):
        write_recording(folder / "clips" / f"{seed}.wav", 1.2 + seed, seed)
    made = qa.Collection.create(folder / "c.lance", model, describe=True, window_seconds=1.0)
    made.index(folder / "clips")
    return made


@pytest.fixture(scope="module")
def server(model: qa.AudioModel, collection: qa.Collection) -> Iterator[RunningServer]:
    running = launch_server(model, collection=collection.path)
    running.wait_until_ready()
    yield running
    running.close()


@pytest.fixture(scope="module")
def remote(server: RunningServer) -> Iterator[qa.RemoteModel]:
    with qa.connect(server.url) as connected:
        yield connected


def test_results_are_the_collections(remote: qa.RemoteModel, collection: qa.Collection) -> None:
    clip = (collection.path.parent / "clips" / "1.wav").read_bytes()
    word = str(collection.recordings()[0]["captions"][0]["caption"]).split()[-1].strip(".")
    for found, expected in (
        (remote.search(clip, limit=4), collection.search(clip, limit=4)),
        (remote.search(caption=word, limit=3), collection.search(caption=word, limit=3)),
    ):
        assert len(found) == len(expected) > 1
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours.id, ours.time, ours.caption) == (theirs.id, theirs.time, theirs.caption)
            assert ours.score == pytest.approx(theirs.score, rel=1e-5)
            assert list(ours.columns) == list(theirs.columns)
            assert "vector" not in ours.columns
        assert found.spec == expected.spec
        assert found.metric == expected.metric
        assert found.explanation == expected.explanation


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"limit": 0}, "limit: input should be greater"),
        ({"limit": 1001}, "limit: input should be less"),
        ({"caption": "", "audio": None}, "caption is empty"),
        ({"caption": "a" * 1001, "audio": None}, "at most 1000 characters"),
        ({"audio": None}, "one of audio and caption="),
    ],
)
def test_what_it_cannot_do(remote: qa.RemoteModel, options: dict[str, Any], text: str) -> None:
    with pytest.raises(qa.OptionError, match=text):
        remote.search(**{"audio": bytes(8), **options})


@pytest.mark.parametrize("words", ["!!!", "a AND (", '"', "*", "\N{MUSICAL NOTE}", "caption:x"])
def test_any_words_are_words(remote: qa.RemoteModel, words: str) -> None:
    assert isinstance(remote.search(caption=words), list)


def test_errors(remote: qa.RemoteModel, model: qa.AudioModel, tmp_path: Path) -> None:
    with pytest.raises(qa.AudioError, match="can't be decoded"):
        remote.search(b"abcd")
    other = qa.Collection.create(tmp_path / "o.lance", qa.load(dtype="bfloat16"))
    with pytest.raises(qa.CollectionError, match="dtype 'bfloat16' here and 'float32' asked for"):
        launch_server(model, collection=other.path)
    running = launch_server(model)
    try:
        running.wait_until_ready()
        with qa.connect(running.url) as plain, pytest.raises(qa.OptionError, match="--collection"):
            plain.search(caption="x")
    finally:
        running.close()
