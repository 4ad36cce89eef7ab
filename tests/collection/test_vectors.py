"""Similarity search with vectors of any length and number type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qwen_audio as qa
from collection_helpers import add_rows
from qwen_audio.collection.collection import Collection
from qwen_audio.errors import CollectionError, OptionError

ROWS, WIDTH = 50, 64


def random_vectors(rows: int) -> np.ndarray[Any, Any]:
    """Vectors of length 1."""
    vectors = np.random.default_rng(0).normal(size=(rows, WIDTH))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture(scope="module", params=[False, True], ids=["float16", "float32"])
def collection(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, checkpoint: Path
) -> Collection:
    """Fifty random vectors."""
    path = tmp_path_factory.mktemp("vectors") / "c.lance"
    model = qa.load(checkpoint, dtype="float32")
    collection = Collection.create(path, model, tap="encoder.1", float32=request.param)
    add_rows(collection, random_vectors(ROWS))
    return collection


def ids(collection: Collection, vector: Any) -> list[str]:
    """The ten nearest rows."""
    return [result.id for result in collection.search(vector=vector)]


@pytest.mark.parametrize("scale", [1e5, 1e-9, 1e300, 1e-300, 1e-307, 7, 0.3])
def test_the_length_of_a_query_does_not_matter(collection: Collection, scale: float) -> None:
    query = random_vectors(ROWS)[7] + 0.3 * random_vectors(ROWS)[8]
    results = collection.search(vector=query)
    scaled = collection.search(vector=query * scale)
    assert [result.id for result in scaled] == [result.id for result in results]
    assert [r.score for r in scaled] == pytest.approx([r.score for r in results], abs=1e-6)
    stored = np.asarray(collection.table.to_arrow()["vector"].to_pylist())
    cosines = stored @ query / np.linalg.norm(query) / np.linalg.norm(stored, axis=1)
    assert [result.score for result in results] == pytest.approx(
        sorted(cosines, reverse=True)[:10], abs=2e-3
    )


def test_number_types_of_queries(collection: Collection) -> None:
    query = np.round(random_vectors(ROWS)[7] * 100)
    expected = ids(collection, query)
    assert expected[0] == "/x/7.wav#0"
    tensor = torch.tensor(query)
    for given in (
        query.tolist(),
        tuple(query.astype(int).tolist()),
        query.astype(np.int8),
        query.astype(np.float16),
        query.astype(np.longdouble),
        tensor.to(torch.bfloat16),
        tensor.int(),
        tensor.float().requires_grad_(),
    ):
        assert ids(collection, given) == expected
    assert ids(collection, np.clip(query, 0, None).astype(np.uint64))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.zeros(WIDTH), "is zero"),
        ([0] * WIDTH, "is zero"),
        (np.full(WIDTH, np.nan), "NaN or infinity"),
        ([1.0] * (WIDTH - 1) + [np.inf], "NaN or infinity"),
        (torch.full((WIDTH,), -torch.inf), "NaN or infinity"),
        (np.full(WIDTH, np.longdouble("1e400")), "NaN or infinity"),
        (np.ones(WIDTH + 1), r"64 numbers here, .* not float64 of shape \(65,\)"),
        (np.ones((1, WIDTH)), r"shape \(1, 64\)"),
        ([], r"shape \(0,\)"),
        (1.0, r"shape \(\)"),
        ([[1.0], [1.0, 2.0]], "64 numbers here"),
        (["1"] * WIDTH, "64 numbers here"),
        ([10**400] * WIDTH, "64 numbers here"),
        (np.ones(WIDTH, complex), "complex128"),
        (torch.ones(WIDTH, dtype=torch.complex64), "complex64"),
        ("x" * WIDTH, "64 numbers here"),
        ({"vector": 1}, "64 numbers here"),
    ],
)
def test_queries_that_are_no_vector(collection: Collection, query: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        collection.search(vector=query)
    assert "\n" not in str(caught.value)


def test_audio_that_gives_no_usable_vector(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, message in ((0.0, "is zero"), (np.nan, "NaN or infinity")):
        vector = np.full(WIDTH, number, np.float32)
        monkeypatch.setattr(type(collection.model), "encode", lambda *_, v=vector, **__: v)
        with pytest.raises(OptionError, match=message):
            collection.search(np.zeros(16_000), sampling_rate=16_000)


def test_rows_without_a_direction_are_not_found(tmp_path: Path, collection: Collection) -> None:
    """Nor are they queries, or points of a map."""
    path = tmp_path / "c.lance"
    damaged = Collection.create(path, collection.model, tap="encoder.1")
    vectors = random_vectors(4)
    vectors[3] = 0
    add_rows(damaged, vectors)
    for literal in (None, "[" + ",".join(["1e999"] * WIDTH) + "]"):
        assert len(damaged.search(vector=vectors[0])) == 3
        with pytest.raises(CollectionError, match=r"'/x/3.wav' is damaged: .* verify"):
            damaged.search(like="/x/3.wav")
        with pytest.raises(CollectionError, match=r"/x/3.wav#0: .*collection verify"):
            damaged.map()
        damaged.table.update(where="source = '/x/3.wav'", values_sql={"vector": literal or "NULL"})
