"""Classes that are too rare to train on and test: counted, named and left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from qwen_audio.errors import OptionError, counted

from .targets import Target

__all__ = ["leave_out_rare"]

_NAMED = 5
"""Classes that an error names; a note names all."""


@dataclass(frozen=True)
class _Count:
    """Recordings of a class and their groups; of labels, of those without it where it's fewer."""

    name: str
    recordings: int
    groups: int
    without: bool = False

    def __str__(self) -> str:
        if self.without and not self.recordings:
            return f"{self.name} (all recordings)"
        count = counted(self.recordings, "recording")
        if self.groups < self.recordings:
            count += f" in {counted(self.groups, 'group')}"
        return f"{self.name} ({f'all but {count}' if self.without else count})"


def leave_out_rare(
    target: Target, groups: Sequence[str], folds: int, min_count: int
) -> tuple[Target, str]:
    """The target without its rare classes, and a note that names them, empty where there is none.

    Of classes, their recordings lose their label; of labels, their recordings keep the others.

    Args:
        groups: of all recordings.
        folds: a class needs as many groups; of labels, also the recordings without one do.
        min_count: a class needs as many recordings.

    Raises:
        OptionError: if fewer than two classes remain, or no label.
    """
    if target.task == "quantity":
        return target, ""
    is_labels = target.task == "labels"
    counts = sorted(_counts(target, groups), key=lambda c: (-c.groups, -c.recordings, c.name))
    rare = [count for count in counts if count.recordings < min_count or count.groups < folds]
    if not rare:
        return target, ""
    needed = counted(min_count, "recording")
    needed += f" in {folds} groups" * (folds > 1)
    kind, least = ("labels", 1) if is_labels else ("classes", 2)
    if len(counts) - len(rare) < least:
        named = ", ".join(map(str, rare[:_NAMED])) + ", …" * (len(rare) > _NAMED)
        remedies = ["add recordings"]
        if len(counts) >= least:
            best = counts[least - 1]
            remedies += [f"use folds={best.groups}"] * (1 < best.groups < folds)
            if folds < min_count > best.recordings > 1:
                remedies.append(f"use min_count={best.recordings}")
        raise OptionError(
            f"{target.name}: {'no label has' if is_labels else 'fewer than two classes have'} "
            f"{needed} (too rare: {named}): {', or '.join(remedies)}"
        )
    names = {count.name for count in rare}
    note = (
        f"{target.name}: {len(rare)} of {len(counts)} {kind} left out, with fewer than {needed}: "
        f"{', '.join(map(str, rare))}"
    )
    if is_labels:
        kept = tuple(
            None if value is None else tuple(n for n in value if n not in names)
            for value in cast(Iterable[tuple[str, ...] | None], target.values)
        )
        return replace(target, values=kept), note
    return replace(target, values=tuple(None if v in names else v for v in target.values)), note


def _counts(target: Target, groups: Sequence[str]) -> Iterable[_Count]:
    members: dict[str, list[int]] = defaultdict(list)
    labelled = [k for k, value in enumerate(target.values) if value is not None]
    for k in labelled:
        value = target.values[k]
        for name in value if isinstance(value, tuple) else (str(value),):
            members[name].append(k)
    for name, indices in members.items():
        count = _Count(name, len(indices), len({groups[k] for k in indices}))
        if target.task == "labels":
            others = set(labelled).difference(indices)
            absent = _Count(name, len(others), len({groups[k] for k in others}), without=True)
            count = min(count, absent, key=lambda c: (c.groups, c.recordings))
        yield count
