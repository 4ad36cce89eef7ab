"""The commands about collections: index, search, and collection with its actions."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .console import model_for, print_error, print_json, print_line
from .index import _index
from .options import CommandFunction, add_command, add_windows, options_parser

if TYPE_CHECKING:
    from qwen_audio.collection.collection import Collection

__all__ = ["RUNS"]


def _search(options: argparse.Namespace) -> int:
    from qwen_audio.analysis.files import json_value
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.table import WindowTable

    rows = WindowTable.open(options.collection)
    model = model_for(rows.spec, options) if options.audio else None
    hits = Collection(rows, model).search(
        options.audio,
        text=options.text,
        id=options.id,
        where=options.where,
        limit=options.limit,
        exact=options.exact,
    )
    for hit in hits:
        if options.json:
            columns = {name: json_value(value) for name, value in hit.columns.items()}
            print_json({"id": hit.id, "score": hit.score, **columns})
        else:
            print_line(str(hit))
    if not hits:
        print_error(f"nothing found among {rows.count()} windows")
        if options.json:
            print_json([])
    return 0


def _info(options: argparse.Namespace) -> int:
    found = dataclasses.asdict(_open(options).info())
    if options.json:
        print_json(found)
        return 0
    spec = found.pop("spec")
    for name, value in {**found, **{f"spec.{name}": value for name, value in spec.items()}}.items():
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        print_line(f"{name.replace('_', ' '):20} {shown}")
    return 0


def _list(options: argparse.Namespace) -> int:
    from qwen_audio.audio.window import Window

    for row in _open(options).recordings(options.where):
        if options.json:
            print_json(row)
        else:
            said = row["captions"]
            caption = f": {said[0]['caption']}" if len(said) == 1 else ""
            windows = f"{row['windows']} window{'s' * (row['windows'] != 1)}"
            print_line(f"{row['source']}  {row['duration_seconds']:.1f} s, {windows}{caption}")
            for one in said[1:] and said:
                print_line(
                    f"  {Window(one['start_seconds'], one['end_seconds'])}  {one['caption']}"
                )
    return 0


def _failures(options: argparse.Namespace) -> int:
    from qwen_audio.analysis.files import json_value

    for row in _open(options).failures():
        if options.json:
            print_json({name: json_value(value) for name, value in row.items()})
        else:
            print_line(row["reason"])
    return 0


def _prune(options: argparse.Namespace) -> int:
    gone = _open(options).prune()
    if options.json:
        print_json({"pruned": gone})
    else:
        are = "recording is" if len(gone) == 1 else "recordings are"
        print_line(f"{options.collection}: {len(gone)} {are} gone, and so are their rows")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.table import WindowTable

    rows = WindowTable.open(options.collection)
    found = Collection(rows, model_for(rows.spec, options)).verify(sample=options.sample)
    if options.json:
        print_json(dataclasses.asdict(found))
    else:
        for problem in found.problems:
            print_error(problem)
        print_line(
            f"{options.collection}: {found.checked} recordings encoded anew, lowest cosine "
            f"{found.lowest_cosine:.6f}, {len(found.problems)} problems"
        )
    return int(bool(found.problems))


def _export(options: argparse.Namespace) -> int:
    rows = _open(options).export(options.output, options.where)
    if options.json:
        print_json({"output": options.output, "rows": rows})
    else:
        print_line(f"{options.output}: {rows} rows")
    return 0


RUNS: dict[str, Callable[[argparse.Namespace], int]] = {
    "index": _index,
    "search": _search,
    "collection info": _info,
    "collection list": _list,
    "collection failures": _failures,
    "collection prune": _prune,
    "collection verify": _verify,
    "collection export": _export,
}


def _open(options: argparse.Namespace) -> Collection:
    from qwen_audio.collection.collection import Collection

    return Collection.open(options.collection)


def _add_collections(
    commands: Any,
    runs: Mapping[str, CommandFunction],
    model: argparse.ArgumentParser,
    compute: argparse.ArgumentParser,
    asking: argparse.ArgumentParser,
) -> None:
    """index, search, and collection with commands of its own."""

    def command(to: Any, run: str, text: str, *parents: argparse.ArgumentParser) -> Any:
        return add_command(to, runs[run], run.rpartition(" ")[2], text, *parents)

    index = command(
        commands, "index", "Fill a collection with windows of recordings.", model, compute, asking
    )
    index.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="folders, files, patterns, manifests (.csv, .jsonl) or addresses (s3://, hf://)",
    )
    index.add_argument("--into", required=True, metavar="C.lance", help="made if it isn't there")
    for name, text in {
        "tap": "see `qwen-audio taps` (default: audio_tower)",
        "pooling": "mean (default), max, mean+std or last",
        "span": "rows to pool: audio (default); at lm taps also prompt, last or all",
    }.items():
        index.add_argument(f"--{name}", help=text)
    add_windows(index, default_seconds=10)
    index.add_argument(
        "--describe", action="store_true", default=None, help="also caption every window"
    )
    index.add_argument("--float32", action="store_true", help="vectors (default: float16)")
    index.add_argument("--retry", action="store_true", help="also what failed and hasn't changed")

    search = command(
        commands, "search", "Find windows by sound, by words, or by one of them.", model, compute
    )
    search.add_argument("collection", metavar="C.lance")
    query = search.add_mutually_exclusive_group(required=True)
    query.add_argument("--audio", metavar="FILE", help="what sounds like this")
    query.add_argument("--text", metavar="WORDS", help="whose caption holds these words")
    query.add_argument("--id", metavar="SOURCE[#N]", help="what sounds like this window of it")
    search.add_argument("--where", metavar="SQL", help='such as "duration_seconds > 5"')
    search.add_argument("--limit", type=int, default=10, metavar="N", help="(default: 10)")
    search.add_argument("--exact", action="store_true", help="compare all, index or not")

    text = "Look after a collection."
    group = commands.add_parser("collection", help=text, description=text, allow_abbrev=False)
    actions = group.add_subparsers(title="actions", required=True, metavar="ACTION")
    where = options_parser()
    where.add_argument("collection", metavar="C.lance")
    where.add_argument("--json", action="store_true", help="one JSON object a line, for machines")
    command(actions, "collection info", "What it holds, and how it was made.", where)
    listing = command(actions, "collection list", "Its recordings.", where)
    listing.add_argument("--where", metavar="SQL", help='such as "duration_seconds > 5"')
    command(actions, "collection failures", "What could not be heard, and why.", where)
    command(actions, "collection prune", "Delete rows of recordings that are gone.", where)
    verify = command(
        actions, "collection verify", "Encode a sample anew and compare.", where, compute
    )
    verify.add_argument("--sample", type=int, default=20, metavar="N", help="(default: 20)")
    export = command(actions, "collection export", "Write it elsewhere.", where)
    export.add_argument("--where", metavar="SQL", help='such as "duration_seconds > 5"')
    export.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help=".parquet, .npz, or a folder for a Hugging Face dataset",
    )
