"""Prefetching: results in order, bounded lookahead, threads that end with their consumer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qwen_audio as qa
from qwen_audio.inference.finite import FiniteCheck
from qwen_audio.inference.prefetch import prefetch, prefetch_map
from reference import sound


def threads() -> set[str]:
    names = ("prefetch", "work", "audio", "weights")
    return {t.name for t in threading.enumerate() if t.name.startswith(names)}


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Every test begins and ends without threads."""
    assert not threads()
    yield
    assert not threads()


def becomes_true(condition: Callable[[], bool]) -> bool:
    """Whether a condition becomes true soon."""
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


class BrokenError(Exception):
    """The error that these tests raise."""


def numbers(count: int, requested: list[int], broken_at: int | None = None) -> Iterator[int]:
    """0, 1, 2, …; `requested` lists those that were requested."""
    for number in range(count):
        if number == broken_at:
            raise BrokenError(number)
        requested.append(number)
        yield number


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.integers(0, 30),
    st.integers(0, 8),
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(0, 30)),
)
def test_prefetch_map_equals_map(
    count: int, lookahead: int, workers: int, broken_at: int | None
) -> None:
    """In the items' order, whichever finishes first; an error after the results before it."""

    def work(number: int) -> int:
        time.sleep((number * 7 % 5) / 10_000)
        if number == broken_at:
            raise BrokenError(number)
        return number * number

    requested: list[int] = []
    given_out: list[int] = []
    with ThreadPoolExecutor(workers, "work") as pool:
        results = prefetch_map(work, numbers(count, requested), pool, lookahead)
        try:
            for result in results:
                given_out.append(result)
                assert len(requested) <= len(given_out) + lookahead
        except BrokenError:
            assert len(given_out) == broken_at
    expected = count if broken_at is None else min(count, broken_at)
    assert given_out == [number * number for number in range(expected)]


def test_prefetch_map_runs_ahead() -> None:
    """While the first result is used, the next ones are computed."""
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        return number

    with ThreadPoolExecutor(2, "work") as pool:
        results = prefetch_map(work, range(100), pool, 3)
        assert next(results) == 0
        assert becomes_true(lambda: sorted(begun) == [0, 1, 2, 3])


def test_closing_prefetch_map_cancels_pending_items() -> None:
    gate, done = threading.Event(), []

    def work(number: int) -> int:
        if number:
            gate.wait(5)
        done.append(number)
        return number

    with ThreadPoolExecutor(1, "work") as pool:
        results: Any = prefetch_map(work, range(10), pool, 5)
        assert next(results) == 0
        results.close()
        gate.set()
    assert done in ([0], [0, 1])  # 1 may have been running


@settings(max_examples=40)
@given(st.integers(0, 20), st.integers(1, 5), st.one_of(st.none(), st.integers(0, 20)))
def test_prefetch_gives_the_same_items(count: int, lookahead: int, broken_at: int | None) -> None:
    requested: list[int] = []
    items = prefetch(numbers(count, requested, broken_at), lookahead)
    if broken_at is None or broken_at >= count:
        assert list(items) == list(range(count))
    else:
        assert [next(items) for _ in range(broken_at)] == list(range(broken_at))
        with pytest.raises(BrokenError, match=str(broken_at)):
            next(items)
        assert next(items, None) is None
    assert not threads()


@pytest.mark.parametrize("lookahead", [1, 2, 5])
def test_prefetch_is_bounded(lookahead: int) -> None:
    requested: list[int] = []
    items: Any = prefetch(numbers(10**9, requested), lookahead)
    assert not threads()  # not before the first request
    for used in range(1, 4):
        assert next(items) == used - 1
        assert becomes_true(lambda: len(requested) >= used + lookahead)
        time.sleep(0.02)
        assert len(requested) <= used + lookahead
    assert becomes_true(lambda: not threads())  # while nothing is asked for
    items.close()
    assert not threads()


def test_dropping_the_iterator_ends_the_thread() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.set()

    given_out = prefetch(items(), 2)
    assert next(given_out) == 0
    del given_out
    assert closed.is_set()
    assert not threads()


def test_an_iterator_without_close() -> None:
    assert list(prefetch(iter([1, 2, 3]), 1)) == [1, 2, 3]
    assert list(prefetch([], 1)) == []
    assert not threads()


def test_none_and_exceptions_can_be_items() -> None:
    items = [None, ValueError("an item"), StopIteration()]
    assert list(prefetch(items, 1)) == items


def test_an_interrupt_in_the_thread_is_raised_in_the_caller() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    given_out = prefetch(items(), 3)
    assert next(given_out) == 1
    with pytest.raises(KeyboardInterrupt):
        next(given_out)
    assert not threads()


def held_error(consume: Callable[[], None]) -> BaseException:
    """The error that is raised, and with it the frames of everything that was running."""
    with pytest.raises(BrokenError) as caught:
        consume()
    return caught.value


def test_an_iterator_that_is_kept_after_its_consumer_failed_keeps_no_thread() -> None:
    kept: Any = prefetch(numbers(10**9, []), 3)

    def fail() -> None:
        for number in kept:
            raise BrokenError(number)

    error = held_error(fail)
    assert becomes_true(lambda: not threads())
    assert error.__traceback__
    assert next(kept) == 1  # it is still good
    kept.close()


def test_held_errors_of_a_model_keep_no_threads(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the pass over streamed layers, with a further batch and its audio ahead; and an iterator
    whose user fails."""
    model = qa.load(checkpoint)
    least = model.cost("lm.1").min_memory_bytes
    model = qa.load(checkpoint, max_memory=least + 50_000)
    clips = [sound(20.0)] * 6
    vectors = model.encode_each(clips, tap="lm.1", sampling_rate=16_000)

    def use_vectors() -> None:
        raise BrokenError(next(vectors))

    def describe() -> None:
        model.encode(clips, tap="lm.1", sampling_rate=16_000)

    abandoned = held_error(use_vectors)
    monkeypatch.setattr(FiniteCheck, "check", broken)
    held = [abandoned, *(held_error(describe) for _ in range(2))]
    assert becomes_true(lambda: not threads())
    assert all(error.__traceback__ for error in held)


def broken(*_: Any) -> None:
    raise BrokenError
