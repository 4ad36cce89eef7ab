"""Code that opens what a visitor has open: the model, and parts of recordings."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from qwen_audio import OptionError, Window
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.paths import printable
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.sessions import Clip

__all__ = ["RecordingCode", "call", "command_line", "option_arguments"]


class RecordingCode:
    """Writes code that loads the model and recordings by their names, never by a server's paths."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    def model(self) -> str:
        """The Python expression that loads the model."""
        name, adapter = self.context.model_name, self.context.adapter_name
        arguments = [] if name == "embedded" else [repr(name)]
        return call("qa.load", *arguments, adapter=adapter, quantize=self.context.model.quantize)

    def model_options(self) -> list[str]:
        """The options of commands that load the model."""
        name, adapter = self.context.model_name, self.context.adapter_name
        options = {
            "--model": None if name == "embedded" else name,
            "--adapter": adapter,
            "--quantize": self.context.model.quantize,
        }
        return option_arguments(options)

    def load(self, clip: Clip) -> list[str]:
        """Python lines that load the model, and the open part of a recording as `clip`."""
        return [
            "import qwen_audio as qa",
            "",
            f"model = {self.model()}",
            *self.waveform(clip, "clip", clip.window_of_many),
        ]

    def waveform(self, clip: Clip, variable: str, part: Window | None) -> list[str]:
        """Python lines that load a recording, or a part of it, as a variable."""
        if clip.row is not None:
            lines = self._row(clip, variable)
        else:
            # "-" is standard input.
            name = "./-" if clip.file_name == "-" else clip.file_name
            lines = [f"{variable} = qa.load_waveform({name!r})"]
        if part is not None:
            edges = (part.start_seconds, part.end_seconds)  # exact: multiples of 62.5 µs
            span = ", ".join(str(round(edge * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ) for edge in edges)
            samples = f"{variable}.samples_in(qa.Window({span}))"
            lines.append(f"{variable} = qa.Waveform({samples}, {variable}.name)")
        return lines

    def _row(self, clip: Clip, variable: str) -> list[str]:
        """Finds a row of the collection by its id: visitors don't see paths."""
        # Of a recording that is longer than the page's limit, its window is all that was decoded.
        window = ", row['window']" if clip.waveform.source_format == "array" else ""
        return [
            f"collection = qa.Collection.open({self.collection_name()!r})",
            "rows = collection.rows()",
            f"row = rows[rows.find({clip.row!r})]",
            f"{variable} = collection.waveform(row['source']{window})",
            f"{variable} = qa.Waveform({variable}.samples, {clip.name!r})",
        ]

    def collection_name(self) -> str:
        """Of the collection, without the path to it. Raises OptionError if there is none."""
        if self.context.collection is None:
            raise OptionError("This playground has no collection.")
        return self.context.collection.name

    def file_argument(self, clip: Clip) -> str:
        """The argument of a command that opens the recording."""
        # "-" is standard input, "@" begins the name of a list, and "-x" would be an option.
        return f"./{clip.file_name}" if clip.file_name.startswith(("-", "@")) else clip.file_name

    def no_command(self, *parts: tuple[Clip, Window | None]) -> str:
        """Why commands can't process these parts of recordings; "" where they can."""
        if any(clip.row is not None for clip, _ in parts):
            return (
                "There is no command: it would take the recording's path, which this page doesn't "
                "show. The Python lines find it in the collection."
            )
        if any(part is not None for _, part in parts):
            return (
                "There is no command: commands process whole recordings, and this is a part of "
                "one, which the Python lines cut."
            )
        return ""


def call(function: str, *arguments: str, **options: Any) -> str:
    """A Python call; options are written as literals, without those that are None."""
    named = [f"{name}={value!r}" for name, value in options.items() if value is not None]
    return f"{function}({', '.join([*arguments, *named])})"


def option_arguments(options: Mapping[str, Any]) -> list[str]:
    """Options of a command as arguments; a sequence repeats its option, None leaves it out."""
    arguments: list[str] = []
    for name, given in options.items():
        for value in given if isinstance(given, list | tuple) else [given]:
            if value is not None:
                text = str(value)
                arguments += [f"{name}={text}"] if text.startswith("-") else [name, text]
    return arguments


def command_line(arguments: Iterable[str]) -> str:
    """Arguments as a line of a shell."""
    return " ".join(map(_quoted, arguments))


def _quoted(argument: str) -> str:
    """One argument. Characters that a terminal would act on are written as escapes ($'…')."""
    if printable(argument) == argument:
        return shlex.quote(argument)
    escaped = argument.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + "".join(map(_escaped, escaped)) + "'"


def _escaped(character: str) -> str:
    if printable(character) == character:
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
