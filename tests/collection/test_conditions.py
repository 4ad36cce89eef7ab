"""SQL conditions: a text is one expression that LanceDB reads to its end, or an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from collection_helpers import add_rows
from commands import run
from qwen_audio.collection.collection import Collection
from qwen_audio.collection.conditions import check_condition
from qwen_audio.errors import OptionError

DURATIONS = (2.0, 3.2, 3.5, 4.0)
FINE = {
    "duration_seconds > 3 AND duration_seconds < 3.6": 2,
    "duration_seconds > 3 OR (duration_seconds = 2)": 4,
    "(duration_seconds > 3) AND (duration_seconds < 3.6)": 2,
    "NOT duration_seconds BETWEEN 3 AND 3.6": 2,
    "source LIKE '%1.wav' OR source = 'it''s -- /* ; $ ? : \\'": 1,
    '"source" IN (\'/x/0.wav\', "caption")': 1,
    "`duration_seconds`::int = 3\n": 2,
    "caption IS NULL": 4,
    "regexp_match(source, '[01]')": 2,
    "CAST(duration_seconds AS BOOLEAN)": 4,
    "true": 4,
}
REFUSED = {
    "duration_seconds > 3 ADN duration_seconds < 3.6": "found: ADN",
    "duration_seconds > 3 duration_seconds < 3.6": "found: duration_seconds",
    "duration_seconds > 1) OR (1=1": "found: AS",
    "duration_seconds > 3) ADN (duration_seconds < 3.6": "Invalid function 'cast'",
    "duration_seconds > 3)": "Invalid function 'cast'",
    "duration_seconds > 3 AS STRING) IS NULL OR CAST(1=1": "found: AS",
    "(duration_seconds > 3": "Expected: \\)",
    "duration_seconds > 3; DELETE FROM t": "';' outside of quotes",
    "duration_seconds > 3;": "';' outside of quotes",
    "duration_seconds > 3 -- ADN": "'--' outside of quotes",
    "duration_seconds > 3) --": "'--' outside of quotes",
    "duration_seconds > /* 2 */ 3": r"'/\*' outside of quotes",
    "duration_seconds > 3 /* ' */ -- '": r"'/\*' outside of quotes",
    "duration_seconds > 3, TRUE": "found: ,|not supported",
    "duration_seconds > 3 LIMIT 1": "found: LIMIT",
    "duration_seconds > 3 ORDER BY source": "found: ORDER",
    "duration_seconds > 3 GROUP BY source": "found: GROUP",
    "duration_seconds > 3 UNION SELECT 1": "found: UNION",
    "source = 'a": "Unterminated string literal",
    'source = "a': "can't be used",
    "source IN (SELECT source FROM t)": "not supported",
    "EXISTS (SELECT 1)": "not supported",
    "": "is empty",
    " \n": "is empty",
    "duration_seconds": "does not return a boolean",
    "1": "does not return a boolean",
    "duration_seconds > $1": r"'\$' outside",
    "duration_seconds > ?": r"'\?' outside",
    "source = :name": "':' outside",
    "source = N'a'": "'N' outside",
    "source = $$a$$": r"'\$' outside",
    "(" * 3000 + "true" + ")" * 3000: "can't be used",
    "NOT " * 3000 + "true": "can't be used",
    "source = '\ud800'": "can't be used",
    "no_such_column = 1": "No field named no_such_column",
}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Collection:
    """Four rows that differ in their durations."""
    model = qa.load(checkpoint, dtype="float32")
    collection = Collection.create(
        tmp_path_factory.mktemp("conditions") / "c.lance", model, tap="encoder.1"
    )
    vectors = np.eye(4, collection._window_table.width)
    add_rows(collection, vectors, duration_seconds=DURATIONS)
    return collection


@pytest.mark.parametrize(("where", "count"), FINE.items())
def test_conditions_that_are_read_to_their_end(
    collection: Collection, where: str, count: int
) -> None:
    assert len(collection.recordings(where)) == count


@pytest.mark.parametrize(("where", "message"), REFUSED.items())
def test_text_that_is_not_one_condition(collection: Collection, where: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        check_condition(collection.table, where)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("where", [5, b"true", ["true"], False])
def test_conditions_are_text(collection: Collection, where: Any) -> None:
    with pytest.raises(OptionError, match="is no text"):
        collection.recordings(where)


def test_every_function_with_a_condition_checks_it(collection: Collection, tmp_path: Path) -> None:
    operations: dict[str, Callable[[str], Any]] = {
        "recordings": collection.recordings,
        "export": lambda where: collection.export(tmp_path / "x.npz", where),
        "map": lambda where: collection.map(where=where),
        "audio": lambda where: collection.search(
            np.zeros(16_000), sampling_rate=16_000, where=where
        ),
        "vector": lambda where: collection.search(vector=np.ones(64), where=where),
        "like": lambda where: collection.search(like="/x/0.wav", where=where),
    }
    for where in ("duration_seconds > 3 ADN x", "true) OR (true", "true;", ""):
        for name, operation in operations.items():
            with pytest.raises(OptionError, match=r"^where="):
                pytest.fail(f"{name} took {where!r}: {operation(where)}")
    assert not (tmp_path / "x.npz").exists()
    # The other rows, also where the condition holds for the row itself.
    assert len(collection.search(like="/x/0.wav", where="duration_seconds < 3 OR true")) == 3


def test_commands(collection: Collection, tmp_path: Path) -> None:
    path = collection.path
    (tmp_path / "a.wav").touch()
    for where in ("true ADN false", ""):
        for command in (
            ("search", path, "--like", "/x/0.wav"),
            ("search", path, tmp_path / "a.wav"),
            ("map", path, "-o", tmp_path / "m.html"),
            ("collection", "list", path),
            ("collection", "export", path, "-o", tmp_path / "x.parquet"),
        ):
            done = run(*command, "--where", where)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), command
    done = run("search", path, "--like", "/x/0.wav", "--where", "duration_seconds > 3.9", "--json")
    assert json.loads(done.stdout)["source"] == "/x/3.wav"
