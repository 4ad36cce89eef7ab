"""Text generation by llama.cpp, from token ids.

Runs in the environment of llama-cpp-python: numpy alone is imported beside it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from .resources import peak_bytes
from .worker import Workload

__all__ = ["caption", "prompt_logits"]

_BATCH_TOKENS = 2048
"""llama.cpp's default: positions of a prompt that a call takes."""


class _Model:
    """A GGUF file, and a context for each number of texts and of positions."""

    def __init__(self, path: str, threads: int) -> None:
        import llama_cpp

        self._api: Any = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._threads = threads
        parameters = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        if not self._model:
            raise RuntimeError(f"llama.cpp can't load {path}")
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._contexts: dict[tuple[int, int], Any] = {}

    def context(self, count: int, positions: int) -> Any:
        """For a number of texts of so many positions each, with llama.cpp's defaults; empty."""
        key = (count, positions)
        if key not in self._contexts:
            parameters = self._api.llama_context_default_params()
            parameters.n_ctx = count * (-(-positions // 256) * 256)  # it takes multiples of 256
            parameters.n_batch = max(_BATCH_TOKENS, count * positions)
            parameters.n_seq_max = count
            parameters.n_threads = parameters.n_threads_batch = self._threads
            context = self._api.llama_init_from_model(self._model, parameters)
            if not context:
                raise RuntimeError("llama.cpp can't create a context")
            self._contexts[key] = context
            self.decode(context, [[5]] * count, 0)
        context = self._contexts[key]
        self._api.llama_memory_clear(self._api.llama_get_memory(context), True)
        return context

    def decode(self, context: Any, texts: Sequence[Sequence[int]], start: int) -> np.ndarray:
        """Tokens of each text from a position on. Returns the logits [texts, vocabulary] after the
        last of each."""
        total = sum(map(len, texts))
        batch = self._api.llama_batch_init(total, 0, 1)
        last = []
        index = 0
        for number, tokens in enumerate(texts):
            for offset, token in enumerate(tokens):
                batch.token[index] = token
                batch.pos[index] = start + offset
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = number
                batch.logits[index] = offset == len(tokens) - 1
                index += 1
            last.append(index - 1)
        batch.n_tokens = total
        if status := self._api.llama_decode(context, batch):
            raise RuntimeError(f"llama.cpp's computation failed with status {status}")
        logits = [
            np.ctypeslib.as_array(
                self._api.llama_get_logits_ith(context, row), shape=(self.vocabulary,)
            )
            for row in last
        ]
        self._api.llama_batch_free(batch)
        return np.stack(logits)


def caption(model: str, positions: dict[str, int], new_tokens: int, threads: int) -> Workload:
    """Greedy texts after prompts of as many positions as clips of so many seconds take, whatever
    tokens end them.

    Args:
        positions: of a clip's prompt, by its seconds.
    """
    language_model = _Model(model, threads)

    def run(clip_seconds: float, count: int) -> dict[str, Any]:
        length = positions[str(clip_seconds)]
        prompts = [
            [5 + (7 * position + 31 * text) % 900 for position in range(length)]
            for text in range(count)
        ]
        context = language_model.context(count, length + new_tokens)
        start = perf_counter()
        tokens = language_model.decode(context, prompts, 0).argmax(-1)
        first_token_seconds = perf_counter() - start
        for step in range(new_tokens - 1):
            rows = [[int(token)] for token in tokens]
            tokens = language_model.decode(context, rows, length + step).argmax(-1)
        seconds = perf_counter() - start
        return {
            "seconds": seconds,
            "first_token_seconds": first_token_seconds,
            "step_seconds": (seconds - first_token_seconds) / (new_tokens - 1),
            "peak_gb": peak_bytes() / 1e9,
        }

    run(*_first_case(positions))
    return run


def _first_case(positions: dict[str, int]) -> tuple[float, int]:
    return float(next(iter(positions))), 1


def prompt_logits(model: str, tokens: list[int], threads: int) -> Workload:
    """The logits after token ids: to compare a file with the checkpoint."""
    language_model = _Model(model, threads)

    def run() -> dict[str, Any]:
        context = language_model.context(1, len(tokens))
        return {"logits": language_model.decode(context, [tokens], 0)[0].tolist()}

    return run
