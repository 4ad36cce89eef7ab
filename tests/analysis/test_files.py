"""Result files: the suffix decides the format, in capitals too; writes are atomic."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from pathlib import Path

import numpy as np
import pytest

from qwen_audio.analysis.files import (
    atomic_write,
    check_output_folder,
    check_output_path,
    csv_bytes,
    json_rows,
    save_numbers,
)
from qwen_audio.errors import OptionError

ROWS = [{"seconds": 0.5, "norm": float("nan")}, {"seconds": 1.0, "norm": 2.0}]


@pytest.mark.parametrize("name", ["x.npz", "x.NPZ", "x.csv", "x.CSV", "x.json", "x.Json"])
def test_the_suffix_decides_the_format_in_capitals_too(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    array = np.arange(3.0)
    assert save_numbers(target, {"tap": "mel"}, {"a": array, "b": None}, lambda: ROWS) == target
    assert [path.name for path in tmp_path.iterdir()] == [name]
    if name.lower().endswith(".npz"):
        with np.load(target) as archive:
            assert sorted(archive) == ["a", "facts"]
            np.testing.assert_array_equal(archive["a"], array)
    elif name.lower().endswith(".csv"):
        with target.open(encoding="utf-8", newline="") as opened:
            assert [row["norm"] for row in csv.DictReader(opened)] == ["", "2.0"]
    else:
        saved = json.loads(target.read_text(encoding="utf-8"))
        assert (saved["tap"], saved["rows"][0]["norm"]) == ("mel", None)


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".json"])
def test_the_same_numbers_are_the_same_file(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for seconds in (1e9, 1.5e9):
        monkeypatch.setattr("time.time", lambda seconds=seconds: seconds)
        target = tmp_path / f"{seconds:.0f}{suffix}"
        save_numbers(target, {"tap": "mel"}, {"a": np.arange(3.0)}, lambda: ROWS)
        files.append(target.read_bytes())
    assert files[0] == files[1]


def test_no_cell_of_csv_is_a_formula() -> None:
    """Text gets a single quote before it, numbers don't; nothing else changes."""
    harmful = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1"]
    harmless = ["a=1", "'quoted'", "a\nb", 'say "x", y', "-5", "+1.5e-3", "-.5", "1-2", "é🎵", ""]
    numbers = [-5, -1.5e-7, True, None]
    row = {f"={number}": value for number, value in enumerate([*harmful, *harmless, *numbers])}
    text = csv_bytes([row]).decode()
    header, cells = csv.reader(io.StringIO(text, newline=""))
    assert header == [f"'={number}" for number in range(len(row))]
    assert cells == [*(f"'{value}" for value in harmful), *harmless, "-5", "-1.5e-07", "True", ""]
    assert csv_bytes([]) == b"\r\n"
    assert csv_bytes([{"name": "\udcff"}]) == b"name\r\n\\udcff\r\n"


def test_json_values() -> None:
    moment = dt.datetime(2025, 1, 2, tzinfo=dt.UTC)
    row = {
        "nan": float("nan"),
        "infinite": np.float32("inf"),
        "missing": None,
        "scalar": np.int64(3),
        "float": np.float64(1 / 3),
        "time": moment,
        "list": [1.5],
        "text": "x",
    }
    expected = {
        "nan": None,
        "infinite": None,
        "missing": None,
        "scalar": 3,
        "float": 1 / 3,
        "time": "2025-01-02T00:00:00+00:00",
        "list": [1.5],
        "text": "x",
    }
    assert json_rows([row]) == [expected]
    assert json_rows([row], decimals=2) == [expected | {"float": 0.33}]
    json.dumps(json_rows([row]), allow_nan=False)


def test_a_failed_write_leaves_the_target_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    target.write_text("before")

    def write(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OptionError, match=r"can.t be written \(No space left"):
        atomic_write(target, write)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_cleaning_up_does_not_hide_the_error(tmp_path: Path) -> None:
    """Of a folder that vanishes, or becomes a file, while something is written."""
    folder = tmp_path / "results"
    folder.mkdir()

    def write(path: Path) -> None:
        folder.rmdir()
        folder.touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(OptionError, match=r"can.t be written \(No space left"):
        atomic_write(folder / "x.txt", write)


def test_folders_are_checked_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for name in ("new", "new/deep", "."):
        assert check_output_folder(tmp_path / name) == tmp_path / name
    for name in ("file", "file/new"):
        with pytest.raises(OptionError, match="file is no folder"):
            check_output_folder(tmp_path / name)
    monkeypatch.setattr("os.access", lambda *_: False)  # a privileged user may write anywhere
    for check in (check_output_folder, lambda path: check_output_path(path, ["", ".txt"])):
        with pytest.raises(OptionError, match=r"x can.t be written \(Permission denied\)"):
            check(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
