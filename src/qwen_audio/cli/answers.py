"""Answers about a recording, printed as they come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from qwen_audio.audio.timecode import format_range

from .console import print_text

if TYPE_CHECKING:
    from qwen_audio.api.answer import Answer

__all__ = ["print_answers"]


def print_answers(answers: Iterable[Answer], name: str | None) -> list[Answer]:
    """Print each answer when it is there; together they are printed as a `Description`.

    The first one waits for the second, as the only one is printed without its time.

    Args:
        name: printed before the answers; None where there is just one recording.
    """
    printed: list[Answer] = []
    for answer in answers:
        printed.append(answer)
        if len(printed) == 2:
            if name is not None:
                print_text(f"{name}:")
            print_text(_line(printed[0]))
        if len(printed) > 1:
            print_text(_line(answer))
    if len(printed) == 1:
        print_text(printed[0].text if name is None else f"{name}: {printed[0].text}")
    return printed


def _line(answer: Answer) -> str:
    return f"{format_range(answer.start_seconds, answer.end_seconds)}  {answer.text}"
