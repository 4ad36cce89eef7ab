"""Code that opens what a visitor has open: the model, and parts of recordings."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qwen_audio import OptionError, Window
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.paths import printable
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.sessions import Session

from .export import NOTHING_SHOWN

__all__ = [
    "Code",
    "RecordingCode",
    "RecordingName",
    "Shown",
    "call",
    "command_line",
    "option_arguments",
]


@dataclass(frozen=True)
class RecordingName:
    """What code opens a recording by.

    Attributes:
        file_name: as it is on the visitor's disk.
        row: the id of a row of the collection that it was opened as.
        is_window: whether only the row's window was opened, and not all of the recording.
        is_example: whether it comes with the package.
    """

    file_name: str
    row: str | None = None
    is_window: bool = False
    is_example: bool = False

    @classmethod
    def of(cls, clip: Clip) -> RecordingName:
        """That of an open recording."""
        # A window has no format of its own: it is opened where the recording is too long.
        is_window = clip.waveform.source_format == "array"
        return cls(clip.file_name, clip.row, is_window, clip.example is not None)


@dataclass(frozen=True)
class Shown:
    """What code is written of.

    Attributes:
        view: files are named after it.
        result: what the view shows, as its tab stored it.
        tap: of hidden states.
        theme: of pictures; None: the default.
    """

    view: str
    session: Session
    result: Any
    tap: str
    theme: str | None

    @property
    def clip(self) -> Clip:
        """The open recording. Raises AudioError if there is none."""
        return self.session.open_clip

    @property
    def other(self) -> Clip:
        """The recording that it is compared with. Raises OptionError if there is none."""
        if self.session.other_clip is None:
            raise OptionError(NOTHING_SHOWN)
        return self.session.other_clip


@dataclass(frozen=True)
class Code:
    """Python lines, and a command or a note why there is none."""

    python: list[str]
    command: str = ""
    note: str = ""


class RecordingCode:
    """Writes code that loads the model and recordings by their names, never by a server's paths."""

    no_path = (
        "There is no command: it would take the recording's path, which this page doesn't show. "
        "The Python lines find it in the collection."
    )
    """Why commands can't open a row of the collection."""

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
            *self.waveform(RecordingName.of(clip), "clip", clip.window_of_many),
        ]

    def waveform(self, recording: RecordingName, variable: str, part: Window | None) -> list[str]:
        """Python lines that load a recording, or a part of it, as a variable."""
        name = recording.file_name
        if recording.row is not None:
            window = ", row['window']" if recording.is_window else ""
            lines = [
                *self.row(recording.row),
                f"{variable} = collection.waveform(row['source']{window})",
                f"{variable} = qa.Waveform({variable}.samples, {name!r})",
            ]
        else:
            name = "./-" if name == "-" else name  # "-" is standard input
            lines = [f"{variable} = qa.load_waveform({name!r})"]
        if part is not None:
            edges = (part.start_seconds, part.end_seconds)  # exact: multiples of 62.5 µs
            span = ", ".join(str(round(edge * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ) for edge in edges)
            samples = f"{variable}.samples_in(qa.Window({span}))"
            lines.append(f"{variable} = qa.Waveform({samples}, {variable}.name)")
        return lines

    def row(self, row_id: str) -> list[str]:
        """Python lines that find a row of the collection by its id: visitors don't see paths."""
        return [
            f"collection = qa.Collection.open({self.collection_name()!r})",
            "rows = collection.rows()",
            f"row = rows[rows.find({row_id!r})]",
        ]

    def collection_name(self) -> str:
        """Of the collection, without the path to it. Raises OptionError if there is none."""
        if self.context.collection is None:
            raise OptionError("This playground has no collection.")
        return self.context.collection.name

    def file_argument(self, recording: RecordingName) -> str:
        """The argument of a command that opens the recording."""
        # "-" is standard input, "@" begins the name of a list, and "-x" would be an option.
        name = recording.file_name
        return f"./{name}" if name.startswith(("-", "@")) else name

    def no_command(self, *parts: tuple[RecordingName, Window | None]) -> str:
        """Why commands can't process these parts of recordings; "" where they can."""
        if any(recording.row is not None for recording, _ in parts):
            return self.no_path
        if any(part is not None for _, part in parts):
            return (
                "There is no command: commands process whole recordings, and this is a part of "
                "one, which the Python lines cut."
            )
        return ""

    def with_command(
        self, python: list[str], note: str, arguments: list[str], options: dict[str, Any]
    ) -> Code:
        """Python lines with a command, or a note why there is none."""
        if note:
            return Code(python, note=note)
        given = [*option_arguments(options), *self.model_options()]
        return Code(python, command_line(["qwen-audio", *arguments, *given]))


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
