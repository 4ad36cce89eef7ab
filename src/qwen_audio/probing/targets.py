"""Targets: columns of labels as classes, a quantity, or several labels a recording."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from qwen_audio.audio.source import ColumnValue
from qwen_audio.errors import OptionError

__all__ = ["TASKS", "Cell", "Target", "TargetValue", "TaskName", "check_tasks", "make_target"]

TaskName = Literal["classes", "quantity", "labels"]
TASKS: dict[TaskName, str] = {
    "classes": "classes",
    "quantity": "a quantity",
    "labels": "labels (several in a cell)",
}
"""What a column is, in words."""

Cell = ColumnValue | tuple[ColumnValue, ...]
TargetValue = str | float | tuple[str, ...] | None

_SEPARATOR = re.compile("[;|]")
_PERCENTAGE = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?) ?%")
_WRITTEN_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_KINDS = ("numbers", "percentages", "true or false", "names", "lists")

_NO_VALUE: dict[TaskName, str] = {
    "quantity": "no number: write it as 3.5 or 45%, or leave the cell empty",
    "classes": "a list: use the task labels",
    "labels": "no list of names",
}


@dataclass(frozen=True)
class Target:
    """One column of labels to predict.

    Attributes:
        values: one per recording: text for classes, a number for a quantity, a tuple of names for
            labels; None without a label.
        reason: why the column is taken for this task; empty where the caller has named it.
    """

    name: str
    values: tuple[TargetValue, ...]
    task: TaskName
    reason: str = ""

    @property
    def labelled_count(self) -> int:
        """Number of recordings with this label."""
        return sum(value is not None for value in self.values)

    def subset(self, indices: Sequence[int]) -> Target:
        """The target of some of the recordings, by their indices."""
        return Target(self.name, tuple(self.values[k] for k in indices), self.task, self.reason)


def check_tasks(tasks: Mapping[str, str] | None) -> dict[str, TaskName]:
    """The task of each column that has one. Raises OptionError for unknown tasks."""
    if not isinstance(tasks, Mapping | None):
        raise OptionError(
            f"tasks={tasks!r:.80}: give a task by column, such as {{'year': 'classes'}}"
        )
    for column, task in (tasks or {}).items():
        if task not in TASKS:
            raise OptionError(f"the task of {column!r} is {task!r}: use {', '.join(TASKS)}")
    return cast(dict[str, TaskName], dict(tasks or {}))


def make_target(
    name: str,
    cells: Sequence[Cell],
    sources: Sequence[str],
    task: TaskName | None = None,
    *,
    is_text: bool = False,
) -> Target:
    """The target of a column.

    Args:
        cells: one per recording; None or empty text without a label.
        sources: of the recordings, for messages.
        task: by default chosen by the cells.
        is_text: whether they are those of CSV, of which all are text where one is no number.

    Raises:
        OptionError: for cells that are not of one kind or not of this task, no label at all, and
            nothing to predict as all are equal.
    """
    stripped = [cell.strip() or None if isinstance(cell, str) else cell for cell in cells]
    for cell, source in zip(stripped, sources, strict=True):
        if isinstance(cell, float) and not math.isfinite(cell):
            raise OptionError(
                f"{name}: {source} has {cell}: leave the cell empty (in rows: None) where there is "
                "no label"
            )
    known = [cell for cell in stripped if cell is not None]
    if not known:
        raise OptionError(f"{name}: no recording has a label")
    reason = ""
    if task is None:
        task, reason = _choose_task(name, known, is_text=is_text)
    separator = _label_separator(known)
    values: list[TargetValue] = []
    for cell, source in zip(stripped, sources, strict=True):
        value = _value(cell, task, separator)
        if value is None and cell is not None:
            raise OptionError(f"{name}: {source} has {_shown(cell)}, which is {_NO_VALUE[task]}")
        values.append(value)
    if task == "quantity" and len({"%" in str(cell) for cell in known}) > 1:
        raise OptionError(f"{name} mixes numbers and percentages: use one of them")
    if len({value for value in values if value is not None}) == 1:
        raise OptionError(
            f"{name} is {_shown(known[0])} for every recording, so there is nothing to predict: "
            "add recordings with other values"
        )
    return Target(name, tuple(values), task, reason)


def _choose_task(name: str, known: Sequence[Cell], *, is_text: bool) -> tuple[TaskName, str]:
    """The task of a column, and the reason. Raises OptionError for cells of several kinds."""
    separated = next((cell for cell in known if _is_separated(cell)), None)
    examples = _examples_by_kind(known, read_numbers=is_text and separated is None)
    kinds = set(examples)
    if len(kinds) > 1 and kinds != {"lists", "names"}:
        mixed = " and ".join(
            f"{kind} ({_shown(examples[kind])})" for kind in _KINDS if kind in kinds
        )
        task: TaskName = "labels" if separated or "lists" in kinds else "classes"
        raise OptionError(
            f"{name} mixes {mixed}: use one type, or read all as {task} with "
            f"{_task_option(name, task)}"
        )
    as_classes = _task_option(name, "classes")
    if "lists" in kinds:
        return "labels", "lists, so labels"
    if separated:
        return "labels", f"cells such as {_shown(separated)}, so labels; {as_classes} for classes"
    as_quantity = _task_option(name, "quantity")
    if "names" in kinds:
        if all(_WRITTEN_NUMBER.fullmatch(str(cell)) for cell in known):
            numbers = f"numbers as text, such as {_shown(known[0])}"
            return "classes", f"{numbers}, so classes; {as_quantity} for a quantity"
        if not any("," in str(cell) for cell in known):
            return "classes", "text, so classes"
        as_labels = _task_option(name, "labels")
        return "classes", f"text, so classes; {as_labels} to divide it at commas into labels"
    if "true or false" in kinds:
        return "classes", "true or false, so classes"
    if "percentages" in kinds:
        return "quantity", f"percentages, so a quantity; {as_classes} for classes"
    whole = "whole " * all(float(cast(float, cell)).is_integer() for cell in known)
    count = len(set(known))
    if count > 2:
        numbers = f"{count} different {whole}numbers"
        return "quantity", f"{numbers}, so a quantity; {as_classes} for classes"
    return "classes", f"two {whole}numbers, so classes; {as_quantity} for a quantity"


def _task_option(name: str, task: TaskName) -> str:
    return f"tasks={ {name: task} }"


def _examples_by_kind(known: Sequence[Cell], *, read_numbers: bool) -> dict[str, Cell]:
    """The first cell of each kind.

    Args:
        read_numbers: whether text that is a number, beside text that is none, is one.
    """
    texts = [cell for cell in known if isinstance(cell, str)]
    numbers = {text for text in texts if read_numbers and _WRITTEN_NUMBER.fullmatch(text)}
    numbers = set() if numbers.issuperset(texts) else numbers  # such as 007: names
    others = [text for text in texts if text not in numbers]
    text_kind = "percentages" if all(map(_PERCENTAGE.fullmatch, others)) else "names"
    examples: dict[str, Cell] = {}
    for cell in known:
        if isinstance(cell, str):
            kind = "numbers" if cell in numbers else text_kind
        elif isinstance(cell, bool):
            kind = "true or false"
        else:
            kind = "lists" if isinstance(cell, tuple) else "numbers"
        examples.setdefault(kind, cell)
    return examples


def _is_separated(cell: Cell) -> bool:
    return isinstance(cell, str) and len(_split(cell, _SEPARATOR)) > 1


def _label_separator(known: Sequence[Cell]) -> re.Pattern[str]:
    """; or |, or commas where there is neither."""
    texts = [cell for cell in known if isinstance(cell, str)]
    return _SEPARATOR if any(map(_SEPARATOR.search, texts)) else re.compile(",")


def _split(text: str, separator: re.Pattern[str]) -> tuple[str, ...]:
    return tuple(name for part in separator.split(text) if (name := part.strip()))


def _value(cell: Cell, task: TaskName, separator: re.Pattern[str]) -> TargetValue:
    """A cell's value for a task; None if it has none."""
    if cell is None:
        return None
    if task == "classes":
        return _name(cell)
    return _number(cell) if task == "quantity" else _names(cell, separator)


def _name(cell: Cell) -> str | None:
    if cell is None or isinstance(cell, tuple | list | dict):
        return None
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()


def _number(cell: Cell) -> float | None:
    if isinstance(cell, str):
        percentage = _PERCENTAGE.fullmatch(cell)
        try:
            value = float(percentage[1] if percentage else cell)
        except ValueError:
            return None
        return value if math.isfinite(value) else None
    return None if cell is None or isinstance(cell, bool | tuple) else float(cell)


def _names(cell: Cell, separator: re.Pattern[str]) -> tuple[str, ...] | None:
    """The different names in a cell, in alphabetical order."""
    if isinstance(cell, str):
        return tuple(sorted(set(_split(cell, separator))))
    names = [_name(part) for part in (cell if isinstance(cell, tuple) else (cell,))]
    if not all(names):
        return None
    return tuple(sorted(set(cast(list[str], names))))


def _shown(cell: Cell) -> str:
    return repr(list(cell) if isinstance(cell, tuple) else cell)[:60]
