"""Files of `encode`'s vectors, with the embedding spec."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from qwen_audio.api.embeddings import Embeddings
from qwen_audio.api.export import VectorFile, check_output, save_embeddings
from qwen_audio.api.vector_reader import read_vectors
from qwen_audio.errors import MissingExtraError, OptionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.row_index import RowIndex

SPEC = EmbeddingSpec(model="embedded", revision="abc", tap="audio_tower")
ROW_SPEC = EmbeddingSpec("embedded", "abc", "lm.1", pooling="none", span="all", prompt="What?")
SUFFIXES = [".npz", ".safetensors", ".parquet", ".arrow"]
POOLED = [np.arange(3, dtype=np.float32), np.ones(3, np.float32)]


def embeddings(source: str, vectors: np.ndarray, spec: EmbeddingSpec = SPEC) -> Embeddings:
    """Rows of a second each: pooled ones, or one word and audio."""
    count = 1 if vectors.ndim == 1 else len(vectors)
    is_text = np.arange(count) == 0
    unpooled = spec.pooling == "none"
    seconds = np.where(unpooled & is_text, np.nan, np.arange(count, dtype=np.float64))
    index = RowIndex(
        (source,),
        np.zeros(count, np.int64),
        np.arange(count) // 3,
        seconds,
        seconds + 1,
        np.where(unpooled & is_text, "prompt", "audio"),
        np.where(is_text, "What", "") if spec.tap.startswith("lm.") else None,
    )
    return Embeddings(vectors, index, spec)


def save(
    path: Path,
    sources: list[str],
    vectors: list[np.ndarray],
    fail_after: int = 10**9,
) -> None:
    with VectorFile(path) as file:
        for number, source in enumerate(sources):
            if number == fail_after:
                raise StopIteration
            file.add(embeddings(source, vectors[number]))


def columns_of(path: Path, prefix: str = "") -> tuple[dict[str, Any], str]:
    """A file's vectors and columns, and its spec, read as the documentation says."""
    if path.suffix.lower() in (".parquet", ".arrow"):
        table = (pq.read_table if path.suffix.lower() == ".parquet" else feather.read_table)(path)
        columns = {name: table[name].to_numpy() for name in table.schema.names}
        columns["vectors"] = np.array(table["vector"].to_pylist(), np.float32)
        del columns["vector"]
        return columns, table.schema.metadata[b"spec"].decode()
    if path.suffix.lower() == ".npz":
        with np.load(path) as file:
            columns = {name.removeprefix(prefix): file[name] for name in file if prefix in name}
        return columns, str(columns.pop("spec"))
    columns = load_file(path)
    with safe_open(path, framework="np") as opened:
        metadata = opened.metadata()
    columns = {name.removeprefix(prefix): columns[name] for name in columns if prefix in name}
    for name in ("source", "span", "token"):
        if name in columns:
            columns[name] = np.array(json.loads(metadata[prefix + name]), np.str_)[columns[name]]
    return columns, metadata[f"{prefix}spec"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_with_their_columns(suffix: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    parts = [
        embeddings(name, random.normal(size=(rows, 4)), ROW_SPEC)
        for name, rows in (("a.flac", 5), ("日本語, \n'.wav", 1), ("a.flac", 4))
    ]
    path = save_embeddings(tmp_path / f"v{suffix}", Embeddings.concatenate(parts))
    columns, spec = columns_of(path)
    assert EmbeddingSpec.from_json(spec) == ROW_SPEC
    whole = Embeddings.concatenate(parts)
    np.testing.assert_array_equal(columns.pop("vectors"), whole)
    listed = columns_of(save_embeddings(tmp_path / f"listed{suffix}", parts))[0]
    np.testing.assert_array_equal(listed["vectors"], whole)
    if suffix in (".parquet", ".arrow"):
        assert set(columns.pop("tap")) == {"lm.1"}
    assert list(columns) == list(whole.index.columns()) or suffix == ".safetensors"
    for name, column in whole.index.columns().items():
        np.testing.assert_array_equal(columns[name], column)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".NPZ", ".PARQUET"])
