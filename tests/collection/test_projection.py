"""Projection: coordinates, the page, and invalid options."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

import qwen_audio as qa
from commands import run
from recordings import sound

RATE = 16_000


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> qa.Collection:
    """Twenty windows of two recordings, with manifest columns."""
    folder = tmp_path_factory.mktemp("map")
    rows: list[Any] = []
    for seed, kind in enumerate(("<b>bright</b>", "dark")):
        path = folder / f"{kind[:1].replace('<', 'b')}.wav"
        soundfile.write(path, sound(10.0, RATE, seed=seed)[0], RATE)
        rows.append({"source": str(path), "kind": kind, "stars": 3 + seed, "same": "x"})
    collection = qa.Collection.create(folder / "m.lance", qa.load(), window_seconds=1.0)
    collection.index(rows)
    return collection


@pytest.mark.slow
def test_a_projection_and_its_page(collection: qa.Collection, tmp_path: Path) -> None:
    projection = collection.map(method="pca")
    assert projection.points.shape == (20, 2)
    assert {"recording", "kind", "stars", "start_seconds"} <= set(projection.columns)
    assert not {"vector", "same", "source", "content_hash", "format"} & set(projection.columns)
    vectors = np.array(
        [row["vector"] for row in collection.table.to_arrow().sort_by("source").to_pylist()]
    )
    # A projection doesn't increase distances.
    distance = np.linalg.norm(projection.points[0] - projection.points[-1])
    assert 0 < distance <= np.linalg.norm(vectors[:, None] - vectors[None], axis=-1).max() + 1e-3
    page = projection.write_html(tmp_path / "m.html", colour="kind")
    text = page.path.read_text(encoding="utf-8")
    assert page.audio == "embedded"
    assert not page.failures
    assert text.count("data:audio/ogg;base64,") >= 20
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", text)
    assert "<b>bright</b>" not in text
    data = json.loads(text.split("const data = ")[1].split(";\nconst palette")[0])
    columns = {column["name"]: column for column in data["columns"]}
    assert tuple(columns) == projection.columns
    assert data["columns"][data["colour"]]["name"] == "kind"
    assert columns["kind"]["categories"] == ["<b>bright</b>", "dark"]
    assert columns["start_seconds"]["label"] == "start (s)"
    content = base64.b64decode(data["audio_urls"][3].split(",")[1])
    with av.open(io.BytesIO(content)) as container:
        assert container.streams.audio[0].codec_context.name in ("opus", "libopus")
    linked, audio_mode, _ = projection.to_html(audio="link", theme="dark")
    assert audio_mode == "linked"
    assert "b.wav#t=3,4" in linked
    assert "data:audio" not in linked.split("const data = ")[1].split("\n")[0]
    assert projection.to_html(audio="none")[1] == "none"


@pytest.mark.slow
def test_umap_is_reproducible(collection: qa.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not compiled, which takes longer than it runs.
    monkeypatch.setattr("numba.config.DISABLE_JIT", True)
    first, second = collection.map(seed=3), collection.map(seed=3)
    assert first.method == "umap"
    np.testing.assert_array_equal(first.points, second.points)
    assert np.isfinite(first.points).all()
    kinds = np.array(first.values("kind"))
    centres = [first.points[kinds == kind].mean(0) for kind in set(kinds.tolist())]
    assert np.linalg.norm(centres[0] - centres[1]) > 0


def test_invalid_options_of_a_map(
    collection: qa.Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = "start_seconds < 3"
    assert collection.map(where=few).method == "pca"
    with pytest.raises(
        qa.OptionError, match=r"UMAP takes 16 windows or more, not .*: use method='pca'"
    ):
        collection.map(method="umap", where=few)
    with pytest.raises(qa.OptionError, match="use 'umap' or 'pca'"):
        collection.map(method="tsne")
    with pytest.raises(qa.OptionError, match="seed=-1"):
        collection.map(seed=-1)
    with pytest.raises(qa.CollectionError, match="no rows that fit"):
        collection.map(where="start_seconds > 99")
    with pytest.raises(qa.OptionError, match="can't be used"):
        collection.map(where="nonsense = 1")
    projection = collection.map(method="pca")
    with pytest.raises(qa.OptionError, match="can't be coloured by"):
        projection.write_html(tmp_path / "m.html", colour="same")
    with pytest.raises(qa.OptionError, match="audio='loud'"):
        projection.write_html(tmp_path / "m.html", audio="loud")
    monkeypatch.setattr("qwen_audio.collection.map_audio.MAX_EMBEDDED_BYTES", 1000)
    with pytest.raises(qa.OptionError, match="use 'link'"):
        projection.write_html(tmp_path / "m.html", audio="embed")
    assert projection.to_html()[1] == "linked"
    monkeypatch.setattr("qwen_audio.collection.projection.MAX_PAGE_ROWS", 10)
    assert len(collection.map(method="pca")) == 20
    with pytest.raises(qa.OptionError, match="20 windows are too many for one page: select 10"):
        projection.write_html(tmp_path / "m.html")
    assert run("map", collection.path, "-o", tmp_path / "m.html").returncode == 1
    assert not list(tmp_path.iterdir())
