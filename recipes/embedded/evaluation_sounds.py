"""Sounds for evaluation only: FreePats played by TiMidity, and files in Qt resource archives."""

import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

import numpy as np
import soxr

from .composition import Note
from .render import RATE, Wave, fit_length

_TICKS_PER_SECOND = 960  # and per beat, at 60 beats per minute
_RENDER_RATE = 32_000


class FreePats:
    """A `Player` of FreePats, by the `timidity` program."""

    names: tuple[str, ...] = ("freepats",)

    def __init__(self, folder: Path) -> None:
        patches = folder / "usr/share/midi/freepats"
        listing = (folder / "etc/timidity/freepats.cfg").read_text()
        lines = [line for line in listing.splitlines() if not line.startswith("dir")]
        self._config = Path(tempfile.mkdtemp()) / "timidity.cfg"
        self._config.write_text("\n".join([f"dir {patches}", *lines]) + "\n")

    def play(
        self,
        font: str,
        program: int,
        notes: tuple[Note, ...],
        seconds: float,
        shift: float = 0.0,
        bank: int = 0,
    ) -> Wave:
        """See `render.Player`.

        Raises:
            ValueError: for another font than "freepats", a shift or a bank.
        """
        if font not in self.names or shift or bank:
            raise ValueError(
                f"{font!r}, bank {bank}, by {shift}: FreePats has one font, no shift and no bank"
            )
        command = ["timidity", "-c", str(self._config), "-Or1slM", f"-s{_RENDER_RATE}"]
        command += ["--reverb=0", "--chorus=0", "-o-", "-"]
        song = _midi(program, notes)
        done = subprocess.run(command, input=song, capture_output=True, check=True)
        wave = np.frombuffer(done.stdout, dtype="<i2").astype(np.float32) / 32768
        return fit_length(soxr.resample(wave, _RENDER_RATE, RATE, quality="MQ"), seconds)


def _delta(ticks: int) -> bytes:
    groups = [ticks & 0x7F]
    while ticks := ticks >> 7:
        groups.append(0x80 | (ticks & 0x7F))
    return bytes(reversed(groups))


def _midi(program: int, notes: tuple[Note, ...]) -> bytes:
    channel = 9 if program < 0 else 0
    events = [(0, bytes([0xC0 | channel, max(0, program if program >= 0 else -program - 1)]))]
    for note in notes:
        on, off = (
            round(note.start * _TICKS_PER_SECOND),
            round((note.start + note.length) * _TICKS_PER_SECOND),
        )
        events.append((on, bytes([0x90 | channel, note.key, max(1, int(127 * note.velocity))])))
        events.append((max(on + 1, off), bytes([0x80 | channel, note.key, 0])))
    track, position = b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big"), 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        track += _delta(tick - position) + message
        position = tick
    track += b"\x00\xff\x2f\x00"
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, _TICKS_PER_SECOND)
    return header + b"MTrk" + struct.pack(">I", len(track)) + track


def qt_resource(path: Path) -> dict[str, bytes]:
    """Files in a Qt resource archive, by their base names."""
    data = path.read_bytes()
    version, tree, blobs, names = struct.unpack_from(">IIII", data, 4)
    size = 22 if version >= 2 else 14
    files: dict[str, bytes] = {}

    def visit(entry: int) -> None:
        offset = tree + entry * size
        named, flags = struct.unpack_from(">IH", data, offset)
        if flags & 2:
            count, first = struct.unpack_from(">II", data, offset + 6)
            for child in range(first, first + count):
                visit(child)
            return
        (at,) = struct.unpack_from(">I", data, offset + 10)
        (length,) = struct.unpack_from(">I", data, blobs + at)
        body = data[blobs + at + 4 : blobs + at + 4 + length]
        (letters,) = struct.unpack_from(">H", data, names + named)
        name = data[names + named + 6 : names + named + 6 + 2 * letters].decode("utf-16-be")
        files[name] = zlib.decompress(body[4:]) if flags & 1 else body

    visit(0)
    return files
