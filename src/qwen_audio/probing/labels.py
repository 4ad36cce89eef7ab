"""Labelled recordings from manifests, class folders or rows: targets, groups and splits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_audio.audio.manifest import MANIFEST_SUFFIXES, read_manifest, source_from_row
from qwen_audio.audio.source import ColumnValue, Source
from qwen_audio.audio.source_listing import AUDIO_SUFFIX, files_below
from qwen_audio.errors import OptionError
from qwen_audio.paths import is_file, is_folder, path_to_text, printable

__all__ = ["LabelledDataset", "LabelsInput", "Target", "read_labels"]

_GROUP, _SPLIT, _CLASS = "group", "split", "class"
"""Default columns of groups and splits; target name of class folders."""

_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
_VALUE_TYPES = ("numbers", "true or false", "names")

LabelsInput = str | Path | Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Target:
    """One column of labels to predict.

    Attributes:
        values: one per recording: text for classes, numbers for a quantity, None without a label.
        numeric: whether it is a quantity (regression) rather than classes (classification).
    """

    name: str
    values: tuple[str | float | None, ...]
    numeric: bool

    @property
    def labelled_count(self) -> int:
        """Number of recordings with this label."""
        return sum(value is not None for value in self.values)


@dataclass(frozen=True)
class LabelledDataset:
    """Recordings with their targets, groups and splits.

    Attributes:
        groups: one per recording; a group is never both trained on and tested.
        splits: "train" or "test", or the name of a fold, for each recording; None if not given.
        skipped: files in class folders that are not audio.
    """

    sources: tuple[Source, ...]
    groups: tuple[str, ...]
    splits: tuple[str, ...] | None
    targets: tuple[Target, ...]
    skipped: tuple[str, ...] = ()

    def subset(self, indices: Sequence[int]) -> LabelledDataset:
        """Some of the recordings, by their indices."""
        return LabelledDataset(
            tuple(self.sources[k] for k in indices),
            tuple(self.groups[k] for k in indices),
            self.splits and tuple(self.splits[k] for k in indices),
            tuple(
                Target(target.name, tuple(target.values[k] for k in indices), target.numeric)
                for target in self.targets
            ),
            self.skipped,
        )


def read_labels(
    labels: LabelsInput,
    *,
    targets: Sequence[str] | None = None,
    classes: Sequence[str] = (),
    group: str | None = None,
    split: str | None = None,
) -> LabelledDataset:
    """Read a manifest, a folder with one folder per class, or rows.

    Args:
        labels: a .csv, .tsv or .jsonl file, or rows, with a column `source` (or another that names
            recordings in manifests); or a folder whose folders are the classes of a target "class".
        targets: columns to predict; by default all but the group's and the split's.
        classes: columns whose numbers are class names. Any other column with more than two
            different numbers is a quantity.
        group: a column; by default "group" if there is one, else each recording is its own group.
        split: a column; by default "split" if there is one.

    Raises:
        OptionError: for anything else, and for labels that can't be fitted: none, of mixed types,
            all equal, or not finite.
    """
    sources, skipped = _sources(labels)
    has_typed_cells = not str(labels).lower().endswith((".csv", ".tsv"))
    _check_unique(sources)
    columns = list(dict.fromkeys(name for source in sources for name in source.extra))
    for name in (group, split, *(targets or ()), *classes):
        if name is not None and name not in columns:
            raise OptionError(f"no column {name!r}: there are {', '.join(columns) or 'none'}")
    group = group or (_GROUP if _GROUP in columns else None)
    split = split or (_SPLIT if _SPLIT in columns else None)
    names = list(dict.fromkeys(targets or [c for c in columns if c not in (group, split)]))
    if unused := [name for name in classes if name not in names]:
        raise OptionError(f"classes={unused[0]!r} is not among the targets: {', '.join(names)}")
    if not names:
        raise OptionError("no labels: add a column beside the one that names the recordings")
    return LabelledDataset(
        tuple(sources),
        tuple(_text_column(sources, group) if group else (source.uri for source in sources)),
        tuple(_text_column(sources, split)) if split else None,
        tuple(_target(name, sources, name in classes, has_typed_cells) for name in names),
        tuple(skipped),
    )


def _sources(labels: LabelsInput) -> tuple[list[Source], list[str]]:
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
            raise OptionError("no rows: give one row per recording")
        return rows, []
    path = Path(labels)
    if is_folder(path):
        return _class_folders(path)
    if not is_file(path):
        raise OptionError(f"{path} doesn't exist: give a manifest or a folder of class folders")
    if path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise OptionError(f"{path} is not a manifest: use {', '.join(MANIFEST_SUFFIXES)}")
    return list(read_manifest(path)), []


def _class_folders(folder: Path) -> tuple[list[Source], list[str]]:
    sources, skipped = [], []
    files, unlisted = files_below(folder)
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
    seen: dict[str, int] = {}
    for number, source in enumerate(sources, start=1):
        if source.uri in seen:
            raise OptionError(
                f"{source.uri} is named in rows {seen[source.uri]} and {number}: give one row per "
                "recording (to label parts of it, cut it into files)"
            )
        seen[source.uri] = number


def _text_column(sources: Sequence[Source], column: str) -> Iterable[str]:
    for source in sources:
        value = source.extra.get(column)
        if value is None or value == "":
            raise OptionError(f"{source.uri} has no {column!r}: fill in that column in every row")
        yield str(value)


def _target(
    name: str, sources: Sequence[Source], as_classes: bool, has_typed_cells: bool
) -> Target:
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
    examples = {_value_type(value): value for value in reversed(known)}
    if not has_typed_cells and examples.keys() == {"names"}:
        # A column of CSV is text as soon as one cell is no number.
        written = {_written_type(str(value)): value for value in reversed(known)}
        examples = written if len(written) > 1 else examples
    if len(examples) > 1 and not as_classes:
        mixed = " and ".join(
            f"{kind} ({examples[kind]!r})" for kind in _VALUE_TYPES if kind in examples
        )
        raise OptionError(
            f"{name} mixes {mixed}: use one type, "
            f"or treat all values as class names with classes=[{name!r}] (--classes {name})"
        )
    distinct = set(known)
    if len(distinct) == 1:
        raise OptionError(
            f"{name} is {str(known[0])!r} for every recording, so there is nothing to predict: "
            "add recordings with other values, or probe other columns (targets, --target)"
        )
    if "numbers" in examples and len(distinct) > 2 and not as_classes:
        return Target(name, tuple(None if v is None else float(v) for v in values), True)
    return Target(name, tuple(None if v is None else str(v) for v in values), False)


def _written_type(text: str) -> str:
    return "numbers" if _NUMBER.fullmatch(text) else "names"


def _value_type(value: ColumnValue) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "numbers" if isinstance(value, int | float) else "names"
