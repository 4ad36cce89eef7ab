"""Labelled recordings from manifests, class folders or rows: targets, groups and splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_audio.audio.manifest import (
    LOCATION_COLUMNS,
    MANIFEST_SUFFIXES,
    manifest_rows,
    source_from_row,
)
from qwen_audio.audio.source import Source
from qwen_audio.audio.source_listing import AUDIO_SUFFIX, files_below
from qwen_audio.errors import OptionError
from qwen_audio.paths import is_file, is_folder, path_to_text, printable

from .targets import Cell, Target, check_tasks, make_target

__all__ = ["LabelledDataset", "LabelsInput", "read_labels"]

_GROUP, _SPLIT, _CLASS = "group", "split", "class"
"""Default columns of groups and splits; target name of class folders."""

LabelsInput = str | Path | Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class LabelledDataset:
    """Recordings with their targets, groups and splits.

    Attributes:
        groups: one per recording; a group is never both trained on and tested.
        splits: "train" or "test", or the name of a fold, for each recording; None if not given.
        problems: of the columns that can't be targets, by name.
        skipped: files in class folders that are not audio.
    """

    sources: tuple[Source, ...]
    groups: tuple[str, ...]
    splits: tuple[str, ...] | None
    targets: tuple[Target, ...]
    problems: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    @property
    def reasons(self) -> list[str]:
        """A line for each column whose task was chosen by its values."""
        return [f"{target.name}: {target.reason}" for target in self.targets if target.reason]

    def subset(self, indices: Sequence[int]) -> LabelledDataset:
        """Some of the recordings, by their indices."""
        return LabelledDataset(
            tuple(self.sources[k] for k in indices),
            tuple(self.groups[k] for k in indices),
            self.splits and tuple(self.splits[k] for k in indices),
            tuple(target.subset(indices) for target in self.targets),
            self.problems,
            self.skipped,
        )


@dataclass(frozen=True)
class _Row:
    """A recording and its columns."""

    source: Source
    cells: Mapping[str, Cell]


def read_labels(
    labels: LabelsInput,
    *,
    targets: Sequence[str] | None = None,
    tasks: Mapping[str, str] | None = None,
    group: str | None = None,
    split: str | None = None,
) -> LabelledDataset:
    """Read a manifest, a folder with one folder per class, or rows.

    Columns whose values can't be a target are `problems` of the result: `make_tasks` raises them
    with those that are found later.

    Args:
        labels: a .csv, .tsv or .jsonl file, or rows, with a column `source` (or another that names
            recordings in manifests); or a folder whose folders are the classes of a target "class".
        targets: columns to predict; by default all but the group's and the split's.
        tasks: "classes", "quantity" or "labels", by column; others are chosen by their values.
        group: a column; by default "group" if there is one, else each recording is its own group.
        split: a column; by default "split" if there is one.

    Raises:
        OptionError: for anything else.
    """
    task_of = check_tasks(tasks)
    if isinstance(targets, str):
        raise OptionError(f"targets={targets!r}: give a list, such as [{targets!r}]")
    rows, skipped = _read_rows(labels)
    _check_unique([row.source for row in rows])
    columns = list(dict.fromkeys(name for row in rows for name in row.cells))
    wanted = [name for name in (group, split, *(targets or ()), *task_of) if name is not None]
    if unknown := [repr(name) for name in dict.fromkeys(wanted) if name not in columns]:
        raise OptionError(
            f"no column{'s' * (len(unknown) > 1)} {', '.join(unknown)}: there are "
            f"{', '.join(columns) or 'none'}"
        )
    group = group or (_GROUP if _GROUP in columns else None)
    split = split or (_SPLIT if _SPLIT in columns else None)
    names = list(dict.fromkeys(targets or [c for c in columns if c not in (group, split)]))
    if unused := [name for name in task_of if name not in names]:
        raise OptionError(
            f"{unused[0]!r} has a task, but is not among the targets: {', '.join(names)}"
        )
    if not names:
        raise OptionError("no labels: add a column beside the one that names the recordings")
    uris = tuple(row.source.uri for row in rows)
    is_text = isinstance(labels, str | Path) and Path(labels).suffix.lower() in (".csv", ".tsv")
    found: list[Target] = []
    problems: dict[str, str] = {}
    for name in names:
        cells = [row.cells.get(name) for row in rows]
        try:
            found.append(make_target(name, cells, uris, task_of.get(name), is_text=is_text))
        except OptionError as error:
            problems[name] = str(error)
    return LabelledDataset(
        tuple(row.source for row in rows),
        tuple(_text_column(rows, group)) if group else uris,
        tuple(_text_column(rows, split)) if split else None,
        tuple(found),
        problems,
        tuple(skipped),
    )


def _read_rows(labels: LabelsInput) -> tuple[list[_Row], list[str]]:
    """The rows, and the files in class folders that are not audio."""
    if not isinstance(labels, str | Path):
        if isinstance(labels, Mapping) or not isinstance(labels, Iterable):
            raise OptionError(
                f"labels of type {type(labels).__name__}: give a manifest, a folder, or a list of "
                "rows such as [{'source': 'a.wav', 'genre': 'jazz'}]"
            )
        rows = [_row(row, Path(), f"row {n}") for n, row in enumerate(_plain_rows(labels), start=1)]
        if not rows:
            raise OptionError("no rows: give one row per recording")
        return rows, []
    path = Path(labels)
    if is_folder(path):
        sources, skipped = _class_folders(path)
        return [_Row(source, source.extra) for source in sources], skipped
    if not is_file(path):
        raise OptionError(f"{path} doesn't exist: give a manifest or a folder of class folders")
    if path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise OptionError(f"{path} is not a manifest: use {', '.join(MANIFEST_SUFFIXES)}")
    return [_row(row, path.parent, place) for place, row in manifest_rows(path)], []


def _plain_rows(labels: Any) -> Iterator[Any]:
    """The rows of a data frame or a Hugging Face dataset as plain ones; others as they are.

    Missing values of a data frame are None; numbers that a dataset has class names for are these.
    """
    if hasattr(labels, "itertuples"):
        yield from labels.astype(object).where(labels.notna(), None).to_dict("records")
        return
    names = {
        column: feature.names
        for column, feature in (getattr(labels, "features", None) or {}).items()
        if hasattr(feature, "int2str")  # a ClassLabel
    }
    for row in labels:
        if names and isinstance(row, Mapping):
            named = {c: names[c][row[c]] for c in names if row.get(c) is not None and row[c] >= 0}
            yield {**row, **dict.fromkeys(names), **named}
        else:
            yield row


def _row(row: Any, folder: Path, place: str) -> _Row:
    """A row, whose lists of labels are tuples. Raises OptionError as `source_from_row` does."""
    lists: dict[str, Cell] = {}
    if isinstance(row, Mapping):
        lists = {
            name: tuple(value)
            for name, value in row.items()
            if name not in LOCATION_COLUMNS
            and (isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1)
        }
    source = source_from_row(
        {name: value for name, value in row.items() if name not in lists} if lists else row,
        folder,
        place,
    )
    cells = {**source.extra, **lists}
    return _Row(source, {name: cells[name] for name in row if name in cells})


def _class_folders(folder: Path) -> tuple[list[Source], list[str]]:
    sources: list[Source] = []
    skipped: list[str] = []
    files, unlisted, linked = files_below(folder)
    skipped += [path_to_text(str(path)) for path in linked]
    if unlisted:
        raise OptionError(f"{unlisted[0]} can't be listed: check its permissions")
    for path in files:
        parts = path.relative_to(folder).parts
        if not AUDIO_SUFFIX.fullmatch(path.suffix):
            skipped.append(path_to_text(str(path)))
        elif len(parts) == 1:
            raise OptionError(
                f"{path} is not in a class folder: move it to {folder}/CLASS/{parts[0]}"
            )
        else:
            sources.append(Source.from_path(path, {_CLASS: printable(parts[0])}))
    if not sources:
        raise OptionError(
            f"{folder} has no class folders with audio: give one folder per class, or a manifest"
        )
    return sources, skipped


def _check_unique(sources: Sequence[Source]) -> None:
    counts = Counter(source.uri for source in sources)
    repeated = [uri for uri, count in counts.items() if count > 1]
    if repeated:
        uri = repeated[0]
        first, second = [k for k, source in enumerate(sources, 1) if source.uri == uri][:2]
        others = len(repeated) - 1
        more = f", and {others} other{'s' * (others > 1)} more than once" if others else ""
        raise OptionError(
            f"{uri} is named in rows {first} and {second}{more}: give one row per recording, with "
            "several labels in one cell, such as jazz;piano (to label parts of it, cut it into "
            "files)"
        )


def _text_column(rows: Sequence[_Row], column: str) -> Iterable[str]:
    for row in rows:
        value = row.cells.get(column)
        if value is None or value == "":
            raise OptionError(
                f"{row.source.uri} has no {column!r}: fill in that column in every row"
            )
        yield str(value)