def test_recordings_are_read_back(suffix: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    parts = {
        name: embeddings(name, random.normal(size=(rows, 4)), ROW_SPEC)
        for name, rows in (("a.flac", 5), ("b.flac", 1))
    }
    path = save_embeddings(tmp_path / f"v{suffix}", Embeddings.concatenate([*parts.values()]))
    found = dict(read_vectors(path))
    assert list(found) == list(parts)
    for name, part in parts.items():
        np.testing.assert_array_equal(found[name][""], part)
        for column, values in part.index.columns().items():
            np.testing.assert_array_equal(found[name][""].index.columns()[column], values)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_several_taps(suffix: str, tmp_path: Path) -> None:
    """Of other widths, one of them with tokens."""
    mel = EmbeddingSpec("embedded", "abc", "mel", pooling="none")
    with VectorFile(tmp_path / f"v{suffix}") as file:
        for source in ("a.wav", "b.wav"):
            file.add(
                {
                    "mel": embeddings(source, np.ones((6, 2)), mel)[1:],
                    "lm.1": embeddings(source, np.zeros((3, 4)), ROW_SPEC),
                }
            )
    assert file.shapes == {"mel": (10, 2), "lm.1": (6, 4)}
    if suffix in (".npz", ".safetensors"):
        columns, spec = columns_of(file.target, "mel/")
        assert EmbeddingSpec.from_json(spec) == mel
        assert columns["vectors"].shape == (10, 2)
        assert columns["source"].tolist() == ["a.wav"] * 5 + ["b.wav"] * 5
        columns, spec = columns_of(file.target, "lm.1/")
        assert EmbeddingSpec.from_json(spec) == ROW_SPEC
        assert columns["token"].tolist() == ["What", "", ""] * 2
        return
    table = (pq.read_table if suffix == ".parquet" else feather.read_table)(file.target)
    assert table["tap"].to_pylist() == ["mel"] * 10 + ["lm.1"] * 6
    assert table["vector"].to_pylist() == [[1.0] * 2] * 10 + [[0.0] * 4] * 6
    assert table["token"].to_pylist() == [None] * 10 + ["What", "", ""] * 2
    assert json.loads(table.schema.metadata[b"spec"])["mel"] == mel.settings


def test_bad_outputs_are_errors_before_computing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match=r"\.npz, \.safetensors, \.parquet, \.arrow"):
        check_output(tmp_path / "v.csv")
    with pytest.raises(OptionError, match="no folder"):
        check_output(tmp_path / "nowhere" / "v.npz")
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # how Python marks what can't be imported
    with pytest.raises(MissingExtraError, match=r"pip install 'qwen-audio-playground\[parquet\]'"):
        check_output(tmp_path / "v.parquet")


