"""The commands about collections: index, search, and collection with its actions."""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CollectionError
from .terminal import bars, complain, load_model, report_failures, say, say_json

if TYPE_CHECKING:
    from .collection import Collection
    from .model import QwenAudio
    from .spec import Spec
    from .tally import IndexProgress

__all__ = ["RUNS", "model_for"]


def _index(options: argparse.Namespace) -> int:
    given = {
        "tap": options.tap,
        "pooling": options.pooling,
        "span": options.span,
        "prompt": options.prompt,
        "window_seconds": options.window,
        "hop_seconds": options.hop,
    }
    given = {name: value for name, value in given.items() if value is not None}
    collection = _made(options, given) or _opened(options, given)
    with bars() as show:

        def report(now: IndexProgress) -> None:
            if show is not None:
                settled = now.heard + now.unchanged + now.failed
                show("index", settled, now.total, _progress(now))

        done = collection.index(options.inputs, retry=options.retry, on_progress=report)
    for reason in done.failures.values():
        complain(reason)
    files = done.added + done.replaced + done.unchanged + len(done.failures)
    if options.json:
        say_json(dataclasses.asdict(done))
    else:
        pace = done.audio_seconds / max(done.elapsed_seconds, 1e-9)
        aside = f", passed over as no audio: {len(done.passed_over)}"
        say(
            f"{options.into}: {done.added} added, {done.replaced} replaced, {done.unchanged} "
            f"unchanged, {len(done.failures)} failed{aside if done.passed_over else ''}; "
            f"{done.rows} rows; {done.audio_seconds / 3600:.2f} h of audio in "
            f"{done.elapsed_seconds:.0f} s ({pace:.0f} h an hour)"
        )
    return report_failures(len(done.failures), files)


def _made(options: argparse.Namespace, given: dict[str, Any]) -> Collection | None:
    """A new collection; none where there is one, if only since a moment ago."""
    from .collection import WINDOW_OF_ROWS, Collection
    from .rows import Rows
    from .sources import find_sources

    if Rows.exists(options.into):
        return None
    find_sources(options.inputs)  # a name that means nothing shall leave nothing behind
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
    for row in _open(options).recordings(options.where):
        if options.json:
            say_json(row)
        else:
            caption = f": {row['caption']}" if row.get("caption") else ""
            windows = f"{row['windows']} window{'s' * (row['windows'] != 1)}"
            say(f"{row['source']}  {row['duration_seconds']:.1f} s, {windows}{caption}")
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
        say(f"{options.collection}: {len(gone)} recordings are gone, and so are their rows")
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
    meant.model = getattr(options, "model", None) or _model_of(spec.model)
    meant.dtype = options.dtype or spec.dtype
    meant.revision = getattr(options, "revision", None)
    if meant.revision is None and meant.model == spec.model and not Path(spec.model).exists():
        meant.revision = spec.revision
    return load_model(meant)


def _model_of(name: str) -> str | None:
    """None is the embedded one, of which a command says that nobody chose it."""
    return None if name == "embedded" else name


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON can hold it."""
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in row.items()
    }


def _progress(now: IndexProgress) -> str:
    """Hours of audio, hours an hour, and failures."""
    hours, pace = now.audio_seconds / 3600, now.audio_seconds / max(now.elapsed_seconds, 1e-9)
    return f"{hours:.2f} h of audio, {pace:.0f} h an hour, {now.failed} failed"
