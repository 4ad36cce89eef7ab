"""State shared by all tabs: model and its thread, limits, sessions; error messages."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qwen_audio import AudioError, QwenAudioError
from qwen_audio.paths import printable
from qwen_audio.serve.decoding import UploadDecoder
from qwen_audio.serve.model_thread import ModelThread, SoleModelThread

from .clip import Clip
from .examples import load_example
from .limits import Limits
from .sessions import Session, SessionStore

if TYPE_CHECKING:
    from qwen_audio import AudioModel, Collection

__all__ = ["AppContext", "report_errors", "report_stream_errors", "user_message"]

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)


class AppContext:
    """What the handlers of all tabs share.

    Args:
        thread: of all uses of the model; None: one of its own.

    Attributes:
        collection: what the Collection tab searches, if any.
        load_row: opens a row of the collection by its id; set where there is a collection.
    """

    def __init__(
        self,
        model: AudioModel,
        limits: Limits,
        collection: Collection | None = None,
        thread: ModelThread | None = None,
    ) -> None:
        self.model, self.limits, self.collection = model, limits, collection
        self.sessions = SessionStore(limits)
        self.decoder = UploadDecoder(limits)
        self.load_row: Callable[[str], Clip] | None = None
        self.thread: ModelThread = SoleModelThread() if thread is None else thread

    @property
    def model_name(self) -> str:
        """The model's name; of a local folder only the last part, so that no path is shown."""
        return _public_name(self.model.name)

    @property
    def adapter_name(self) -> str | None:
        """The adapter's name, without the path to it; None without one."""
        return None if self.model.adapter is None else _public_name(self.model.adapter)

    def session(self, request: Any) -> Session:
        """The session that a Gradio request belongs to."""
        return self.sessions.get(request.session_hash)

    def run_on_model_thread(self, work: Callable[[], _T]) -> Future[_T]:
        """Queue work that uses the model, after everything queued before it."""
        return self.thread.call(work)

    def load(self, data: dict[str, Any]) -> Clip:
        """Decode the recording that a visitor chose: an upload ("ticket"), an "example", or a "row"
        of the collection.

        Raises:
            AudioError: if it can't be decoded or exceeds the length limit.
        """
        if "example" in data:
            return Clip(load_example(data["example"]), example=str(data["example"]))
        if "row" in data:
            if self.load_row is None:
                raise AudioError("This playground has no collection: open an example or a file.")
            return self.load_row(str(data["row"]))
        with self.sessions.opened_upload(str(data.get("ticket"))) as upload:
            waveform = self.decoder.decode(upload.name, upload.data)
            return Clip(waveform, file_name=upload.name)


def _public_name(name: str) -> str:
    return printable(Path(name).resolve().name if Path(name).is_dir() else name)


def report_errors(handler: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Decorator of a handler: errors become "problem" in the response, which repeats "n".

    "n" is the request's number, by which the page matches responses.
    """

    @functools.wraps(handler)
    def handle(self: Any, data: Any, request: Any) -> dict[str, Any]:
        data = data if isinstance(data, dict) else {}
        number = data["n"] if type(data.get("n")) is int else None
        try:
            return handler(self, data, request) | {"n": number}
        except Exception as error:  # noqa: BLE001 (any failure must reach the visitor)
            return {"n": number, "problem": user_message(error)}

    return handle


def report_stream_errors(
    handler: Callable[..., Iterator[dict[str, Any]]],
) -> Callable[..., Iterator[dict[str, Any]]]:
    """`report_errors` for a handler that yields its answer in parts.

    All but the last have "partial": True.
    """

    @functools.wraps(handler)
    def handle(self: Any, data: Any, request: Any) -> Iterator[dict[str, Any]]:
        data = data if isinstance(data, dict) else {}
        number = data["n"] if type(data.get("n")) is int else None
        try:
            for part in handler(self, data, request):
                yield part | {"n": number}
        except Exception as error:  # noqa: BLE001 (any failure must reach the visitor)
            yield {"n": number, "problem": user_message(error)}

    return handle


def user_message(error: Exception) -> str:
    """Message for the visitor: the package's errors as they are, others without details."""
    if isinstance(error, QwenAudioError):
        text = str(error)
        return text if text.endswith((".", "!", "?")) else f"{text}."
    _LOG.error("a request failed", exc_info=error)
    return "An internal error occurred; your recording is not the cause. Please try again."
