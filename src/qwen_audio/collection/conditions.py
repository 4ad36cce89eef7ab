"""SQL conditions on rows: a user's text is read to its end, or refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NewType

from qwen_audio.errors import OptionError

from .storage_errors import error_reason

if TYPE_CHECKING:
    from lancedb.table import Table

__all__ = ["Condition", "check_condition", "condition_error", "source_condition", "sql_literal"]

Condition = NewType("Condition", str)
"""An SQL expression that LanceDB reads to its end: of this package, or checked."""

_ENCLOSURES = ("({}\n)", "CAST({}\n AS STRING) IS NULL")
"""LanceDB reads the longest expression that a text begins with, and ignores the rest. In these it
must be followed by ")", and by "AS": a text that is fine in both has no rest, as one that closes
the parenthesis itself, "a) OR (b", doesn't go on with "AS" there."""
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
_UNSUPPORTED = re.compile(r"--|/\*|;|[$?\0]|(?<!:):(?!:)|\b[BNR](?=')", re.IGNORECASE)
"""Comments, whose text would be ignored; further statements; and what makes LanceDB panic:
placeholders, and literals such as N'x'."""


def sql_literal(text: str) -> str:
    """A string literal of SQL, quotes escaped."""
    return "'" + text.replace("'", "''") + "'"


def source_condition(sources: Sequence[str]) -> Condition:
    """The condition that holds for the rows of these sources (at least one)."""
    return Condition(f"source IN ({', '.join(map(sql_literal, sources))})")


def check_condition(table: Table, where: Any) -> Condition | None:
    """`where` itself, if it is one SQL condition over the table's columns, or None.

    Raises:
        OptionError: for anything else, such as a condition that is followed by text that LanceDB
            would not read.
    """
    if where is None:
        return None
    if not isinstance(where, str):
        raise OptionError(f"where={where!r:.80} is no text: give an SQL condition")
    if not where.strip():
        raise OptionError(f"where={where!r} is empty: give an SQL condition, or leave it out")
    # From left to right, so that what is quoted inside of a comment is part of the comment.
    unquoted = _QUOTED.sub(lambda quoted: quoted[0][0] + quoted[0][-1], where)
    if found := _UNSUPPORTED.search(unquoted):
        raise OptionError(
            f"where={where!r:.300} has {found[0]!r} outside of quotes: give one SQL condition "
            "without comments, placeholders or further statements"
        )
    for enclosure in _ENCLOSURES:
        try:
            table.search().where(enclosure.format(where)).limit(1).explain_plan()
        except Exception as error:  # also lancedb's RustPanic, which is a bare Exception
            raise condition_error(where, error) from error
    return Condition(where)


def condition_error(where: str | None, error: Exception) -> OptionError:
    """The error for a condition that LanceDB refuses, without its stack of Rust files."""
    # LanceDB shows the condition once more, in a statement of its own.
    reason = re.sub(
        r"Error parsing statement: .* \((sql parser error: .*)\)", r"\1", error_reason(error)
    )
    return OptionError(
        f"where={where!r:.300} can't be used ({reason}): it takes one SQL condition over the "
        "columns, which `qwen-audio collection info` lists"
    )
