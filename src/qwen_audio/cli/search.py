"""`qwen-audio search`: similarity search and full-text search in a collection."""

from __future__ import annotations

import argparse
from typing import Any

from .checks import check_files
from .console import load_collection_model, print_error, print_json, print_line
from .options import (
    add_collection_argument,
    add_command,
    add_compute_options,
    add_model_options,
    add_where_option,
)

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "search",
        run,
        "Find windows of a collection: similar to a recording or a row, or by caption.",
        "Needs the extra [collections].",
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_collection_argument(parser)
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("--audio", metavar="FILE", help="similarity search with a recording")
    query.add_argument("--text", metavar="WORDS", help="full-text search over captions")
    query.add_argument(
        "--id", metavar="SOURCE[#N]", help="similarity search with a row of the collection"
    )
    add_where_option(parser)
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="(default: 10)")
    parser.add_argument(
        "--exact", action="store_true", help="compare every vector, even if there is an index"
    )


def run(options: argparse.Namespace) -> int:
    """Print the best windows, best first."""
    from qwen_audio.analysis.files import json_value
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.search import check_limit
    from qwen_audio.collection.table import WindowTable

    check_limit(options.limit)
    if options.audio:
        check_files([options.audio])
    table = WindowTable.open(options.collection)
    table.condition(options.where)  # before a model is loaded
    model = load_collection_model(table.spec, options) if options.audio else None
    results = Collection(table, model).search(
        options.audio,
        text=options.text,
        id=options.id,
        where=options.where,
        limit=options.limit,
        exact=options.exact,
    )
    for result in results:
        if options.json:
            own = {"id": result.id, "score": result.score}
            # Columns of manifests have no dots in their names, so these are nobody else's.
            columns = {
                f"manifest.{name}" if name in own else name: json_value(value)
                for name, value in result.columns.items()
            }
            print_json(own | columns)
        else:
            print_line(str(result))
    if not results:
        print_error(f"nothing found among {table.count()} windows")
        if options.json:
            print_json([])
    return 0
