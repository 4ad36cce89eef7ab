"""What all tabs share: the model and its thread, the visitors; words for whatever goes wrong."""

from __future__ import annotations

import functools
import io
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qwen_audio import AudioError, QwenAudioError, load_waveform

from .examples import load_example
from .limits import Limits
from .sessions import Clip, Session, SessionStore

if TYPE_CHECKING:
    from qwen_audio import AudioModel, Collection

__all__ = ["AppContext", "spoken", "user_message"]

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)


class AppContext:
    """Where the tabs' handlers meet.

    Attributes:
        collection: what Find searches, if anything.
    """

    def __init__(
        self, model: AudioModel, limits: Limits, collection: Collection | None = None
    ) -> None:
        self.model, self.limits, self.collection = model, limits, collection
        self.visits = SessionStore(limits)
        self._model_thread = ThreadPoolExecutor(1, "model")

    @property
    def model_name(self) -> str:
        """The model's; of one in a folder, the folder's: visitors need not know where it lies."""
        name = self.model.name
        return Path(name).resolve().name if Path(name).is_dir() else name

    def visit(self, request: Any) -> Session:
        """Whose request it is: Gradio gives every open page a name."""
        return self.visits.of(request.session_hash)

    def run_on_model_thread(self, work: Callable[[], _T]) -> Future[_T]:
        """Have something done with the model, once everything asked of it before is done.

        All of it is done in one thread. That is what keeps its uses apart; and for every thread
        that computes, PyTorch starts helpers and the system sets memory aside, which cost a third
        of a short answer's time and are not given back.
        """
        return self._model_thread.submit(work)

    def close(self) -> None:
        """Whatever still waits for the model is not done any more."""
        self._model_thread.shutdown(wait=False, cancel_futures=True)

    def load(self, asked: dict[str, Any]) -> Clip:
        """What a visitor chose: an upload by its ticket, or an example by its name.

        Raises:
            AudioError: if it can't be heard, or is longer than the limit.
        """
        if "example" in asked:
            return Clip(load_example(asked["example"]))
        upload = self.visits.hand_out(str(asked.get("ticket")))
        opened = io.BytesIO(upload.data)
        opened.name = upload.name
        most = self.limits.recording_seconds
        try:
            return Clip(load_waveform(opened, max_seconds=most))
        except AudioError as error:
            if "is longer than" in str(error):
                raise AudioError(
                    f"{upload.name} is longer than {self.limits.longest}, the most that is taken "
                    "here: cut out the part you are curious about."
                ) from error
            raise


def spoken(handler: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A handler whose errors become a "problem" in its answer, which repeats the request's n."""

    @functools.wraps(handler)
    def answering(self: Any, asked: Any, request: Any) -> dict[str, Any]:
        asked = asked if isinstance(asked, dict) else {}
        try:
            return handler(self, asked, request) | {"n": asked.get("n")}
        except Exception as error:  # noqa: BLE001 (whatever it is, the visitor is told)
            return {"n": asked.get("n"), "problem": user_message(error)}

    return answering


def user_message(error: Exception) -> str:
    """What a visitor is told: our errors say it themselves; of others they need no details."""
    if isinstance(error, QwenAudioError):
        text = str(error)
        return text if text.endswith((".", "!", "?")) else f"{text}."
    _LOG.error("a request failed", exc_info=error)
    return "Something went wrong here, and it is not your recording's fault. Please try again."
