"""`qwen-audio collection`: info, list, failures, prune, remove, verify and export."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import check_extra, counted

from .console import load_collection_model, print_error, print_json, print_line
from .inputs import add_from_file_option, input_names
from .options import (
    CommandFunction,
    add_adapter_option,
    add_collection_argument,
    add_command,
    add_compute_options,
    add_json_option,
    add_where_option,
)
from .progress import progress_bars, working_on

if TYPE_CHECKING:
    from qwen_audio.collection.collection import Collection

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command and its actions."""
    summary = "Inspect and maintain a collection."
    group = subparsers.add_parser(
        "collection",
        help=summary,
        description=f"{summary} Needs the extra [collections].",
        allow_abbrev=False,
    )
    actions = group.add_subparsers(title="actions", required=True, metavar="ACTION")

    def action(name: str, run: CommandFunction, summary: str) -> argparse.ArgumentParser:
        parser = add_command(actions, name, run, summary)
        add_collection_argument(parser)
        add_json_option(parser)
        return parser

    action("info", run_info, "Show its size, columns, indices and embedding spec.")
    add_where_option(action("list", run_list, "List its recordings, with captions."))
    action("failures", run_failures, "List recordings that can't be decoded, and why.")
    action("prune", run_prune, "Delete the rows of recordings that no longer exist.")
    remove = action("remove", run_remove, "Delete the rows of recordings.")
    remove.add_argument(
        "inputs", nargs="*", metavar="SOURCE", help="as `list` shows it; @LIST: those of a list"
    )
    add_from_file_option(remove)
    verify = action("verify", run_verify, "Encode a sample again and compare.")
    add_adapter_option(verify)
    add_compute_options(verify)
    verify.add_argument(
        "--sample", type=int, default=20, metavar="N", help="recordings (default: 20)"
    )
    export = action("export", run_export, "Write its rows in another format.")
    add_where_option(export)
    export.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help=".parquet, .npz, or a folder for a Hugging Face dataset (extra [datasets])",
    )


def run_info(options: argparse.Namespace) -> int:
    """Print the collection's statistics and embedding spec."""
    info = dataclasses.asdict(_open(options).info())
    if options.json:
        print_json(info)
        return 0
    spec = info.pop("spec")
    for name, value in {**info, **{f"spec.{name}": value for name, value in spec.items()}}.items():
        text = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        print_line(f"{name.replace('_', ' '):20} {text}")
    return 0


def run_list(options: argparse.Namespace) -> int:
    """Print the recordings, each with its windows' captions."""
    from qwen_audio.audio.window import Window

    for recording in _open(options).recordings(options.where):
        if options.json:
            print_json(recording)
            continue
        captions = recording["captions"]
        caption = f": {captions[0]['caption']}" if len(captions) == 1 else ""
        windows = counted(recording["windows"], "window")
        print_line(
            f"{recording['source']}  {recording['duration_seconds']:.1f} s, {windows}{caption}"
        )
        if len(captions) > 1:
            for row in captions:
                window = Window(row["start_seconds"], row["end_seconds"])
                print_line(f"  {window}  {row['caption']}")
    return 0


def run_failures(options: argparse.Namespace) -> int:
    """Print the recordings that couldn't be decoded, and why."""
    from qwen_audio.analysis.files import json_value

    for row in _open(options).failures():
        if options.json:
            print_json({name: json_value(value) for name, value in row.items()})
        else:
            print_line(row["reason"])
    return 0


def run_prune(options: argparse.Namespace) -> int:
    """Delete the rows of recordings that no longer exist."""
    collection = _open(options)
    with working_on("looking for the recordings"):
        pruned = collection.prune()
    if options.json:
        print_json({"pruned": pruned})
    else:
        recordings = counted(len(pruned), "recording")
        print_line(f"{options.collection}: deleted the rows of {recordings} that no longer exist")
    return 0


def run_remove(options: argparse.Namespace) -> int:
    """Delete the rows of recordings."""
    sources = input_names(options)
    rows = _open(options).remove(sources)
    if options.json:
        print_json({"removed": sources, "rows": rows})
    else:
        recordings = counted(len(sources), "recording")
        print_line(f"{options.collection}: deleted {counted(rows, 'row')} of {recordings}")
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """Encode a sample again and compare; exit status 1 if there are problems."""
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.table import WindowTable
    from qwen_audio.collection.verification import check_sample

    check_sample(options.sample)
    table = WindowTable.open(options.collection)
    model = load_collection_model(table.spec, options)
    with progress_bars() as show:
        report = Collection(table, model).verify(
            sample=options.sample,
            on_progress=show,
        )
    if options.json:
        print_json(dataclasses.asdict(report))
    else:
        for problem in report.problems:
            print_error(problem)
        print_line(
            f"{options.collection}: {counted(report.checked, 'recording')} encoded again, lowest "
            f"cosine {report.lowest_cosine:.6f}, {counted(len(report.problems), 'problem')}"
        )
    return int(bool(report.problems))


def run_export(options: argparse.Namespace) -> int:
    """Write the rows in another format."""
    if not PurePath(options.output).suffix:
        check_extra("a dataset's folder", "datasets", "lancedb", "pyarrow", "datasets")
    collection = _open(options)
    with progress_bars() as show:
        rows = collection.export(options.output, options.where, show)
    if options.json:
        print_json({"output": options.output, "rows": rows})
    else:
        print_line(f"{options.output}: {counted(rows, 'row')}")
    return 0


def _open(options: argparse.Namespace) -> Collection:
    from qwen_audio.collection.collection import Collection

    return Collection.open(options.collection)
