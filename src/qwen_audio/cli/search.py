"""`qwen-audio search`: similarity search and full-text search in a collection."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import OptionError, counted
from qwen_audio.paths import exists, is_uri, path_from_text

from .checks import check_files
from .console import load_collection_model, print_error, print_json, print_line
from .options import (
    add_collection_argument,
    add_command,
    add_compute_options,
    add_model_options,
    add_where_option,
)
from .progress import working_on

if TYPE_CHECKING:
    from qwen_audio.collection.table import WindowTable

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "search",
        run,
        "Find windows of a collection: similar to a recording or a row, or by caption.",
        "Give QUERY, --caption or --like. Needs the extra [collections].",
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_collection_argument(parser)
    parser.add_argument(
        "query",
        nargs="?",
        metavar="QUERY",
        help="similarity search with an audio file (- for stdin); anything that is no file is a "
        "row of the collection, as with --like",
    )
    parser.add_argument("--caption", metavar="WORDS", help="full-text search over captions")
    parser.add_argument(
        "--like",
        metavar="SOURCE[#N]",
        help="similarity search with a row of the collection: the id that a search prints",
    )
    add_where_option(parser)
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="(default: 10)")
    parser.add_argument(
        "--include-self",
        action="store_true",
        help="also return the query's own windows, where it is in the collection",
    )
    parser.add_argument(
        "--exact", action="store_true", help="compare every vector, even if there is an index"
    )


def run(options: argparse.Namespace) -> int:
    """Print the best windows, best first."""
    from qwen_audio.analysis.files import json_value
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.search import check_limit
    from qwen_audio.collection.table import WindowTable

    given = [text for text in (options.query, options.caption, options.like) if text is not None]
    if len(given) != 1:
        raise OptionError(
            f"search takes one of QUERY (an audio file), --caption WORDS and --like SOURCE[#N], "
            f"not {len(given)} of them"
        )
    check_limit(options.limit)
    table = WindowTable.open(options.collection)
    table.condition(options.where)  # before a model is loaded
    is_audio = options.query is not None and _is_audio(options.query, table)
    model = load_collection_model(table.spec, options) if is_audio else None
    with working_on("search"):
        results = Collection(table, model).search(
            options.query if is_audio else None,
            caption=options.caption,
            like=options.like if is_audio or options.query is None else options.query,
            where=options.where,
            limit=options.limit,
            include_self=options.include_self,
            exact=options.exact,
        )
    if is_audio and results.left_out is not None:
        print_error(f"left out: {results.left_out}, the query itself (--include-self keeps it)")
    if not results:
        print_error(f"nothing found among {counted(table.count(), 'window')}")
    elif not options.json:
        print_error(results.explanation)
    for result in results:
        if options.json:
            own = {"id": result.id, "rank": result.rank, "score": result.score}
            # Columns of manifests have no dots in their names, so these are nobody else's.
            columns = {
                f"manifest.{name}" if name in own else name: json_value(value)
                for name, value in result.columns.items()
            }
            print_json(own | columns)
        else:
            print_line(str(result))
    return 0


def _is_audio(query: str, table: WindowTable) -> bool:
    """Whether QUERY is audio; otherwise it is a row of the collection.

    A path of a file is always audio, whatever the collection's sources are named.

    Raises:
        AudioError: for a folder.
        OptionError: if it is neither.
    """
    from qwen_audio.collection.search import find_row

    if query == "-" or exists(path_from_text(query)):
        check_files([query])
        return True
    if find_row(table, query) is not None:
        return False
    if is_uri(query):
        return True
    raise OptionError(
        f"{query!r} is no audio file, and no row of {table.location}: "
        f"--caption {shlex.quote(query)} searches captions; `qwen-audio collection list` shows "
        "the recordings"
    )
