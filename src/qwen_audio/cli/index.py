"""`qwen-audio index`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import CollectionError

from .console import (
    bars,
    load_model,
    model_for,
    print_error,
    print_json,
    print_line,
    report_failures,
)

if TYPE_CHECKING:
    from qwen_audio.audio.source_listing import SourceListing
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.progress import IndexProgress


def _index(options: argparse.Namespace) -> int:
    from qwen_audio.audio.source_listing import find_sources

    given = {
        "tap": options.tap,
        "pooling": options.pooling,
        "span": options.span,
        "prompt": options.prompt,
        "window_seconds": options.window,
        "hop_seconds": options.hop,
    }
    given = {name: value for name, value in given.items() if value is not None}
    found = find_sources(options.inputs)
    collection = _made(options, given, found)
    if collection is None:
        collection = _opened(options, given)
    with bars() as show:

        def report(now: IndexProgress) -> None:
            if show is not None:
                settled = now.encoded + now.unchanged + now.failed
                show("index", settled, now.total, _progress(now))

        done = collection.index(found, retry=options.retry, on_progress=report)
    if done.skipped:
        print_error(f"skipped (not audio): {_some(done.skipped)}")
    for reason in done.failures.values():
        print_error(reason)
    if options.json:
        print_json(dataclasses.asdict(done))
    else:
        updated = f"{done.updated} updated, " if done.updated else ""
        heard = ""
        if done.audio_seconds:
            heard = f"; {_hours(done.audio_seconds, done.elapsed_seconds)}"
        print_line(
            f"{options.into}: {done.added} added, {done.replaced} replaced, {updated}"
            f"{done.unchanged} unchanged, {len(done.failures)} failed; {done.rows} rows{heard}"
        )
    files = done.added + done.replaced + done.updated + done.unchanged + len(done.failures)
    return report_failures(len(done.failures), files)


def _made(
    options: argparse.Namespace, given: dict[str, Any], found: SourceListing
) -> Collection | None:
    """A new collection; none where there is one, if only since a moment ago."""
    from qwen_audio.collection.collection import DEFAULT_WINDOW_SECONDS, Collection
    from qwen_audio.collection.table import WindowTable

    if WindowTable.exists(options.into):
        return None
    found.check_available()  # names that mean nothing shall leave nothing behind
    model = load_model(options)
    try:
        return Collection.create(
            options.into,
            model,
            describe=bool(options.describe),
            float32=options.float32,
            **{"window_seconds": DEFAULT_WINDOW_SECONDS, **given},
        )
    except CollectionError:
        if not WindowTable.exists(options.into):
            raise
        return None


def _opened(options: argparse.Namespace, given: dict[str, Any]) -> Collection:
    """What is there, if it was made as is asked for now."""
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.table import WindowTable

    rows = WindowTable.open(options.into)
    model = model_for(rows.spec, options)
    asked = {**rows.spec.options, **given}
    if options.window is not None and options.hop is None:
        del asked["hop_seconds"]
    rows.check(model.spec(**asked))  # what isn't said is as it was
    if options.describe and not rows.has_captions:
        raise CollectionError(
            f"{options.into} was made without captions, and stays so: make another collection"
        )
    return Collection(rows, model)


def _some(names: Sequence[str], shown: int = 3) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _progress(now: IndexProgress) -> str:
    """Beside the bar: how much was heard, how fast, and failures."""
    return f"{_hours(now.audio_seconds, now.elapsed_seconds)}, {now.failed} failed"


def _hours(audio_seconds: float, elapsed_seconds: float) -> str:
    """How much audio in which time, and the hours of audio an hour."""
    pace = audio_seconds / max(elapsed_seconds, 1e-9)
    return (
        f"{_duration(audio_seconds)} of audio in {_duration(elapsed_seconds)} "
        f"({pace:.{0 if pace >= 10 else 1}f} h an hour)"
    )


def _duration(seconds: float) -> str:
    """5.2 s, 45 s, 7.5 min, 3.2 h."""
    if seconds < 60:
        number, unit = seconds, "s"
    elif seconds < 3600:
        number, unit = seconds / 60, "min"
    else:
        number, unit = seconds / 3600, "h"
    return f"{number:.{0 if number >= 10 else 1}f} {unit}"
