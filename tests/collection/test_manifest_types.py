"""Types of manifests' columns between runs: a column keeps the one that it had first."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from qwen_audio.audio.manifest import read_manifest
from qwen_audio.audio.source import Source
from qwen_audio.collection.columns import plan_columns
from qwen_audio.errors import OptionError


def sources(folder: Path, *cells: str) -> list[Source]:
    manifest = folder / "list.csv"
    manifest.write_text("source,id\n" + "".join(f"{k}.wav,{c}\n" for k, c in enumerate(cells)))
    return list(read_manifest(manifest))


@pytest.mark.parametrize(
    ("first", "type_"),
    [(("1", "2"), "int64"), (("1", "2.5"), "double"), (("1", "12e3"), "string")],
)
def test_a_column_keeps_its_type(first: tuple[str, ...], type_: str, tmp_path: Path) -> None:
    rows = sources(tmp_path, *first)
    new, _, cast = plan_columns(rows)
    assert [str(field.type) for field in new] == [type_]
    schema = pa.schema(new)
    assert plan_columns(rows, schema) == ([], ("id",), cast)
    assert plan_columns(sources(tmp_path, "7", ""), schema)[0] == []
    for later in ("12e3", "007", "Nan", "True"):
        if type_ == "string":
            assert plan_columns(sources(tmp_path, later), schema)[2][0].extra == {"id": later}
        else:
            with pytest.raises(OptionError, match=f"column 'id' holds {type_} in the collection"):
                plan_columns(sources(tmp_path, "3", later), schema)
