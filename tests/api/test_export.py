"""Files of `encode`'s vectors, with the embedding spec."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from qwen_audio.api.export import VectorFile, check_output
from qwen_audio.api.spec import EmbeddingSpec
from qwen_audio.errors import MissingExtraError, OptionError

SPEC = EmbeddingSpec(model="embedded", revision="abc", tap="audio_tower")
POOLED = [np.arange(3, dtype=np.float32), np.ones(3, np.float32)]
ROWS = [np.ones((2, 3), np.float32), np.zeros((5, 3), np.float32)]


def save(
    path: Path,
    sources: list[str],
    vectors: list[np.ndarray],
    spec: EmbeddingSpec,
    fail_after: int = 10**9,
) -> None:
    with VectorFile(path, spec) as file:
        for number, source in enumerate(sources):
            if number == fail_after:
                raise StopIteration
            file.add(source, vectors[number])


def test_npz(tmp_path: Path) -> None:
    save(tmp_path / "v.npz", ["a", "b"], POOLED, SPEC)
    with np.load(tmp_path / "v.npz") as file:
        assert file["sources"].tolist() == ["a", "b"]
        np.testing.assert_array_equal(file["vectors"], np.stack(POOLED))
        assert EmbeddingSpec.from_json(str(file["spec"])) == SPEC
    save(tmp_path / "r.npz", ["a", "b"], ROWS, SPEC)
    with np.load(tmp_path / "r.npz") as file:
        np.testing.assert_array_equal(file["vectors_1"], ROWS[1])


def test_safetensors(tmp_path: Path) -> None:
    save(tmp_path / "v.safetensors", ["a", "b"], POOLED, SPEC)
    with safe_open(tmp_path / "v.safetensors", framework="np") as file:
        np.testing.assert_array_equal(file.get_tensor("vectors"), np.stack(POOLED))
        assert json.loads(file.metadata()["sources"]) == ["a", "b"]
        assert EmbeddingSpec.from_json(file.metadata()["spec"]) == SPEC


def test_parquet(tmp_path: Path) -> None:
    save(tmp_path / "v.parquet", ["a", "b"], POOLED, SPEC)
    table = pq.read_table(tmp_path / "v.parquet")
    assert table["source"].to_pylist() == ["a", "b"]
    assert table["vector"].to_pylist() == [[0, 1, 2], [1, 1, 1]]
    assert EmbeddingSpec.from_json(table.schema.metadata[b"spec"].decode()) == SPEC
    save(tmp_path / "r.parquet", ["a", "b"], ROWS, SPEC)
    table = pq.read_table(tmp_path / "r.parquet")
    assert table["source"].to_pylist() == ["a"] * 2 + ["b"] * 5
    assert table["row"].to_pylist() == [0, 1, 0, 1, 2, 3, 4]


def test_bad_outputs_are_errors_before_computing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match=r"\.npz, \.safetensors, \.parquet"):
        check_output(tmp_path / "v.csv")
    with pytest.raises(OptionError, match="no folder"):
        check_output(tmp_path / "nowhere" / "v.npz")
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # how Python marks what can't be imported
    with pytest.raises(MissingExtraError, match=r"pip install 'qwen-audio-playground\[parquet\]'"):
        check_output(tmp_path / "v.parquet")


@pytest.mark.parametrize("suffix", [".NPZ", ".Safetensors", ".PARQUET"])
def test_the_suffix_may_be_in_capitals(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"v{suffix}"
    save(target, ["a", "b"], POOLED, SPEC)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    target = target.rename(target.with_suffix(suffix.lower()))
    np.testing.assert_array_equal(loaded(target)[1], POOLED)


def test_files_are_complete_or_missing_with_default_permissions(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.write_text("")
    for suffix in (".npz", ".safetensors", ".parquet"):
        target = tmp_path / f"v{suffix}"
        save(target, ["a", "b"], POOLED, SPEC)
        assert target.stat().st_mode == ordinary.stat().st_mode
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [
        "",
        ".npz",
        ".parquet",
        ".safetensors",
    ]
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(OptionError, match="is a folder"):
        save(tmp_path / "folder.npz", ["a"], POOLED[:1], SPEC)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".parquet"])
def test_a_folder_that_takes_no_files(suffix: str) -> None:
    with pytest.raises(OptionError, match="can't be written"):
        save(Path("/proc") / f"v{suffix}", ["a", "b"], POOLED, SPEC)


SUFFIXES = [".npz", ".safetensors", ".parquet"]


def loaded(path: Path) -> tuple[list[str], list[np.ndarray], EmbeddingSpec]:
    """Contents of a file, read by its format's own library: sources, the rows of each, the spec."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        sources, vectors = table["source"].to_pylist(), table["vector"].to_pylist()
        spec = EmbeddingSpec.from_json(table.schema.metadata[b"spec"].decode())
        if "row" not in table.schema.names:
            return sources, [np.array(vector, np.float32) for vector in vectors], spec
        starts = [index for index, row in enumerate(table["row"].to_pylist()) if row == 0]
        parts = np.split(np.array(vectors, np.float32), starts[1:])
        return [sources[start] for start in starts], parts, spec
    if path.suffix == ".npz":
        with np.load(path) as file:
            arrays = dict(file)
        sources = arrays.pop("sources").tolist()
        spec = EmbeddingSpec.from_json(str(arrays.pop("spec")))
    else:
        arrays = load_file(path)
        with safe_open(path, framework="np") as opened:
            sources = json.loads(opened.metadata()["sources"])
            spec = EmbeddingSpec.from_json(opened.metadata()["spec"])
    if "vectors" in arrays:
        assert set(arrays) == {"vectors"}
        return sources, list(arrays["vectors"]), spec
    return sources, [arrays[f"vectors_{k}"] for k in range(len(arrays))], spec


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(max_examples=40)
@given(
    st.sampled_from(SUFFIXES),
    st.lists(names, min_size=1, max_size=6),
    st.integers(1, 5),
    st.one_of(st.none(), st.lists(st.integers(1, 40), min_size=6, max_size=6)),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    sources: list[str],
    width: int,
    rows: list[int] | None,
) -> None:
    """Sources in order, with duplicates; pooled, or with any numbers of rows."""
    random = np.random.default_rng(0)
    vectors = [
        random.normal(size=(width,) if rows is None else (rows[k], width)).astype(np.float32)
        for k in range(len(sources))
    ]
    path = tmp_path_factory.mktemp("any") / f"v{suffix}"
    save(path, sources, vectors, SPEC)
    found, arrays, spec = loaded(path)
    assert (found, spec) == (sources, SPEC)
    assert len(arrays) == len(vectors)
    for array, vector in zip(arrays, vectors, strict=True):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, vector)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("pooled", [True, False])
