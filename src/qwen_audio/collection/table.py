"""The rows of a collection: a LanceDB table on disk of windows and their vectors, one Spec for all.

`music.lance` is the table itself: Lance, LanceDB and what reads Lance open it as it is. Beside it
lie `music.failures.lance`, the recordings that could not be heard, and a lock that writers hold.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio.api.spec import EmbeddingSpec
from qwen_audio.errors import CollectionError, MissingExtraError, OptionError

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

__all__ = ["OWN_COLUMNS", "WindowTable", "sql_text"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.lance")
_SPEC = b"qwen_audio_spec"

OWN_COLUMNS = (
    "source",
    "window",
    "start_seconds",
    "end_seconds",
    "duration_seconds",
    "sampling_rate",
    "channels",
    "format",
    "title",
    "artist",
    "album",
    "caption",
    "source_bytes",
    "source_changed",
    "content_hash",
    "indexed_at",
    "norm",
    "vector",
)
"""What every collection has; columns of manifests stand beside them."""


def sql_text(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


class WindowTable:
    """A table of windows. Made by `create` or `open`.

    Rows hold `vector`, of length 1, and `norm`, its length before: vector × norm is what `encode`
    gives for the window alone.

    Attributes:
        path: of the table.
        spec: how its vectors are made.
        describes: whether its windows have captions.
    """

    def __init__(self, path: Path, table: Table, spec: EmbeddingSpec, *, describes: bool) -> None:
        self.path, self.table, self.spec, self.describes = path, table, spec, describes

    @classmethod
    def exists(cls, path: str | Path) -> bool:
        """Whether there is a table: more than the folder of one that was never finished."""
        return any((_checked(path) / "_versions").glob("*.manifest"))

    @classmethod
    def open(cls, path: str | Path) -> WindowTable:
        """Raises CollectionError if there is none, or it holds something else."""
        place = _checked(path)
        if not cls.exists(place):
            raise CollectionError(f"{place}: no such collection: `qwen-audio index` makes one")
        table = _opened(place)
        metadata = table.schema.metadata or {}
        if _SPEC not in metadata:
            raise CollectionError(f"{place} is a Lance table, but not a collection of recordings")
        settings = json.loads(metadata[_SPEC])
        spec = EmbeddingSpec.of(**settings["spec"])
        return cls(place, table, spec, describes=settings["describes"])

    @classmethod
    def create(
        cls,
        path: str | Path,
        spec: EmbeddingSpec,
        width: int,
        *,
        describes: bool,
        float32: bool = False,
    ) -> WindowTable:
        """An empty collection. Raises CollectionError if it can't be written there."""
        place = _checked(path)
        import pyarrow as pa

        numbers = pa.float32() if float32 else pa.float16()
        schema = _schema(width, numbers).with_metadata(
            {
                _SPEC: json.dumps(
                    {
                        "spec": dataclasses.asdict(spec),
                        "fingerprint": spec.fingerprint,
                        "describes": describes,
                        "vector": f"{numbers}, of length 1: times `norm` it is the vector",
                    }
                ).encode()
            }
        )
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            table = _database(place.parent).create_table(place.stem, schema=schema)
        except (OSError, RuntimeError, ValueError) as error:
            raise CollectionError(f"{place} can't be made ({error}): check the folder") from error
        return cls(place, table, spec, describes=describes)

    def check(self, spec: EmbeddingSpec) -> None:
        """Raises CollectionError, showing both, unless vectors of `spec` may stand here.

        A folder's revision is a digest of its checkpoint: what the folder is called matters not.
        """
        if spec.revision == self.spec.revision:
            spec = dataclasses.replace(spec, model=self.spec.model)
        if spec.fingerprint == self.spec.fingerprint:
            return
        mine, theirs = json.loads(self.spec.to_json()), json.loads(spec.to_json())
        differences = ", ".join(
            f"{name} {mine[name]!r} here and {theirs[name]!r} asked for"
            for name in mine
            if mine[name] != theirs[name]
        )
        hint = f" (load with dtype={mine['dtype']!r})" if mine["dtype"] != theirs["dtype"] else ""
        raise CollectionError(
            f"{self.path} holds vectors of another Spec ({self.spec.fingerprint}, not "
            f"{spec.fingerprint}): {differences}; use its settings{hint}, or another collection"
        )

    @property
    def failures(self) -> Table:
        """The recordings that could not be heard, one a row."""
        import pyarrow as pa

        place = self.path.with_name(f"{self.path.stem}.failures.lance")
        if place.is_dir():
            return _opened(place)
        fields = ("source", "reason", "source_bytes:int", "source_changed", "failed_at:time")
        types = {"": pa.string(), "int": pa.int64(), "time": pa.timestamp("us", "UTC")}
        schema = pa.schema([(f.split(":")[0], types[f.partition(":")[2]]) for f in fields])
        table: Table = _database(place.parent).create_table(
            place.stem, schema=schema, exist_ok=True
        )
        return table

    @property
    def further_columns(self) -> tuple[str, ...]:
        """Those that manifests have brought."""
        return tuple(name for name in self.table.schema.names if name not in OWN_COLUMNS)

    @contextmanager
    def writing(self) -> Iterator[Table]:
        """The newest state of the table, for one writer at a time, of this process or another."""
        from filelock import FileLock

        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            self.table.checkout_latest()
            yield self.table

    def columns(self, names: Sequence[str], where: str | None = None) -> pa.Table:
        """Some columns of all rows, or of those that a condition holds for.

        Raises OptionError for a condition that can't be read.
        """
        query = self.table.search().select(list(names)).limit(self.table.count_rows())
        try:
            return (query.where(where) if where else query).to_arrow()
        except (RuntimeError, ValueError, OSError) as error:
            if where:
                raise bad_condition(where, error) from error
            raise CollectionError(f"{self.path} can't be read ({error})") from error

    def count(self, where: str | None = None) -> int:
        """Rows. Raises OptionError for a condition that can't be read."""
        try:
            return int(self.table.count_rows(where))
        except (RuntimeError, ValueError, OSError) as error:
            raise bad_condition(where, error) from error

    def add_columns(self, examples: Mapping[str, Any]) -> None:
        """Make room for columns of a manifest, of the types that the examples have."""
        import pyarrow as pa

        types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
        new = [
            pa.field(name, types[type(value)])
            for name, value in examples.items()
            if name not in self.table.schema.names
        ]
        taken = sorted(set(examples) & set(OWN_COLUMNS))
        if taken:
            raise OptionError(
                f"the manifest has a column {taken[0]!r}, which every collection has of its own: "
                "give it another name"
            )
        if new:
            with self.writing() as table:  # another indexer may have been faster
                missing = [field for field in new if field.name not in table.schema.names]
                if missing:
                    table.add_columns(missing)


