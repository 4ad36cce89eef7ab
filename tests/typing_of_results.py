"""Types of typical calls, as an editor shows them; checked by mypy, never run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import pandas as pd
import torch

import qwen_audio as qa

__all__ = ["check"]


def check(model: qa.AudioModel, collection: qa.Collection, paths: list[Path]) -> None:
    assert_type(qa.load(), qa.AudioModel)
    assert_type(model.encode("a.flac"), qa.Embeddings)
    assert_type(model.score("a.flac", choices=["Yes", "No"]), qa.Scores)
    assert_type(model.score(paths, "Is it fast?", choices=["Yes", "No"]), list[qa.Scores])
    assert_type(model.classify(paths, ["piano", "drums"]), qa.Classification)
    assert_type(model.encode("a.flac", tap="lm.2", span="last"), qa.Embeddings)
    assert_type(model.encode("a.flac", pooling="none"), qa.Embeddings)
    assert_type(model.encode(paths), qa.Embeddings)
    assert_type(model.encode(["a.flac", "b.flac"], progress=True), qa.Embeddings)
    assert_type(model.encode(paths, per="window", window_seconds=2.0), list[qa.Embeddings])
    assert_type(model.encode(paths, pooling="none"), list[qa.Embeddings])
    assert_type(model.encode("a.flac", tap=["mel", "lm.0"]), dict[str, qa.Embeddings])
    assert_type(model.encode(paths, tap=["mel", "lm.0"]), dict[str, qa.Embeddings])
    assert_type(
        model.encode(paths, tap=["mel", "lm.0"], pooling="none"), dict[str, list[qa.Embeddings]]
    )
    assert_type(model.encode("a.flac", return_tensors="pt"), torch.Tensor)
    assert_type(model.encode(paths, return_tensors="pt"), torch.Tensor)
    assert_type(model.encode_each(paths), Iterator[qa.Embeddings])
    assert_type(model.encode_each(paths, errors="yield"), Iterator[qa.Embeddings | qa.AudioError])
    assert_type(model.encode_each(paths, tap=["mel"]), Iterator[dict[str, qa.Embeddings]])
    assert_type(model.activations("a.flac", taps=["mel"]), dict[str, qa.HiddenStates])
    assert_type(model.activations(paths, taps=["mel"]), list[dict[str, qa.HiddenStates]])
    assert_type(
        model.activations("a.flac", taps=["mel"], return_tensors="pt"),
        dict[str, qa.HiddenStates[torch.Tensor]],
    )
    assert_type(collection.search("a.flac"), qa.SearchResults)
    assert_type(collection.search(caption="cello")[0], qa.SearchResult)
    assert_type([result.score for result in collection.search(like="a.flac#1")], list[float])
    frame: pd.DataFrame = qa.probe("labels.csv", model)
    rows: Any = [{"source": "a.wav", "kind": "a"}]
    frame = qa.probe(rows, progress=True)
    assert frame is not None
