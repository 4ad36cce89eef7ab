"""Code of views: the Python lines and the command that compute and save what a view shows."""

from __future__ import annotations

from typing import Any

from qwen_audio import OptionError
from qwen_audio.paths import printable
from qwen_audio.playground.context import AppContext, report_errors

from .collection_code import searched_recording
from .export import NOTHING_SHOWN, OF_COLLECTION
from .recording_code import RecordingName, Shown
from .view_code import ViewCode

__all__ = ["Snippets"]


class Snippets:
    """Request handler of the code in all export menus."""

    def __init__(self, context: AppContext) -> None:
        self.context, self.code = context, ViewCode(context)

    @report_errors
    def snippets(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """The "python" lines and the "command" of a "view", or a "note" why there is no command.

        "runs_in" says what the code needs. Of hidden states a "tap"; "dark" is for pictures in the
        dark theme.
        """
        session, view = self.context.session(request), str(data.get("view"))
        writers = self.code.writers
        if view not in writers:
            raise OptionError(f"view {view!r:.20}: choose {', '.join(writers)}")
        result = session.results.get(view)
        if result is None and view not in ("audio", "hidden_states"):
            raise OptionError(NOTHING_SHOWN)
        tap = "mel" if view == "audio" else str(data.get("tap"))
        shown = Shown(view, session, result, tap, "dark" if data.get("dark") else None)
        code = writers[view](shown)
        return {
            "python": "\n".join(code.python),
            "command": code.command,
            "note": code.note,
            "runs_in": self._folder(shown),
        }

    def _folder(self, shown: Shown) -> str:
        """Where the code runs, in words: it names files and collections without their folders."""
        recordings = _recordings(shown)
        names = [printable(each.file_name) for each in recordings if each.row is None]
        if len(names) < len(recordings) or shown.view in OF_COLLECTION:
            names.append(self.code.code.collection_name())
        has_example = any(each.is_example for each in recordings)
        note = " (examples come with the package)" if has_example else ""
        return f"a folder that holds {' and '.join(dict.fromkeys(names))}{note}"


def _recordings(shown: Shown) -> list[RecordingName]:
    """The recordings that the code opens."""
    if shown.view == "map":
        return []
    if shown.view == "search":
        searched = searched_recording(shown)
        return [] if searched is None else [searched]
    pair = [shown.other] if shown.view in ("compare", "trace") else []
    return [RecordingName.of(clip) for clip in (shown.clip, *pair)]
