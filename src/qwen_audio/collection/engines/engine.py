"""What an engine does, and the choice of one by its name."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from qwen_audio.collection.encoding import EncodedSource, EncodingSettings, PendingSource
from qwen_audio.errors import OptionError, check_extra
from qwen_audio.inference.progress_bars import OnWindow

from .local import LocalEngine

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel

__all__ = ["ENGINES", "Engine", "open_engine"]

ENGINES = ("local", "ray")


class Engine(Protocol):
    """Encodes the recordings of an index operation."""

    def encode(
        self,
        model: AudioModel,
        settings: EncodingSettings,
        pending: Iterator[PendingSource],
        on_window: OnWindow,
    ) -> Generator[EncodedSource]:
        """Every source of `pending` once, in any order; closing the generator ends the work.

        Args:
            pending: may be taken in another thread, ahead of what is yielded.
            on_window: told how far a recording is, where the engine knows it.
        """


def open_engine(name: str | None, **options: Any) -> Engine:
    """The engine of a name; None: "local".

    Args:
        options: of `RayEngine`; None for its defaults.

    Raises:
        OptionError: for another name, options that have no effect on it, or invalid ones.
        MissingExtraError: without the engine's extra.
    """
    given = {option: value for option, value in options.items() if value is not None}
    if name not in (None, *ENGINES):
        raise OptionError(f"engine={name!r:.80}: use {' or '.join(map(repr, ENGINES))}")
    if name == "ray":
        check_extra("engine='ray'", "ray", "ray", "pyarrow")
        from .ray import RayEngine

        return RayEngine(**given)
    if given:
        option, value = next(iter(given.items()))
        raise OptionError(f"{option}={value!r:.80} is an option of engine='ray': name it, too")
    return LocalEngine()
