"""The commands about collections: index, search, and collection with its actions."""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CollectionError
from .terminal import EMBEDDED, bars, complain, load_model, report_failures, say, say_json

if TYPE_CHECKING:
    from .collection import Collection
    from .model import QwenAudio
    from .sources import Found
    from .spec import Spec
    from .tally import IndexProgress

__all__ = ["RUNS", "model_for"]


def _index(options: argparse.Namespace) -> int:
    from .sources import find_sources

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
                settled = now.heard + now.unchanged + now.failed
                show("index", settled, now.total, _progress(now))

        done = collection.index(found, retry=options.retry, on_progress=report)
    if done.passed_over:
        complain(f"passed over, as no audio by their names: {_some(done.passed_over)}")
    for reason in done.failures.values():
        complain(reason)
    if options.json:
        say_json(dataclasses.asdict(done))
    else:
        updated = f"{done.updated} updated, " if done.updated else ""
        heard = ""
        if done.audio_seconds:
            heard = f"; {_hours(done.audio_seconds, done.elapsed_seconds)}"
        say(
            f"{options.into}: {done.added} added, {done.replaced} replaced, {updated}"
            f"{done.unchanged} unchanged, {len(done.failures)} failed; {done.rows} rows{heard}"
        )
    files = done.added + done.replaced + done.updated + done.unchanged + len(done.failures)
    return report_failures(len(done.failures), files)


def _made(options: argparse.Namespace, given: dict[str, Any], found: Found) -> Collection | None:
    """A new collection; none where there is one, if only since a moment ago."""
    from .collection import WINDOW_OF_ROWS, Collection
    from .rows import Rows

    if Rows.exists(options.into):
        return None
    found.check()  # names that mean nothing shall leave nothing behind
    model = load_model(options)
    try:
        return Collection.create(
            options.into,
            model,
            describe=bool(options.describe),
            float32=options.float32,
            **{"window_seconds": WINDOW_OF_ROWS, **given},
        )
    except CollectionError:
        if not Rows.exists(options.into):
            raise
        return None


def _opened(options: argparse.Namespace, given: dict[str, Any]) -> Collection:
    """What is there, if it was made as is asked for now."""
    from .collection import Collection
    from .rows import Rows

    rows = Rows.open(options.into)
    model = model_for(rows.spec, options)
    asked = {**rows.spec.options, **given}
    if options.window is not None and options.hop is None:
        del asked["hop_seconds"]
    rows.check(model.spec(**asked))  # what isn't said is as it was
    if options.describe and not rows.describes:
        raise CollectionError(
            f"{options.into} was made without captions, and stays so: make another collection"
        )
    return Collection(rows, model)


def _search(options: argparse.Namespace) -> int:
    from .collection import Collection
    from .rows import Rows

    rows = Rows.open(options.collection)
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
            say_json({"id": hit.id, "score": hit.score, **_plain(hit.columns)})
        else:
            say(str(hit))
    if not hits:
        complain(f"nothing found among {rows.count()} windows")
        if options.json:
            say_json([])
    return 0


def _info(options: argparse.Namespace) -> int:
    found = dataclasses.asdict(_open(options).info())
    if options.json:
        say_json(found)
        return 0
    spec = found.pop("spec")
    for name, value in {**found, **{f"spec.{name}": value for name, value in spec.items()}}.items():
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        say(f"{name.replace('_', ' '):20} {shown}")
    return 0


def _list(options: argparse.Namespace) -> int:
    from .audio import Window

    for row in _open(options).recordings(options.where):
        if options.json:
            say_json(row)
        else:
            said = row["captions"]
            caption = f": {said[0]['caption']}" if len(said) == 1 else ""
            windows = f"{row['windows']} window{'s' * (row['windows'] != 1)}"
            say(f"{row['source']}  {row['duration_seconds']:.1f} s, {windows}{caption}")
            for one in said[1:] and said:
                say(f"  {Window(one['start_seconds'], one['end_seconds'])}  {one['caption']}")
    return 0


def _failures(options: argparse.Namespace) -> int:
    for row in _open(options).failures():
        if options.json:
            say_json(_plain(row))
        else:
            say(row["reason"])
    return 0


def _prune(options: argparse.Namespace) -> int:
    gone = _open(options).prune()
    if options.json:
        say_json({"pruned": gone})
    else:
        are = "recording is" if len(gone) == 1 else "recordings are"
        say(f"{options.collection}: {len(gone)} {are} gone, and so are their rows")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from .collection import Collection
    from .rows import Rows

    rows = Rows.open(options.collection)
    found = Collection(rows, model_for(rows.spec, options)).verify(sample=options.sample)
    if options.json:
        say_json(dataclasses.asdict(found))
    else:
        for problem in found.problems:
            complain(problem)
        say(
            f"{options.collection}: {found.checked} recordings encoded anew, lowest cosine "
            f"{found.lowest_cosine:.6f}, {len(found.problems)} problems"
        )
    return int(bool(found.problems))


def _export(options: argparse.Namespace) -> int:
    rows = _open(options).export(options.output, options.where)
    if options.json:
        say_json({"output": options.output, "rows": rows})
    else:
        say(f"{options.output}: {rows} rows")
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
    from .collection import Collection

    return Collection.open(options.collection)


def model_for(spec: Spec, options: argparse.Namespace) -> QwenAudio:
    """The model that made a collection, in the numbers it was made in, unless told otherwise."""
    meant = copy.copy(options)
    meant.model = getattr(options, "model", None) or spec.model
    meant.dtype = options.dtype or spec.dtype
    meant.revision = getattr(options, "revision", None)
    local = meant.model == EMBEDDED or Path(meant.model).is_dir()
    if meant.revision is None and meant.model == spec.model and not local:
        meant.revision = spec.revision
    return load_model(meant)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON can hold it."""
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in row.items()
    }


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
