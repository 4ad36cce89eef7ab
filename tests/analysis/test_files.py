"""Files of what has been looked at: the suffix says the format, however it is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from qwen_audio.analysis.files import save_numbers

ROWS = [{"seconds": 0.5, "norm": float("nan")}, {"seconds": 1.0, "norm": 2.0}]


@pytest.mark.parametrize("name", ["x.npz", "x.NPZ", "x.csv", "x.CSV", "x.json", "x.Json"])
def test_the_suffix_says_the_format_in_capitals_too(tmp_path: Path, name: str) -> None:
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