def test_more_rows_than_are_written_at_once(suffix: str, pooled: bool, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40_000, 2)).astype(np.float32)
    vectors = list(rows) if pooled else [rows[:39_000], rows[39_000:]]
    save(tmp_path / f"v{suffix}", [str(k) for k in range(len(vectors))], vectors, SPEC)
    sources, arrays, _ = loaded(tmp_path / f"v{suffix}")
    assert sources == [str(k) for k in range(len(vectors))]
    np.testing.assert_array_equal(np.vstack(arrays), rows)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_errors_leave_no_partial_file_and_keep_the_old_one(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"v{suffix}"
    for before in (None, b"of yesterday"):
        if before is not None:
            target.write_bytes(before)
        with pytest.raises(StopIteration):
            save(target, ["a", "b"], POOLED, SPEC, fail_after=1)
        with VectorFile(target, SPEC):
            pass  # nothing was added
        assert [path.name for path in tmp_path.iterdir()] == [target.name] * (before is not None)
        assert before is None or target.read_bytes() == before
    save(target, ["a"], POOLED[:1], SPEC)
    assert loaded(target)[0] == ["a"]


def test_two_formats_of_one_name_can_be_written_at_once(tmp_path: Path) -> None:
    first, second = tmp_path / "v.npz", tmp_path / "v.parquet"
    with VectorFile(first, SPEC) as one, VectorFile(second, SPEC) as two:
        one.add("a", POOLED[0])
        two.add("b", POOLED[1])
    np.testing.assert_array_equal(loaded(first)[1], [POOLED[0]])
    np.testing.assert_array_equal(loaded(second)[1], [POOLED[1]])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_vectors_are_buffered_on_disk(suffix: str, tmp_path: Path) -> None:
    """In a process of its own: growth of its memory while 200 MB of rows are added."""
    program = f"""
import numpy as np
from pathlib import Path
from qwen_audio.api.export import VectorFile
from qwen_audio.api.spec import EmbeddingSpec
def own():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1000
def save(count):
    spec, most = EmbeddingSpec(model="m", revision="r", tap="mel"), 0
    with VectorFile({str(tmp_path / "v")!r} + {suffix!r}, spec) as file:
        for k in range(count):
            file.add(str(k), np.full((2500, 500), k, np.float32))
            most = max(most, own())
        arrays = file.arrays()
    return max(most, own())
before = save(2)
print(save(40) - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert float(done.stdout) < 60


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_goes_wrong_is_not_hidden_and_leaves_nothing(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors wait in a file without a name, which is gone even if the process is killed."""

    def fail(reason: BaseException = error) -> None:
        raise reason

    def save() -> None:
        with VectorFile(tmp_path / "v.npz", SPEC) as file:
            file.add("a", POOLED[0])
            assert list(tmp_path.iterdir()) == []
            monkeypatch.setattr(file._rows, "flush", fail)
            monkeypatch.setattr(file._rows, "close", lambda: fail(OSError(5, "cleaning up")))
            if isinstance(error, KeyboardInterrupt):
                raise error

    expected = OptionError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        save()
    assert "No space left" in str(caught.value) or expected is KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
