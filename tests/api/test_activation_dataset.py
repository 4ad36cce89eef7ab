"""Folders of activations, read as the libraries that train sparse dictionaries read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.errors import OptionError
from reference import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def rows(checkpoint: Path) -> list[dict[str, qa.Embeddings]]:
    """Of three recordings, at two taps."""
    model = qa.load(checkpoint, dtype="float32")
    clips = [sound(seconds) for seconds in (0.5, 0.3, 1.0)]
    return [
        model.encode(clip, tap=["lm.1", "lm.2"], pooling="none", span="all", **RATE)
        for clip in clips
    ]


def saelens_batch(folder: Path, hook_name: str, width: int, batch: slice) -> np.ndarray:
    """As SAELens' ActivationsStore checks and reads its cached activations, context_size 1."""
    dataset = datasets.load_from_disk(str(folder))
    dataset.set_format(type="torch", columns=[hook_name])
    assert dataset.features[hook_name].shape == (1, width)
    return dataset[batch][hook_name].reshape(-1, width).numpy()


@pytest.mark.slow
def test_what_saelens_reads(rows: list[dict[str, qa.Embeddings]], tmp_path: Path) -> None:
    folder = tmp_path / "a.dataset"
    with qa.ActivationDataset(folder, shard_bytes=rows[0]["lm.1"].nbytes) as written:
        for number, row in enumerate(rows):
            written.add(row, f"{number}.wav")
    shards = sorted(path.name for path in folder.glob("*.arrow"))
    assert shards == ["data-00000.arrow", "data-00001.arrow", "data-00002.arrow"]
    for tap in ("lm.1", "lm.2"):
        expected = qa.Embeddings.concatenate([row[tap] for row in rows])
        width = expected.shape[1]
        assert written.shapes[tap] == expected.shape
        found = saelens_batch(folder, tap, width, slice(0, len(expected)))
        np.testing.assert_array_equal(found, expected)
    dataset = datasets.load_from_disk(str(folder))
    assert json.loads(dataset.info.description)["lm.1"] == rows[0]["lm.1"].spec.settings
    np.testing.assert_array_equal(dataset["start_seconds"], expected.start_seconds)
    assert expected.index.token is not None
    assert list(dataset["token"]) == expected.index.token.tolist()
    assert dict.fromkeys(dataset["source"]) == dict.fromkeys(["0.wav", "1.wav", "2.wav"])


@pytest.mark.slow
def test_a_stopped_run_is_continued(rows: list[dict[str, qa.Embeddings]], tmp_path: Path) -> None:
    folder = tmp_path / "a.dataset"
    specs = [part.spec for part in rows[0].values()]
    files = [str(tmp_path / f"{number}.wav") for number in range(3)]
    written = qa.ActivationDataset(folder)
    written.add(rows[0], files[0])
    written.__exit__(KeyboardInterrupt, None, None)
    with pytest.raises(FileNotFoundError):
        datasets.load_from_disk(str(folder))  # nothing that looks whole
    with pytest.raises(OptionError, match=r"holds something already: continue .* --resume"):
        qa.ActivationDataset(folder)
    with qa.ActivationDataset(folder, resume=True) as written:
        assert written.pending(files, specs) == files[1:]
        written.add(rows[1], files[1])
        written.add(rows[2], files[2])
    assert written.sources == files
    for tap in ("lm.1", "lm.2"):
        expected = qa.Embeddings.concatenate([row[tap] for row in rows])
        found = saelens_batch(folder, tap, expected.shape[1], slice(0, len(expected)))
        np.testing.assert_array_equal(found, expected)
    Path(files[0]).write_bytes(b"other")
    again = qa.ActivationDataset(folder, resume=True)
    with pytest.raises(OptionError, match=r"0\.wav has changed since .* was written: delete"):
        again.pending(files, specs)
    with pytest.raises(OptionError, match="was made with other settings: give the same"):
        again.pending(files, specs[:1])
    (folder / "activations.json").write_text("{", encoding="utf-8")
    with pytest.raises(OptionError, match="holds no activations that can be continued"):
        qa.ActivationDataset(folder, resume=True)


def test_what_it_does_not_take(rows: list[dict[str, qa.Embeddings]], tmp_path: Path) -> None:
    with qa.ActivationDataset(tmp_path / "a.dataset") as written:
        with pytest.raises(OptionError, match="is of rows, not of mean vectors: use pooling none"):
            written.add(qa.Embeddings(np.ones(4), rows[0]["lm.1"].index[:1], pooled_spec(rows)))
        part = rows[0]["lm.2"]
        with pytest.raises(OptionError, match=r"lm\.1 and lm\.2 have rows at other times"):
            written.add({"lm.1": rows[0]["lm.1"], "lm.2": part[1:]})
        written.add(rows[0]["lm.1"], "0.wav")
        with pytest.raises(OptionError, match="was made with other settings"):
            written.add(part, "1.wav")
    assert qa.save_embeddings(tmp_path / "b.dataset", part).is_dir()


def pooled_spec(rows: list[dict[str, qa.Embeddings]]) -> qa.EmbeddingSpec:
    return qa.EmbeddingSpec.from_settings(**{**rows[0]["lm.1"].spec.settings, "pooling": "mean"})
