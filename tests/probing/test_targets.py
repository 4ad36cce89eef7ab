"""Columns as classes, quantities or labels: chosen by their values with a reason, or named."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_audio.errors import OptionError
from qwen_audio.probing.targets import Cell, TaskName, check_tasks, make_target


def sources(cells: list[Any]) -> list[str]:
    return [f"{k}.wav" for k in range(len(cells))]


@pytest.mark.parametrize(
    ("cells", "task", "values", "reason"),
    [
        (["jazz ", "folk", None, " "], "classes", ("jazz", "folk", None, None), "text, so classes"),
        ([True, False], "classes", ("True", "False"), "true or false, so classes"),
        ([1, 0, 1.0], "classes", ("1", "0", "1"), "two whole numbers, so classes; tasks="),
        (
            [1999, 2001, -5],
            "quantity",
            (1999.0, 2001.0, -5.0),
            "3 different whole numbers, so a quantity; tasks={'x': 'classes'} for classes",
        ),
        ([0.5, 1, -2], "quantity", (0.5, 1.0, -2.0), "3 different numbers, so a quantity"),
        (["5%", "-7.5 %", ""], "quantity", (5.0, -7.5, None), "percentages, so a quantity"),
        (
            ["b;a", "a", "b | c;;b"],
            "labels",
            (("a", "b"), ("a",), ("b", "c")),
            "cells such as 'b;a', so labels; tasks={'x': 'classes'} for classes",
        ),
        (
            [("rock, hard", "pop"), (), None, "pop"],
            "labels",
            (("pop", "rock, hard"), (), None, ("pop",)),
            "lists, so labels",
        ),
        (["a,b", "c"], "classes", ("a,b", "c"), "tasks={'x': 'labels'} to divide it at commas"),
    ],
)  # fmt: skip
def test_the_task_is_chosen_by_the_values(
    cells: list[Cell], task: str, values: Any, reason: str
) -> None:
    target = make_target("x", cells, sources(cells))
    assert (target.task, target.values) == (task, values)
    assert target.reason.startswith(reason) or reason in target.reason
    assert target.labelled_count == sum(value is not None for value in values)


@pytest.mark.parametrize(
    ("cells", "task", "values"),
    [
        ([1999, 2001.5, 2001.0], "classes", ("1999", "2001.5", "2001")),
        ([0, 1], "quantity", (0.0, 1.0)),
        (["3", "-4.5", "6%"][:2], "quantity", (3.0, -4.5)),
        (["a;b", "c"], "classes", ("a;b", "c")),
        (["a, b", "c"], "labels", (("a", "b"), ("c",))),
        (["a, b;c", "c"], "labels", (("a, b", "c"), ("c",))),  # commas only without ; and |
        ([3, "3;4"], "labels", (("3",), ("3", "4"))),
        ([1, "one"], "classes", ("1", "one")),
    ],
)
def test_a_named_task_needs_no_reason(cells: list[Cell], task: TaskName, values: Any) -> None:
    target = make_target("x", cells, sources(cells), task)
    assert (target.task, target.values, target.reason) == (task, values, "")


@pytest.mark.parametrize(
    ("cells", "task", "message"),
    [
        ([120, "fast"], None, r"mixes numbers .120. and names .'fast'.*tasks={'x': 'classes'}"),
        ([120, True, 60], None, "mixes numbers .120. and true or false .True."),
        ([5, "5%"], None, "mixes numbers .5. and percentages"),
        ([3, "3;4"], None, "read all as labels with tasks={'x': 'labels'}"),
        ([1.0, float("nan")], None, "x: 1.wav has nan: leave the cell empty"),
        ([1.0, float("inf")], None, "1.wav has inf"),
        ([None, ""], None, "x: no recording has a label"),
        (["a", "a"], None, "x is 'a' for every recording"),
        (["a;b", "b;a"], None, "x is 'a;b' for every recording"),
        (["1", "1.0"], "quantity", "is '1' for every"),
        (["1", "2%"], "quantity", "mixes numbers and percentages"),
        (["3,5", "4"], "quantity", "0.wav has '3,5', which is no number: write it as 3.5"),
        ([True, 3], "quantity", "0.wav has True, which is no number"),
        ([("a",), ("b",)], "classes", r"0.wav has \['a'\], which is a list: use the task labels"),
        ([("a", {}), ("b",)], None, "which is no list of names"),
    ],
)
def test_errors(cells: list[Cell], task: TaskName | None, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_target("x", cells, sources(cells), task)


def test_names_of_tasks_are_checked() -> None:
    assert check_tasks(None) == {}
    with pytest.raises(OptionError, match="the task of 'x' is 'number': use classes, quantity"):
        check_tasks({"x": "number"})
    with pytest.raises(OptionError, match="give a task by column"):
        check_tasks(["x"])  # type: ignore[arg-type]
    assert make_target("a b", [1, 2, 3], sources([1, 2, 3])).reason.count(
        "tasks={'a b': 'classes'}"
    )
