"""Manifests as people's programs write them: line ends, encodings, quotes, and types of columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qwen_audio.audio.manifest import read_manifest
from qwen_audio.errors import OptionError

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1e"
"""Characters that end lines for `str.splitlines`, and for no manifest."""


def read(folder: Path, name: str, text: str | bytes) -> list[dict[str, Any]]:
    """The columns of every row, with the name of the recording."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [{"source": Path(s.uri).name} | dict(s.extra) for s in read_manifest(path)]


def column(folder: Path, *cells: str) -> list[Any]:
    """The values of a column of CSV."""
    rows = "".join(f"{k}.wav,{cell}\n" for k, cell in enumerate(cells))
    return [row["x"] for row in read(folder, "column.csv", f"source,x\n{rows}")]


TEXTS = [
    *("12e3", "1E5", "007", "-01", "1_000", "0x10", "+5", " 5", "5 ", ".5", "5.", '"1,5"', "-0"),
    *("Nan", "nan", "NaN", "Infinity", "-inf", "None", "NULL", "null", "N/A", "True", "false"),
    *("\u0663", "½", "9223372036854775808", "0.12345678901234567890", "2026-01-01", "1" * 5000),
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_text(text: str, tmp_path: Path) -> None:
    shown = text.strip('"')
    assert column(tmp_path, text) == [shown]
    # One cell makes the column text, wherever it is, so that types don't change within it.
    assert column(tmp_path, "1", "", text, "2.5") == ["1", None, shown, "2.5"]


def test_numbers_are_those_that_read_as_they_are_written(tmp_path: Path) -> None:
    assert column(tmp_path, "1", "-20", "", "0") == [1, -20, None, 0]
    assert column(tmp_path, "1", "0.5", "-2.25") == [1.0, 0.5, -2.25]
    assert {type(value) for value in column(tmp_path, "1", "0.5")} == {float}
    assert column(tmp_path, "120.0", "98.25") == [120.0, 98.25]  # as pandas writes floats
    assert column(tmp_path, "120.00", "98.50") == [120.0, 98.5]  # a fixed number of digits
    assert column(tmp_path, "1.1", "1.10") == ["1.1", "1.10"]  # versions
    assert column(tmp_path, "0.00001", "100000000000000000000.5") == [
        "0.00001",
        "100000000000000000000.5",
    ]
    assert column(tmp_path, "0.00001") == [1e-5]
    assert column(tmp_path, "9007199254740993", "0.5") == ["9007199254740993", "0.5"]
    assert column(tmp_path, "9223372036854775807") == [2**63 - 1]
    assert column(tmp_path, "", " ", "\t") == [None, None, None]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_lines_end_as_on_any_system(end: str, encoding: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    cell = f"a{SEPARATORS}é"
    lines = ["source,note", f'1.wav,"{cell}"', "", ",", '2.wav,"two', 'lines ""quoted"""', "3.wav"]
    data = (mark + end.join(lines)).encode(encoding)
    assert read(tmp_path, "list.csv", data) == [
        {"source": "1.wav", "note": cell},
        {"source": "2.wav", "note": f'two{end}lines "quoted"'},
        {"source": "3.wav", "note": None},
    ]
    text = f'{{"source": "1.wav", "note": "a\u2028\u2029\x85é"}}{end}{end}{{"source": "2.wav"}}'
    assert read(tmp_path, "list.jsonl", (mark + text).encode(encoding)) == [
        {"source": "1.wav", "note": "a\u2028\u2029\x85é"},
        {"source": "2.wav"},
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_of_spreadsheets(separator: str, tmp_path: Path) -> None:
    text = separator.join(["label", '"source"']) + "\n" + separator.join(['"a;b,c\td"', "1.wav"])
    assert read(tmp_path, "list.csv", text) == [{"source": "1.wav", "label": "a;b,c\td"}]


def test_json_has_its_own_types(tmp_path: Path) -> None:
    text = '{"source": 7, "a": "12e3", "b": 12e3, "c": true, "d": null, "e": 9007199254740993}'
    assert read(tmp_path, "list.jsonl", text) == [
        {"source": "7", "a": "12e3", "b": 12000.0, "c": True, "d": None, "e": 9007199254740993}
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '\n{"source": "x", "n": NaN}', "line 2: NaN is not JSON: write null"),
        ("a.jsonl", '{"source": "x", "n": -Infinity}', "line 1: -Infinity is not JSON"),
        ("a.jsonl", '{"source": "x", "n": 1e999}', "line 1: 1e999 is more than a number can be"),
        ("a.jsonl", '{"source": "x", "n": 9223372036854775808}', "line 1: .* more than 64 bits"),
        ("a.jsonl", '{"source": "x", "n": %s}' % ("1" * 9999), "line 1: 1+ has more than 64 bits"),
        ("a.jsonl", '{"source": "x", "n": 1, "n": 2}', "line 1: there are two columns 'n'"),
        ("a.jsonl", '{"source": "x"}\n{"source": "y"', "line 2 is not JSON .*: write one object"),
        ("a.jsonl", '{"source": "x"} {"source": "y"}', "line 1 is not JSON"),
        ("a.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("a.jsonl", '{"source": "x"}\n\n["y"]', "line 3, row 2 is not a row of named columns"),
        ("a.jsonl", '{"source": "x", "n": {}}', "line 1, row 1: column n holds a dict"),
        ("a.csv", 'source,n\nx,"1\n2"\ny,"3', "line 4: unexpected end of data: check its quotes"),
        ("a.csv", 'source,n\nx,"1"2\n', "line 2: .*: check its quotes"),
        ("a.csv", 'source,n\nx,"1\n2"\ny,1,2', "line 4, row 2 is not a row of named columns"),
        ("a.csv", b"source,n\nx,1\ny,\xe9\n", "line 3 is not UTF-8: save it in UTF-8"),
        ("a.csv", "source,n\nx,1\n".encode("utf-16-le"), "line 1 has a null character: save it"),
        ("a.csv", b"\xff\xfes", "line 1 is not UTF-8"),
        ("a.csv", "source,n,n\nx,1,2", "there are two columns 'n'"),
        ("a.csv", "\n\n", "holds no rows"),
        ("a.tsv", "source,n\nx,1\n", "line 2, row 1 names no recording"),
    ],
)
def test_errors_name_the_line(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        read(tmp_path, name, text)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