def bad_condition(where: str | None, error: Exception) -> OptionError:
    """What to say of an SQL condition that LanceDB refuses."""
    said = " ".join(str(error).split())
    reason = re.sub(r",? *(at )?/\S*\.rs.*|\. Valid fields are .*", "", said)
    return OptionError(
        f"where={where!r} can't be used ({reason[:300]}): it takes SQL over the columns, which "
        "`qwen-audio collection info` lists"
    )


def _schema(width: int, numbers: pa.DataType) -> pa.Schema:
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    types = {
        "source": text,
        "window": pa.int32(),
        "start_seconds": real,
        "end_seconds": real,
        "duration_seconds": real,
        "sampling_rate": pa.int32(),
        "channels": pa.int32(),
        "format": text,
        "title": text,
        "artist": text,
        "album": text,
        "caption": text,
        "source_bytes": whole,
        "source_changed": text,
        "content_hash": text,
        "indexed_at": pa.timestamp("us", "UTC"),
        "norm": pa.float32(),
        "vector": pa.list_(numbers, width),
    }
    return pa.schema([(name, types[name]) for name in OWN_COLUMNS])


def _checked(path: str | Path) -> Path:
    place = Path(path)
    if not _NAME.fullmatch(place.name):
        raise OptionError(
            f"{place}: a collection's name ends in .lance and holds letters, digits, '.', '-' and "
            "'_', such as music.lance"
        )
    return place


def _database(folder: Path) -> Any:
    try:
        import lancedb
    except ImportError as error:
        raise MissingExtraError("a collection", "collections") from error
    return lancedb.connect(folder)


def _opened(place: Path) -> Any:
    try:
        return _database(place.parent).open_table(place.stem)
    except (OSError, RuntimeError, ValueError) as error:
        raise CollectionError(f"{place} can't be opened as a Lance table ({error})") from error
