"""`qwen-audio index`: fill a collection with windows of recordings."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from qwen_audio.audio.timecode import format_duration
from qwen_audio.errors import CollectionError, counted

from .checks import check_embedding_options, check_windows
from .console import (
    load_collection_model,
    load_model,
    print_error,
    print_json,
    print_line,
    report_failures,
)
from .inputs import add_input_options, find_inputs
from .options import (
    add_command,
    add_compute_options,
    add_model_options,
    add_prompt_option,
    add_track_option,
    add_window_options,
    load_settings,
    specified_options,
    window_settings,
)
from .progress import format_rate, recording_progress

if TYPE_CHECKING:
    from qwen_audio.audio.source_listing import SourceListing
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.progress import IndexProgress

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "index",
        run,
        "Add recordings to a collection, one row per window.",
        "Needs the extra [collections].",
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_track_option(parser)
    add_input_options(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="C.lance",
        help="the collection, which is created if it doesn't exist; also s3://…, gs://…, az://…",
    )
    parser.add_argument("--tap", help="see `qwen-audio taps` (default: audio_tower)")
    parser.add_argument("--pooling", help="mean (default), max, mean+std or last")
    parser.add_argument(
        "--span", help="rows to pool: audio (default); at lm taps also prompt, last or all"
    )
    add_window_options(parser, default_seconds=10)
    parser.add_argument(
        "--describe", action="store_true", default=None, help="also caption every window"
    )
    parser.add_argument(
        "--float32", action="store_true", help="store vectors in float32 (default: float16)"
    )
    _add_engine_options(parser)
    parser.add_argument(
        "--retry", action="store_true", help="also files that failed before and haven't changed"
    )
    parser.add_argument(
        "--known-failures",
        choices=("ok", "error"),
        default="error",
        help="whether files that failed before and haven't changed make the exit status 1 "
        "(default: error)",
    )


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        help="what encodes: this process (local, the default), or a Ray cluster (ray, needs the "
        "extra [ray])",
    )
    group.add_argument(
        "--ray-address",
        dest="address",
        metavar="HOST:PORT",
        help="the cluster, or auto for the one that this machine is part of (default: RAY_ADDRESS, "
        "or this machine alone)",
    )
    group.add_argument(
        "--workers", type=int, metavar="N", help="processes, each with a model (default: all CPUs)"
    )
    group.add_argument(
        "--cpus-per-worker", type=int, metavar="N", help="CPUs that each takes (default: 1)"
    )
    group.add_argument(
        "--gpus-per-worker",
        type=float,
        metavar="N",
        help="GPUs that each takes, such as 1 or 0.5 (default: 0)",
    )


def run(options: argparse.Namespace) -> int:
    """Index the recordings and print what was added, replaced, unchanged, skipped and failed."""
    settings = specified_options(
        tap=options.tap,
        pooling=options.pooling,
        span=options.span,
        prompt=options.prompt,
        **load_settings(options),
        **window_settings(options),
    )
    _check_options(options)
    listing = find_inputs(options)
    created = _create(options, settings, listing)
    collection = _open(options, settings) if created is None else created  # which is empty: false
    with recording_progress("index") as show:

        def report(progress: IndexProgress) -> None:
            notes = [f"{format_duration(progress.audio_seconds)} of audio"] * (
                options.engine == "ray"
            )
            notes += [f"{progress.failed} failed"] * bool(progress.failed)
            done, total = progress.done, progress.total
            show("index", done, total, "recordings", progress.audio_seconds, note=" · ".join(notes))

        try:
            summary = collection.index(
                listing, retry=options.retry, on_progress=report, **_engine_settings(options)
            )
        finally:
            is_dropped = created is not None and not len(created)
            if created is not None and is_dropped:  # the next try may have other settings
                created.drop()
    for source, reason in summary.failures.items():
        print_error(f"{reason} (known)" if source in summary.known_failures else reason)
    if is_dropped:
        print_error(f"nothing could be indexed, so {options.output} was not created")
    if options.json:
        print_json(dataclasses.asdict(summary))
    elif not is_dropped:
        updated = f"{summary.updated} updated, " if summary.updated else ""
        count = len(summary.known_failures)
        known = f" ({count} known from earlier runs)" if count else ""
        rate = ""
        if summary.audio_seconds:
            rate = f"; {_rate_text(summary.audio_seconds, summary.elapsed_seconds)}"
        print_line(
            f"{options.output}: {summary.added} added, {summary.replaced} replaced, {updated}"
            f"{summary.unchanged} unchanged, {len(summary.failures)} failed{known}; "
            f"{counted(summary.rows, 'row')}{rate}"
        )
    files = summary.added + summary.replaced + summary.updated + summary.unchanged
    failed = len(summary.failures)
    if options.known_failures == "ok":
        failed -= len(summary.known_failures)
    return report_failures(failed, files + len(summary.failures))


def _engine_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `Collection.index` that say where recordings are encoded."""
    names = ("engine", "address", "workers", "cpus_per_worker", "gpus_per_worker")
    return {name: getattr(options, name) for name in names}


