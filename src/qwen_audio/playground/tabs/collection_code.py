"""Code of views of the collection: searches, and the map."""

from __future__ import annotations

from typing import Any

from .recording_code import (
    Code,
    RecordingCode,
    RecordingName,
    Shown,
    call,
    command_line,
    option_arguments,
)
from .search import RESULT_LIMIT

__all__ = ["map_code", "search_code", "searched_recording"]


def search_code(code: RecordingCode, shown: Shown) -> Code:
    """Of a search by words of captions, by a row, or by a recording."""
    name, query = code.collection_name(), shown.result
    opened = f"collection = qa.Collection.open({name!r})"
    start, save = ["import qwen_audio as qa", ""], 'results.save("search.csv")'
    options: dict[str, Any] = {"limit": RESULT_LIMIT}
    limit = {"--limit": RESULT_LIMIT}
    recording, part = searched_recording(shown), query["window"]
    if recording is not None:
        # Its own windows are left out by its name, as its path isn't shown.
        where = None if query.get("include_self", True) else _not_named(recording.file_name)
        found = call("results = collection.search", "clip", where=where, **options)
        loaded = code.waveform(recording, "clip", part)
        python = [*start, *([] if opened in loaded else [opened]), *loaded, found, save]
        arguments = ["search", name, code.file_argument(recording), "--include-self"]
        note = code.no_command((recording, part))
        return code.with_command(python, note, arguments, {"--where": where, **limit})
    if (text := query["text"]) is not None:
        found = call("results = collection.search", caption=text, **options)
        python = [*start, opened, found, save]
        return code.with_command(python, "", ["search", name], {"--caption": text, **limit})
    like = "like=f\"{row['source']}#{row['window']}\""
    found = call("results = collection.search", like, **options)
    return Code([*start, *code.row(query["row"]), found, save], note=code.no_path)


def map_code(code: RecordingCode, shown: Shown) -> Code:
    """Of the map."""
    name, method = code.collection_name(), shown.result.method
    python = [
        "import qwen_audio as qa",
        "",
        call(f"projection = qa.Collection.open({name!r}).map", method=method),
        'projection.save("map.csv")',
        call("projection.write_html", '"map.html"', theme=shown.theme),
    ]
    options = {"-o": "map.html", "--method": method, "--theme": shown.theme}
    return Code(python, command_line(["qwen-audio", "map", name, *option_arguments(options)]))


def searched_recording(shown: Shown) -> RecordingName | None:
    """The recording that was searched with, though another one may be open by now, if any."""
    query, clip = shown.result, shown.session.clip
    if query["text"] is not None or query.get("row") is not None:
        return None
    name = str(query["clip"])
    return RecordingName.of(clip) if clip is not None and clip.name == name else RecordingName(name)


def _not_named(file_name: str) -> str:
    """SQL that leaves out recordings of a name, in whatever folder."""
    literal = "/" + file_name.replace("'", "''")
    return f"NOT ends_with(source, '{literal}')"
