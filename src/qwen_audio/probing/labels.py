"""Labels: which recordings, what is true of each, and which of them belong together; checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_audio.audio.manifest import MANIFEST_SUFFIXES, read_manifest, source_from_row
from qwen_audio.audio.source import ColumnValue, Source
from qwen_audio.audio.source_listing import AUDIO_SUFFIX
from qwen_audio.errors import OptionError

__all__ = ["LabelRows", "Labels", "Target", "read_labels"]

GROUP, SPLIT, CLASS = "group", "split", "class"
"""Columns that are taken for what they are called, and the one that class folders make."""

_KINDS = ("numbers", "true or false", "names")

LabelRows = str | Path | Iterable[Mapping[str, ColumnValue]]


@dataclass(frozen=True)
class Target:
    """What is to be read off.

    Attributes:
        values: one a recording; None where it has no such label. Text, or numbers if `numeric`.
        numeric: a quantity, to be estimated, rather than classes, to be told apart.
    """

    name: str
    values: tuple[str | float | None, ...]
    numeric: bool

    @property
    def labelled(self) -> int:
        """How many recordings have this label."""
        return sum(value is not None for value in self.values)


@dataclass(frozen=True)
class Labels:
    """Recordings and what is true of them.

    Attributes:
        groups: recordings of one group are never both trained on and tested.
        splits: train or test, or the name of a fold, for each recording; None: not given.
        skipped: files among the recordings that are not audio.
    """

    sources: tuple[Source, ...]
    groups: tuple[str, ...]
    splits: tuple[str, ...] | None
    targets: tuple[Target, ...]
    skipped: tuple[str, ...] = ()

    def only(self, kept: Sequence[int]) -> Labels:
        """The same of some of the recordings."""
        return Labels(
            tuple(self.sources[k] for k in kept),
            tuple(self.groups[k] for k in kept),
            self.splits and tuple(self.splits[k] for k in kept),
            tuple(
                Target(target.name, tuple(target.values[k] for k in kept), target.numeric)
                for target in self.targets
            ),
            self.skipped,
        )


def read_labels(
    labels: LabelRows,
    *,
    targets: Sequence[str] | None = None,
    classes: Sequence[str] = (),
    group: str | None = None,
    split: str | None = None,
) -> Labels:
    """From a manifest, a folder of one folder a class, or rows.

    Args:
        labels: a .csv, .tsv or .jsonl, or rows, with a column `source` (or as `sources` names it);
            or a folder, each of whose folders is a class, in the target "class".
        targets: columns to read off; by default all but the group's and the split's.
        classes: columns whose numbers are names. Of the others those that hold numbers, more than
            two different ones, are quantities.
        group: a column; by default "group", or else each recording is its own.
        split: a column; by default "split" if there is one.

    Raises:
        OptionError: for what is no manifest, and for labels that can't be learnt from: missing,
            mixed in type, or not finite.
    """
    sources, skipped = _sources(labels)
    _check_each_once(sources)
    columns = list(dict.fromkeys(name for source in sources for name in source.extra))
    for name in (group, split, *(targets or ()), *classes):
        if name is not None and name not in columns:
            raise OptionError(f"no column {name!r}: there are {', '.join(columns) or 'none'}")
    group = group or (GROUP if GROUP in columns else None)
    split = split or (SPLIT if SPLIT in columns else None)
    names = list(dict.fromkeys(targets or [c for c in columns if c not in (group, split)]))
    if unused := [name for name in classes if name not in names]:
        raise OptionError(f"classes={unused[0]!r} is not among what is probed: {', '.join(names)}")
    if not names:
        raise OptionError("no labels: give a column beside the one that names the recordings")
    return Labels(
        tuple(sources),
        tuple(_texts(sources, group) if group else (source.uri for source in sources)),
        tuple(_texts(sources, split)) if split else None,
        tuple(_target(name, sources, name in classes) for name in names),
        tuple(skipped),
    )


def _sources(labels: LabelRows) -> tuple[list[Source], list[str]]:
    if not isinstance(labels, str | Path):
        if isinstance(labels, Mapping) or not isinstance(labels, Iterable):
            raise OptionError(
                f"labels of type {type(labels).__name__}: give a manifest, a folder, or a list of "
                "rows such as [{'source': 'a.wav', 'genre': 'jazz'}]"
            )
        rows = [
            source_from_row(row, Path(), f"row {number}")
            for number, row in enumerate(labels, start=1)
        ]
        if not rows:
            raise OptionError("no rows: expected one a recording")
        return rows, []
    path = Path(labels)
    if path.is_dir():
        return _class_folders(path)
    if not path.is_file():
        raise OptionError(f"{path} isn't there: give a manifest or a folder of class folders")
    if path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise OptionError(f"{path} is no manifest: it ends in {', '.join(MANIFEST_SUFFIXES)}")
    return list(read_manifest(path)), []


def _class_folders(folder: Path) -> tuple[list[Source], list[str]]:
    sources, skipped = [], []
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts):
            continue  # what a system keeps for itself
        if not AUDIO_SUFFIX.fullmatch(path.suffix):
            skipped.append(str(path))
        elif len(parts) == 1:
            raise OptionError(f"{path} lies in no class folder: expected {folder}/CLASS/{parts[0]}")
        else:
            sources.append(Source.from_path(path, {CLASS: parts[0]}))
    if not sources:
        raise OptionError(f"{folder} holds no class folders with audio, and is no manifest")
    return sources, skipped


def _check_each_once(sources: Sequence[Source]) -> None:
    seen: dict[str, int] = {}
    for number, source in enumerate(sources, start=1):
        if source.uri in seen:
            raise OptionError(
                f"{source.uri} is named in rows {seen[source.uri]} and {number}: give one row a "
                "recording (cut it, to label its parts)"
            )
        seen[source.uri] = number


def _texts(sources: Sequence[Source], column: str) -> Iterable[str]:
    for source in sources:
        value = source.extra.get(column)
        if value is None or value == "":
            raise OptionError(f"{source.uri} has no {column!r}: fill every row of that column")
        yield str(value)


def _target(name: str, sources: Sequence[Source], named: bool) -> Target:
    values: list[ColumnValue] = []
    for source in sources:
        value = source.extra.get(name)
        if isinstance(value, float) and not math.isfinite(value):
            raise OptionError(
                f"{source.uri} has the {name} {value}: leave the cell empty (in rows: None) where "
                "there is no label"
            )
        values.append(None if value == "" else value)
    known = [value for value in values if value is not None]
    if not known:
        raise OptionError(f"no recording has a label {name!r}")
    first = {_kind(value): value for value in reversed(known)}
    if len(first) > 1 and not named:
        mixed = " and ".join(f"{kind} ({first[kind]!r})" for kind in _KINDS if kind in first)
        raise OptionError(
            f"{name} mixes {mixed}: make them one kind, "
            f"or have all taken for names with classes=[{name!r}] (--classes {name})"
        )
    distinct = set(known)
    if len(distinct) == 1:
        raise OptionError(
            f"{name} is {str(known[0])!r} for every recording, which leaves nothing to tell apart: "
            "add recordings of another, or probe other columns (targets, --target)"
        )
    if "numbers" in first and len(distinct) > 2 and not named:
        return Target(name, tuple(None if v is None else float(v) for v in values), True)
    return Target(name, tuple(None if v is None else str(v) for v in values), False)


def _kind(value: ColumnValue) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "numbers" if isinstance(value, int | float) else "names"