def _check_options(options: argparse.Namespace) -> None:
    """Check what can be checked without knowing the collection's own settings.

    Raises:
        TapError, OptionError: for malformed or contradictory options.
    """
    from qwen_audio.collection.collection import DEFAULT_WINDOW_SECONDS
    from qwen_audio.collection.database import check_installed
    from qwen_audio.collection.engines.engine import open_engine
    from qwen_audio.collection.table import WindowTable
    from qwen_audio.inference.options import check_vector_pooling
    from qwen_audio.models.tap import Tap

    engine_settings = _engine_settings(options)
    open_engine(engine_settings.pop("engine"), **engine_settings)
    check_installed()
    if options.pooling is not None:
        check_vector_pooling(options.pooling, "window")
    if WindowTable.exists(options.output):  # whose settings are the defaults
        if options.tap is not None:
            Tap.parse(options.tap)
        if options.window is not None:
            check_windows(options, WindowTable.open(options.output).spec.model)
        return
    check_embedding_options(
        options.tap or "audio_tower",
        pooling=options.pooling or "mean",
        span=options.span or "audio",
        prompt=options.prompt,
    )
    check_windows(options, window_seconds=DEFAULT_WINDOW_SECONDS)


def _create(
    options: argparse.Namespace, settings: dict[str, Any], listing: SourceListing
) -> Collection | None:
    """A new collection, or None if it exists, even if another process has just created it."""
    from qwen_audio.collection.collection import DEFAULT_WINDOW_SECONDS, Collection
    from qwen_audio.collection.columns import plan_columns
    from qwen_audio.collection.table import WindowTable

    if WindowTable.exists(options.output):
        return None
    listing.check_available()  # before anything is written
    plan_columns(listing.sources)
    model = load_model(options)
    try:
        return Collection.create(
            options.output,
            model,
            describe=bool(options.describe),
            float32=options.float32,
            **{"window_seconds": DEFAULT_WINDOW_SECONDS, **settings},
        )
    except CollectionError:
        if not WindowTable.exists(options.output):
            raise
        return None


def _open(options: argparse.Namespace, settings: dict[str, Any]) -> Collection:
    """The existing collection.

    Raises:
        CollectionError: if its embedding spec differs from the settings, or it lacks captions.
    """
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.table import WindowTable

    table = WindowTable.open(options.output)
    model = load_collection_model(table.spec, options)
    requested = {**table.spec.options, **settings}
    if options.window is not None and options.hop is None:
        del requested["hop_seconds"]
    table.check(model.spec(**requested))
    if options.describe and not table.has_captions:
        raise CollectionError(
            f"{options.output} was made without captions, and stays so: make another collection"
        )
    return Collection(table, model)


def _rate_text(audio_seconds: float, elapsed_seconds: float) -> str:
    """Seconds of audio, the time they took, and the speed."""
    return (
        f"{format_duration(audio_seconds)} of audio in {format_duration(elapsed_seconds)} "
        f"({format_rate(audio_seconds, elapsed_seconds)})"
    )