@pytest.mark.parametrize("suffix", [".NPZ", ".Safetensors", ".PARQUET", ".Arrow"])
def test_the_suffix_may_be_in_capitals(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"v{suffix}"
    save(target, ["a", "b"], POOLED)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    target = target.rename(target.with_suffix(suffix.lower()))
    np.testing.assert_array_equal(columns_of(target)[0]["vectors"], POOLED)


def test_files_are_complete_or_missing_with_default_permissions(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.write_text("")
    for suffix in SUFFIXES:
        target = tmp_path / f"v{suffix}"
        save(target, ["a", "b"], POOLED)
        assert target.stat().st_mode == ordinary.stat().st_mode
    assert sorted(path.suffix for path in tmp_path.iterdir()) == sorted(["", *SUFFIXES])
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(OptionError, match="is a folder"):
        save(tmp_path / "folder.npz", ["a"], POOLED[:1])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_takes_no_files(suffix: str) -> None:
    with pytest.raises(OptionError, match="can't be written"):
        save(Path("/proc") / f"v{suffix}", ["a", "b"], POOLED)


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(max_examples=40)
@given(
    st.sampled_from(SUFFIXES),
    st.lists(st.tuples(names, st.integers(1, 40)), min_size=1, max_size=6),
    st.integers(1, 5),
    st.booleans(),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    recordings: list[tuple[str, int]],
    width: int,
    pooled: bool,
) -> None:
    """Sources in order, with duplicates; pooled, or with any numbers of rows."""
    random = np.random.default_rng(0)
    vectors = [
        random.normal(size=(width,) if pooled else (rows, width)).astype(np.float32)
        for _, rows in recordings
    ]
    path = tmp_path_factory.mktemp("any") / f"v{suffix}"
    save(path, [name for name, _ in recordings], vectors)
    columns, spec = columns_of(path)
    assert EmbeddingSpec.from_json(spec) == SPEC
    np.testing.assert_array_equal(columns["vectors"], np.vstack(vectors))
    assert columns["source"].tolist() == [
        name for name, rows in recordings for _ in range(1 if pooled else rows)
    ]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("pooled", [True, False])
def test_more_rows_than_are_written_at_once(
    suffix: str, pooled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen_audio.api.export._BYTES_AT_ONCE", 128)
    rows = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    vectors = list(rows) if pooled else [rows[:195], rows[195:]]
    save(tmp_path / f"v{suffix}", [str(k) for k in range(len(vectors))], vectors)
    columns, _ = columns_of(tmp_path / f"v{suffix}")
    assert list(dict.fromkeys(columns["source"].tolist())) == list(map(str, range(len(vectors))))
    np.testing.assert_array_equal(columns["vectors"], rows)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_errors_leave_no_partial_file_and_keep_the_old_one(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"v{suffix}"
    for before in (None, b"of yesterday"):
        if before is not None:
            target.write_bytes(before)
        with pytest.raises(StopIteration):
            save(target, ["a", "b"], POOLED, fail_after=1)
        with VectorFile(target):
            pass  # nothing was added
        assert [path.name for path in tmp_path.iterdir()] == [target.name] * (before is not None)
        assert before is None or target.read_bytes() == before
    save(target, ["a"], POOLED[:1])
    assert columns_of(target)[0]["source"].tolist() == ["a"]


def test_two_formats_of_one_name_can_be_written_at_once(tmp_path: Path) -> None:
    first, second = tmp_path / "v.npz", tmp_path / "v.parquet"
    with VectorFile(first) as one, VectorFile(second) as two:
        one.add(embeddings("a", POOLED[0]))
        two.add(embeddings("b", POOLED[1]))
    np.testing.assert_array_equal(columns_of(first)[0]["vectors"], [POOLED[0]])
    np.testing.assert_array_equal(columns_of(second)[0]["vectors"], [POOLED[1]])


@pytest.mark.slow
def test_vectors_are_buffered_on_disk(tmp_path: Path) -> None:
    """In a process of its own: growth of its memory while 200 MB of rows are added."""
    program = f"""
import sys
import numpy as np
from pathlib import Path
from qwen_audio.api.embeddings import Embeddings
from qwen_audio.api.export import VectorFile
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.row_index import RowIndex
def own():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1000
def save(count, suffix):
    spec, most = EmbeddingSpec(model="m", revision="r", tap="mel"), 0
    numbers, seconds, span = np.arange(2500), np.zeros(2500), np.full(2500, "audio")
    with VectorFile({str(tmp_path / "v")!r} + suffix) as file:
        for k in range(count):
            index = RowIndex((str(k),), numbers * 0, numbers, seconds, seconds, span)
            file.add(Embeddings(np.full((2500, 500), k, np.float32), index, spec))
            most = max(most, own())
    return max(most, own())
for suffix in sys.argv[1:]:
    before = save(2, suffix)
    print(save(40, suffix) - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *SUFFIXES], capture_output=True, check=True
    )
    growth = [float(line) for line in done.stdout.splitlines()]
    assert len(growth) == len(SUFFIXES)
    assert max(growth) < 60, growth


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_goes_wrong_is_not_hidden_and_leaves_nothing(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors wait in a file without a name, which is gone even if the process is killed."""

    def fail(reason: BaseException = error) -> None:
        raise reason

    def save() -> None:
        with VectorFile(tmp_path / "v.npz") as file:
            file.add(embeddings("a", np.ones((1, 128), np.float32)))
            assert list(tmp_path.iterdir()) == []
            rows = file._taps[""].file
            monkeypatch.setattr(rows, "flush", fail)
            monkeypatch.setattr(rows, "close", lambda: fail(OSError(5, "cleaning up")))
            if isinstance(error, KeyboardInterrupt):
                raise error

    expected = OptionError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        save()
    assert "No space left" in str(caught.value) or expected is KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
