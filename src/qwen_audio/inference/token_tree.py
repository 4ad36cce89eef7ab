"""Choices as a tree of tokens: those that begin alike share what they begin with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qwen_audio.errors import OptionError
from qwen_audio.models.kv_cache import common_prefix_length

from .decoder_input import DecoderInput

__all__ = ["END", "TokenTree", "check_choices", "split_choices"]

_MAX_NODES = 1024
"""Tokens of choices in one pass; with more, most of the time would go to attention among them,
which is quadratic and useless."""

END = -1
"""In a `TokenTree`: the end of an answer, by any of the tokens that end one."""


def check_choices(
    choices: Sequence[Sequence[int]], texts: Sequence[str], *, include_end: bool
) -> None:
    """Check that choices are continuations of which at most one can come true.

    Args:
        choices: token ids of each.
        texts: the same, for messages.

    Raises:
        OptionError: for choices that are empty or equal, or, without their end, one that begins
            another: its probability would include the other's.
    """
    if not choices:
        raise OptionError("choices is empty: give at least one text")
    order = sorted(range(len(choices)), key=lambda number: tuple(choices[number]))
    if not choices[order[0]]:
        raise OptionError(
            f"choice {texts[order[0]]!r:.60} has no tokens: give a text, or leave it out"
        )
    for one, other in itertools.pairwise(order):
        names = f"choices {texts[one]!r:.60} and {texts[other]!r:.60}"
        if tuple(choices[one]) == tuple(choices[other]):
            if texts[one] == texts[other]:
                raise OptionError(f"choice {texts[one]!r:.60} is given twice: leave one out")
            raise OptionError(f"{names} are the same tokens: leave one out")
        if not include_end and tuple(choices[other][: len(choices[one])]) == tuple(choices[one]):
            raise OptionError(
                f"{names}: the first begins the second, so that its probability includes the "
                "second's: use include_end=True, which asks for answers that end there"
            )


def split_choices(choices: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Choices, by their indices, in parts of one pass each: similar ones together."""
    order = sorted(range(len(choices)), key=choices.__getitem__)
    parts: list[list[int]] = [[]]
    size, before = 0, tuple[int, ...]()
    for number in order:
        choice = choices[number]
        new = len(choice) - common_prefix_length(before, choice)
        if parts[-1] and size + new > _MAX_NODES:
            parts.append([])
            size, new = 0, len(choice)
        parts[-1].append(number)
        size, before = size + new, choice
    return parts


@dataclass(frozen=True)
class TokenTree:
    """Choices as a tree of tokens, and what is asked for.

    Rows are counted from 0, the input's last position; row n + 1 is node n of the tree. Nodes
    are the tokens after which something is asked: a last token is none, unless its end is.

    Attributes:
        token_ids, parents: of the nodes, as in `DecoderInput.tree`.
        steps: (row, token), each once: the token's log-probability there is asked for; `END` stands
            for all tokens that end an answer.
        paths: for each choice its tokens as indices of `steps`.
    """

    token_ids: tuple[int, ...]
    parents: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, choices: Sequence[Sequence[int]], *, include_end: bool) -> TokenTree:
        """The tree of choices that `check_choices` accepts."""
        nodes: dict[tuple[int, int], int] = {}  # (row, token) → the token's row
        steps: dict[tuple[int, int], int] = {}
        paths = []
        for choice in choices:
            row, path = 0, []
            tokens = (*choice, *([END] if include_end else []))
            for place, token in enumerate(tokens, start=1):
                path.append(steps.setdefault((row, token), len(steps)))
                if place < len(tokens):
                    row = nodes.setdefault((row, token), len(nodes) + 1)
            paths.append(tuple(path))
        token_ids, parents = [token for _, token in nodes], [row - 1 for row, _ in nodes]
        return cls(tuple(token_ids), tuple(parents), tuple(steps), tuple(paths))

    def continue_input(self, item: DecoderInput) -> DecoderInput:
        """An input with the tree after it."""
        return replace(item, token_ids=(*item.token_ids, *self.token_ids), tree=self.parents)
