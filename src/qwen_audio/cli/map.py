"""`qwen-audio map`: a collection as an interactive map."""

from __future__ import annotations

import argparse
from pathlib import PurePath
from typing import Any

from qwen_audio.errors import check_extra, counted

from .console import print_error, print_json, print_line, report_failures
from .options import add_collection_argument, add_command, add_json_option, add_where_option
from .progress import progress_bars

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "map",
        run,
        "Write a collection as an interactive map: nearby points are similar, click to play.",
        "Needs the extra [map].",
    )
    add_collection_argument(parser)
    parser.add_argument("-o", "--output", metavar="OUT.html", help="(default: C.html here)")
    add_where_option(parser)
    parser.add_argument("--method", help="umap or pca (default: umap from 16 rows on)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of UMAP (default: 0)")
    parser.add_argument("--colour", metavar="COLUMN", help="column to colour by at first")
    parser.add_argument(
        "--audio",
        help="embed (in the page), link (to the files) or none (default: embed what fits 20 MB)",
    )
    parser.add_argument(
        "--theme", choices=("light", "dark"), default="light", help="(default: light)"
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Write the page; exit status 1 if the audio of a recording can't be embedded."""
    check_extra("a map", "map", "lancedb", "pyarrow", "plotly")
    from qwen_audio.analysis.files import check_output_path
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.projection import check_page_rows

    path = check_output_path(
        options.output or f"{PurePath(options.collection).stem}.html", (".html",)
    )
    collection = Collection.open(options.collection)
    check_page_rows(collection.count(options.where))  # before they are projected
    with progress_bars() as show:
        projection = collection.map(
            method=options.method, seed=options.seed, where=options.where, on_progress=show
        )
        page = projection.write_html(
            path,
            audio=options.audio,
            colour=options.colour,
            theme=options.theme,
            on_progress=show,
        )
    for reason in page.failures:
        print_error(reason)
    size_bytes = path.stat().st_size
    if options.json:
        print_json(
            {
                "output": str(path),
                "rows": len(projection),
                "method": projection.method,
                "columns": list(projection.columns),
                "audio": page.audio,
                "bytes": size_bytes,
            }
        )
    else:
        print_line(
            f"{path}: {counted(len(projection), 'window')} by {projection.method}, audio: "
            f"{page.audio}, {size_bytes / 1e6:.1f} MB"
        )
    return report_failures(len(page.failures), len(projection))
