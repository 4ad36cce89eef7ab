"""Collections on object storage: every operation, and errors of one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import qwen_audio as qa
from collection_helpers import rows_by_window, vectors_by_window
from commands import run
from qwen_audio.collection.collection import Collection
from qwen_audio.collection.location import TableLocation
from qwen_audio.collection.storage_errors import error_reason
from qwen_audio.errors import CollectionError, OptionError
from s3_server import BUCKET, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server."""
    with s3_server() as address:
        yield address


@pytest.mark.slow
def test_all_that_a_collection_does(
    s3: str, tmp_path: Path, folder: Path, model: qa.AudioModel, collection: Collection
) -> None:
    """As in a folder: the same rows, results and side files."""
    uri = f"s3://{BUCKET}/deep/music.lance"
    (folder / "bad.wav").write_bytes(b"not audio")
    stored = Collection.create(uri, model, tap="audio_tower")
    summary = stored.index(folder)
    assert (summary.added, len(summary.failures), len(stored)) == (5, 1, 7)
    assert vectors_by_window(stored) == vectors_by_window(collection)
    assert (stored.location, stored.name) == (uri, "music.lance")
    assert repr(stored).startswith(f"Collection('{uri}', 7 rows of audio_tower")
    opened = Collection.open(uri, model)
    again = opened.index(folder)
    assert (again.unchanged, len(again.known_failures)) == (5, 1)
    assert [row["source"] for row in opened.failures()] == [str(folder / "bad.wav")]
    found = opened.search(folder / "a.wav", limit=3)
    expected = collection.search(folder / "a.wav", limit=3)
    assert [(r.id, r.score) for r in found] == [(r.id, r.score) for r in expected]
    assert opened.info().rows == 7
    assert opened.info().bytes > 0
    assert opened.verify(sample=1).problems == ()
    assert opened.waveform(str(folder / "a.wav")).duration_seconds == 2.0
    assert opened.export(tmp_path / "rows.parquet") == 7
    with pytest.raises(OptionError, match="is written to a local path"):
        opened.export(f"s3://{BUCKET}/rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 7
    # A changed recording, a repaired one, a further column and a lost file.
    (folder / "a.wav").write_bytes((folder / "b.flac").read_bytes())
    (folder / "bad.wav").write_bytes((folder / "b.flac").read_bytes())
    (folder / "stereo.wav").unlink()
    inputs = [{"source": str(path), "mood": "calm"} for path in folder.glob("*.*")]
    summary = opened.index(inputs)
    assert (summary.added, summary.replaced, summary.updated) == (1, 1, 2)
    assert opened.failures() == []
    assert opened.prune() == [str(folder / "stereo.wav")]
    assert opened.remove(folder / "a.wav") == 1
    names = {name for name, _ in rows_by_window(opened)}
    assert names == {"b.flac", "bad.wav", "c.wav", "long.flac"}
    assert opened.recordings("mood = 'calm'")[0]["source"] == str(folder / "b.flac")
    with pytest.raises(CollectionError, match="is there already"):
        Collection.create(uri, model)
    with pytest.raises(CollectionError, match="on object storage and has no path"):
        _ = opened.path
    opened.drop()
    with pytest.raises(CollectionError, match="no such collection"):
        Collection.open(uri)


@pytest.mark.slow
def test_commands(s3: str, folder: Path) -> None:
    uri = f"s3://{BUCKET}/commands.lance"
    done = run(
        "index", folder / "a.wav", folder / "b.flac", "-o", uri, "--tap", "mel", "--describe"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{uri}: 2 added")
    info = json.loads(run("collection", "info", uri, "--json").stdout)
    assert (info["path"], info["rows"], info["captions"]) == (uri, 2, True)
    results = run("search", uri, "--like", folder / "a.wav", "--json").stdout.splitlines()
    assert [json.loads(line)["source"] for line in results] == [str(folder / "b.flac")]
    assert run("search", uri, "--caption", "music the a").returncode == 0
    assert run("collection", "remove", uri, folder / "a.wav").returncode == 0
    assert run("collection", "list", uri).stdout.count("\n") == 1
    failed = run("index", folder / "nothing.wav", "-o", f"s3://{BUCKET}/none.lance")
    assert failed.returncode == 1
    missing = run("collection", "info", f"s3://{BUCKET}/none.lance")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "no such collection" in missing.stderr


@pytest.mark.slow
def test_storage_that_cannot_be_reached(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """LanceDB tries again for five seconds, so all are tried at once."""
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    allowed = {"allow_http": "true"}
    places = {
        ("s3://no-bucket/music.lance", "there is no such bucket"): allowed,
        (f"s3://{BUCKET}/x.lance", "no answer, http://127.0.0.1:9"): {
            **allowed,
            "aws_endpoint": "http://127.0.0.1:9",
        },
        (f"s3://{BUCKET}/y.lance", "needs AWS_ALLOW_HTTP=true"): {},
        ("az://container/x.lance", "no credentials were found"): {},
    }

    def message(place: tuple[str, str]) -> str:
        with pytest.raises(CollectionError) as error:
            Collection.open(place[0], storage_options=places[place])
        return str(error.value)

    with ThreadPoolExecutor() as pool:
        for (uri, reason), text in zip(places, pool.map(message, places), strict=True):
            assert text.startswith(f"{uri} can't be opened ("), text
            assert f"{reason}): check the bucket, the credentials" in text
            assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            'IO { source: Generic { store: "N/A", source: IO { source: "Failed to get AWS '
            'credentials: ProviderError" }, file: "lance-io/src/object_store.rs" }',
            "no credentials were found",
        ),
        (
            'Generic { store: "S3", source: PutRequest { source: RetryError(RetryErrorImpl { '
            "method: PUT, uri: Some(https://music.s3.amazonaws.com/x), inner: Status { status: "
            '403, body: Some("<Code>AccessDenied</Code>") } }) }, "object_store.rs"',
            "access is denied",
        ),
        (
            "uri: Some(https://s3.eu.example/b?list-type=2), inner: Http(HttpError { kind: "
            'Timeout, source: TimedOut }) } /src/object_store.rs", line: 1506',
            "no answer, https://s3.eu.example",
        ),
        ("where = 'AccessDenied'", "where = 'AccessDenied'"),
    ],
)
def test_reasons(text: str, reason: str) -> None:
    assert error_reason(RuntimeError(text)) == reason


