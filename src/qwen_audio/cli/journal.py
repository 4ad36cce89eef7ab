"""Journal: what a command has done for each recording, on disk as it comes, to resume from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from qwen_audio.analysis.files import write_errors
from qwen_audio.audio.source import Source
from qwen_audio.errors import AudioError, OptionError, counted
from qwen_audio.paths import exists, path_from_text, path_to_text

from .console import print_error, print_notice

__all__ = ["Journal", "is_newer", "recording_key", "report_done"]


@dataclass(frozen=True)
class _Record:
    """One recording: its name, the size and version of its file, and where its result is."""

    source: str
    version: tuple[int, str] | None
    start: int
    length: int


class Journal:
    """Results of recordings in `OUT.partial`, beside the file that is made of them at the end.

    The file begins with a line of the settings. Each recording has a line with its name, size and
    version, and its result in bytes; one that was not written to its end is cut off. Used in a
    `with`: an error or a signal leaves the file, unless nothing was done; `finish` deletes it.

    What an earlier run has done stays, whether this one names the recording or not: in the journal,
    and in an output that is there when `resume` begins a journal (`continues_output`), whose
    recordings the caller gives to `take_over`.

    Args:
        output: what is made at the end.
        settings: everything that decides a result, as JSON can hold it.
        resume: continue with the file of an earlier run, if there is one.

    Raises:
        OptionError: if there is a file of an earlier run and `resume` is false, if it has other
            settings, or if it can't be written; also in `add`.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.path = output.with_name(f"{output.name}.partial")
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._records: dict[str, _Record] = {}
        self._redone: set[str] = set()
        self._file: IO[bytes] | None = None
        self._output, self._continues_output = output, resume
        if not exists(self.path):
            return
        if not resume:
            raise OptionError(
                f"{self.path} holds what a run that was stopped had done: continue it with "
                "--resume, or delete the file"
            )
        with write_errors(self.path):
            self._file = self.path.open("r+b")
            try:
                self._read(self._file)
            except BaseException:
                self._close()
                raise

    @property
    def continues_output(self) -> bool:
        """Whether the recordings of the output that is there belong to the one that is made now."""
        return self._continues_output and exists(self._output)

    def _read(self, file: IO[bytes]) -> None:
        """Find the records, and cut off one that is not whole."""
        end = 0
        for number, header in enumerate(_headers(file)):
            if number == 0:
                self._check(header.get("settings"))
                self._continues_output = header.get("continues_output", False)
                end = file.tell()
                continue
            source, version = header["source"], header["version"]
            version = tuple(version) if version else None
            record = _Record(source, version, file.tell(), header["bytes"])
            file.seek(record.length, 1)
            if file.read(1) != b"\n":
                break
            self._records[recording_key(source)] = record
            end = file.tell()
        if end == 0:  # stopped before the first line was there
            file.seek(0)
            file.write(self._first_line())
            end = file.tell()
        file.truncate(end)
        file.seek(end)

    def _check(self, stored: Any) -> None:
        if stored != self._settings:
            stored = stored if isinstance(stored, dict) else {}
            names = [
                name
                for name in sorted(stored | self._settings)
                if stored.get(name) != self._settings.get(name)
            ]
            raise OptionError(
                f"{self.path} was made with other settings ({', '.join(names)}): give the same, or "
                "delete it to begin anew"
            )

    def _first_line(self) -> bytes:
        header = {"settings": self._settings, "continues_output": self._continues_output}
        return json.dumps(header).encode() + b"\n"

    def pending(self, files: Sequence[str]) -> list[str]:
        """The files that have no result yet, or one from before they changed, which is void."""
        pending = [file for file in files if not self._is_done(file)]
        self._redone.update(map(recording_key, pending))
        return pending

    def _is_done(self, file: str) -> bool:
        record = self._records.get(recording_key(file))
        return (
            record is not None and record.version is not None and record.version == _version(file)
        )

    def take_over(self, source: str, result: bytes) -> None:
        """A recording of the output, unless there is a newer result.

        One that has changed since, or is no longer there, is kept until it is done again.
        """
        if recording_key(source) not in self._records:
            is_current = is_newer(self._output, source)
            self._add(source, _version(source) if is_current else None, result)

    def add(self, file: str, result: bytes) -> None:
        """The result of another file, on disk when this returns."""
        self._add(path_to_text(file), _version(file), result)
        self._redone.discard(recording_key(file))

    def _add(self, source: str, version: tuple[int, str] | None, result: bytes) -> None:
        header = {"source": source, "version": version, "bytes": len(result)}
        with write_errors(self.path):
            if self._file is None:
                self._file = self.path.open("w+b")
                self._file.write(self._first_line())
            self._file.seek(0, 2)
            self._file.write(json.dumps(header).encode() + b"\n")
            start = self._file.tell()
            self._file.write(result)
            self._file.write(b"\n")
            self._file.flush()
        self._records[recording_key(source)] = _Record(source, version, start, len(result))

    def others(self, files: Sequence[str]) -> int:
        """How many recordings of earlier runs are not among these files."""
        return len(self._records.keys() - set(map(recording_key, files)))

    def results(self, files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The recordings that have a result, each with it.

        These files are in this order, and called as here; others of earlier runs follow the file
        that they came after there, or are the first.
        """
        names = {recording_key(file): path_to_text(file) for file in files}
        following: dict[str, list[str]] = {"": []}
        before = ""
        for key in self._records:
            if key in names:
                before = key
            else:
                following.setdefault(before, []).append(key)
        for file_key in ("", *names):
            for key in (file_key, *following.get(file_key, ())):
                record = self._records.get(key)
                if record is not None and key not in self._redone and self._file is not None:
                    with write_errors(self.path):
                        self._file.seek(record.start)
                        result = self._file.read(record.length)
                    yield names.get(key, record.source), result

    def finish(self) -> None:
        """Delete the file: the output is there."""
        self._close()
        with write_errors(self.path):
            self.path.unlink(missing_ok=True)
        self._records.clear()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        count = len(self._records)
        self._close()
        if kind is not None and count:
            files = counted(count, "file")
            print_error(f"{self.path} holds what was done ({files}): --resume continues")


def _headers(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The lines of JSON; the reader moves past what follows each."""
    while True:
        line = file.readline()
        try:
            header = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            header = None
        if not isinstance(header, dict):
            return
        yield header


def is_newer(path: Path, source: str) -> bool:
    """Whether a file is there and was written after the recording that it is about."""
    try:
        changed = Path(path_from_text(source)).stat().st_mtime_ns
        return path.stat().st_mtime_ns >= changed
    except OSError:
        return False


def report_done(done: int, files: int, others: int = 0) -> None:
    """Say what earlier runs have done: of these files, and of others, whose results stay."""
    parts = [f"already done: {done} of {counted(files, 'file')}"] * (done > 0)
    parts += [f"kept from earlier runs: {counted(others, 'recording')}"] * (others > 0)
    if parts:
        print_notice("; ".join(parts))


def recording_key(file: str) -> str:
    """What a recording is known by, however it is called: its absolute path, or its URI."""
    return file if file == "-" else Source.from_path(file).uri


def _version(file: str) -> tuple[int, str] | None:
    """Size and version of a file; None of standard input, which is never the same."""
    if file == "-":
        return None
    try:
        return Source.from_path(file).stat()
    except AudioError:
        return None
