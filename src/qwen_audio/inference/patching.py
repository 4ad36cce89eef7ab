"""Activation patching: rows of one input in the place of another's, at every level and span.

All patched runs are computed in one pass over the layers. A run at level k begins with the rows of
the unpatched run after k layers, from the first patched position on, and reads the keys and values
of the positions before it from the unpatched run's cache: nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from qwen_audio.models.kv_cache import CachePass, KeyValueCache
from qwen_audio.models.tap import Stage, Tap

from .decoder import LanguageModel
from .decoder_input import DecoderInput
from .finite import FiniteCheck
from .out_of_memory import explains_out_of_memory
from .pipeline import Pipeline
from .reducers import all_rows
from .score import step_log_probabilities
from .token_tree import TokenTree

__all__ = ["PatchedDifferences", "patch_spans"]

_LM_NORM = Tap(Stage.LM_NORM)


@dataclass(frozen=True)
class PatchedDifferences:
    """Log-probabilities of two answers, and their differences: first minus second.

    Attributes:
        log_probabilities: shape (inputs, answers): of both inputs as they are.
        patched: shape (levels, spans): the difference for the first input, with the second's rows
            in a span.
    """

    log_probabilities: Float64[np.ndarray, "inputs answers"]
    patched: Float64[np.ndarray, "levels spans"]


@dataclass(frozen=True)
class _Run:
    """One patched run: the rows from `first` on, as they are after `level` layers."""

    index: tuple[int, int]
    level: int
    first: int
    rows: Tensor


@explains_out_of_memory
def patch_spans(
    pipeline: Pipeline,
    items: tuple[DecoderInput, DecoderInput],
    answers: tuple[tuple[int, ...], tuple[int, ...]],
    levels: Sequence[int],
    spans: Mapping[str, Sequence[int]],
    *,
    include_end: bool = False,
) -> PatchedDifferences:
    """The difference of two answers after patching each span at each level.

    Args:
        items: both inputs, of as many positions each.
        answers: token ids of both answers.
        levels: numbers of layers, each once.
        spans: by name, positions of the inputs; those of the answers follow the input's.
        include_end: see `Pipeline.score`.

    Raises:
        OptionError: for inputs that don't fit in the model's context.
        NotFiniteError: if rows overflow.
    """
    lm = pipeline.lm
    tree = TokenTree.of(answers, include_end=include_end)
    stop_ids = pipeline.tokenizer.stop_token_ids(None)
    given, other = (tree.continue_input(item) for item in items)
    length, last = len(given.token_ids), len(items[0].token_ids) - 1
    block = lm.new_cache().block_positions
    pipeline.fetch_weights(None)
    whole = pipeline.positions(length, None)[1]
    pipeline.memory.divide(None, 2 * whole)
    pipeline.memory.make_room(2 * whole)
    lm.load_head()
    cache = lm.new_cache()
    slot = cache.add()
    taps = {Tap(Stage.LM, level) for level in levels} | {_LM_NORM}
    with cache.extend([slot], [length]) as cached:
        kept = lm.forward([given], taps, all_rows, cached)
    source = lm.forward([other], taps, all_rows)
    # Text before the audio is the same in both, and so are its rows.
    text = given.token_ids.index(lm.audio_token_id) if lm.audio_token_id in given.token_ids else 0
    differing = {name: [k for k in rows if k >= text] for name, rows in spans.items()}
    starts = {name: min([*rows, last]) for name, rows in differing.items()}

    def log_probabilities(
        rows: Sequence[Tensor], finite: FiniteCheck
    ) -> Float64[np.ndarray, "runs answers"]:
        """From the rows at `lm.norm`, of which the last are those that decide the answers'
        tokens."""
        steps = [
            step_log_probabilities(lm, each[-1 - len(tree.token_ids) :], tree, stop_ids, finite)
            for each in rows
        ]
        by_run = torch.stack(steps).double()
        answers = torch.stack([by_run[:, list(path)].sum(1) for path in tree.paths], 1)
        finite.check()
        return answers.cpu().numpy()

    def run_of(row: int, column: int, name: str) -> _Run:
        level, first = levels[row], starts[name]
        tap = Tap(Stage.LM, level)
        rows = kept[tap][0][first:].clone()
        places = torch.tensor(
            [position - first for position in differing[name]], dtype=torch.long, device=rows.device
        )
        rows[places] = source[tap][0][first:][places]
        return _Run((row, column), level, first, rows)

    planned = sorted(
        ((row, column, name) for row in range(len(levels)) for column, name in enumerate(spans)),
        key=lambda plan: (levels[plan[0]], plan[1]),
    )

    def positions(plan: tuple[int, int, str]) -> tuple[int, int]:
        rows = length - starts[plan[2]]
        return rows, (-(-rows // block) + 1) * block

    finite = lm.new_check()
    both = log_probabilities([kept[_LM_NORM][0], source[_LM_NORM][0]], finite)
    differences = both[:, 0] - both[:, 1]

    def known_difference(plan: tuple[int, int, str]) -> float | None:
        """Of a run that goes on from what one of both inputs has there: at `lm.0`, all of them."""
        run = run_of(*plan)
        tap = Tap(Stage.LM, run.level)
        before = (rows[tap][0][: run.first] for rows in (kept, source))
        if torch.equal(run.rows, kept[tap][0][run.first :]):
            return float(differences[0])
        if torch.equal(run.rows, source[tap][0][run.first :]) and torch.equal(*before):
            return float(differences[1])
        return None

    patched = np.zeros((len(levels), len(spans)))
    unknown = []
    for plan in planned:
        if (known := known_difference(plan)) is None:
            unknown.append(plan)
        else:
            patched[plan[:2]] = known
    for batch in pipeline.memory.batches(unknown, positions):
        pipeline.memory.make_room(whole + sum(positions(plan)[1] for plan in batch))
        spare = cache.add()  # all blocks at once: the cache is copied whenever it grows
        cache.reserve({spare: sum(positions(plan)[1] for plan in batch)})
        cache.release(spare)
        runs = [run_of(*plan) for plan in batch]
        finite = lm.new_check()
        normed = _patched_rows(lm, cache, slot, given, runs, len(tree.token_ids), finite)
        for run, (one, two) in zip(runs, log_probabilities(normed, finite), strict=True):
            patched[run.index] = one - two
    return PatchedDifferences(both, patched)


@torch.no_grad()
def _patched_rows(
    lm: LanguageModel,
    cache: KeyValueCache,
    slot: int,
    item: DecoderInput,
    runs: Sequence[_Run],
    tree_rows: int,
    finite: FiniteCheck,
) -> list[Float[Tensor, "rows width"]]:
    """The rows of each run at `lm.norm` that decide the answers' tokens.

    Args:
        slot: of the unpatched run, with all of its positions.
        runs: in the order of their levels.
    """
    slots = [cache.fork(slot, run.first) for run in runs]
    lengths = [len(run.rows) for run in runs]
    starts = [run.first for run in runs]
    hidden_states, joined, arguments = runs[0].rows[:0], 0, None
    try:
        cache.reserve({s: a + n for s, a, n in zip(slots, starts, lengths, strict=True)})
        for k, layer in enumerate(lm.layers()):
            joining = [run.rows for run in runs[joined:] if run.level == k]
            if joining:
                hidden_states = torch.cat([hidden_states, *joining])
                joined += len(joining)
                cached = CachePass(
                    cache, *(tuple(part[:joined]) for part in (slots, starts, lengths))
                )
                trees = [item.tree] * joined
                arguments = lm.layer_arguments(hidden_states, lengths[:joined], cached, trees)
            if arguments is not None:
                hidden_states = lm.run_layer(layer, hidden_states, arguments)
                finite.watch(Tap(Stage.LM, k + 1), hidden_states)
        hidden_states = torch.cat([hidden_states, *(run.rows for run in runs[joined:])])
        ends = [rows[-1 - tree_rows :] for rows in hidden_states.split(lengths)]
        normed = lm.final_norm()(torch.cat(ends))
        return list(normed.split(1 + tree_rows))
    finally:
        for each in slots:
            cache.release(each)