def test_locations() -> None:
    location = TableLocation.parse("s3://bucket/deep/music.v1.lance", {"aws_region": "x"})
    assert (location.folder, location.stem) == ("s3://bucket/deep", "music.v1")
    assert str(location) == "s3://bucket/deep/music.v1.lance"
    assert str(location.failures) == "s3://bucket/deep/music.v1.failures.lance"
    assert location.failures.storage_options == {"aws_region": "x"}
    assert "aws_region" not in repr(location)
    assert TableLocation.parse("file:///x/music.lance").path == Path("/x/music.lance")
    assert not TableLocation.parse("music.lance").is_remote


@pytest.mark.parametrize(
    ("place", "options", "message"),
    [
        ("http://host/music.lance", None, "at s3://, gs:// or az://"),
        ("s3://music.lance", None, "names no bucket: s3://bucket/music.lance"),
        ("s3://bucket/music", None, "ends in .lance"),
        ("s3://bucket/a b.lance", None, "ends in .lance"),
        (Path("s3://bucket/music.lance"), None, "a Path can't hold a URI"),
        ("music.lance", {"aws_region": "x"}, "storage_options has no effect on music.lance"),
    ],
)
def test_other_locations(place: str | Path, options: dict[str, str] | None, message: str) -> None:
    with pytest.raises(OptionError, match=message) as error:
        TableLocation.parse(place, options)
    assert "\n" not in str(error.value)
