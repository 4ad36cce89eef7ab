"""Which of FFmpeg's formats are read: those whose audio is in the file itself. What others are.

A format that names other files, hosts or devices, or that is a score or script from which sound is
computed, is not among them; neither is one without a header, whose sampling rate would be a guess.
"""

from __future__ import annotations

import functools
import re

import av

__all__ = ["SELF_CONTAINED_FORMATS", "audio_decoders", "what_it_is"]

SELF_CONTAINED_FORMATS = tuple(
    name
    for names in (
        # Audio files.
        "aac ac3 aiff amr amrnb amrwb ape au avr bonk caf daud dsf dts dtshd eac3 epaf "
        "flac hcom iamf iff ircam lc3 loas mlp mp3 mpc mpc8 nistsphere nsp ogg oma osq "
        "pvf qoa rka rso sds sdr2 shn sox spdif tak truehd tta voc vqf w64 wav wavarc "
        "wsd wv wve xwma",
        # Speech and telephony.
        "aa act bit codec2 dss g722 g723_1 g726 g726le g728 g729 gsm ilbc msnwctcp qcp sbc sln",
        # Video files, and streams as they are broadcast.
        "asf avi dhav dv flv gxf kux live_flv lxf matroska mov mpeg mpegts mxf nsv nut "
        "nuv pva rm smjpeg swf ty wtv",
        # Audio of games.
        "ace acm aix alp apac argo_asf argo_cvg dcstr fwse laf musx pp_bnk redspark "
        "sdns sdx wady wsaud xmd ads adx aea afc apc apm ast bfstm binka brstm fsb "
        "genh hca iss kvag mmf msf mtaf rsd siff sol svag svs vag vpk xa xvag",
    )
    for name in names.split()
)
"""FFmpeg's names of the formats that are read."""

_NAMES_OTHERS = "{}: the files that it names are not opened; give the audio files among them"
_BEGINNINGS = {
    "#extm3u": "a playlist (M3U, HLS)",
    "[playlist]": "a playlist (PLS)",
    "[reference]": "a playlist (ASX)",
    "ffconcat version": "a list of files (ffconcat)",
    "v=0": "a description of a stream (SDP)",
    "# vobsub index file": "an index of subtitles (VobSub)",
}
"""Beginnings of text files, in lower case, and what these are."""
_ELEMENTS = {
    "asx": "a playlist (ASX)",
    "playlist": "a playlist (XSPF)",
    "smil": "a playlist (SMIL)",
    "mpd": "a manifest (DASH)",
    "smoothstreamingmedia": "a manifest (Smooth Streaming)",
    **dict.fromkeys(("compositionplaylist", "packinglist", "assetmap"), "a manifest (IMF)"),
}
"""First elements of XML files, in lower case, and what these are."""
_SUFFIXES = {
    **dict.fromkeys((".m3u", ".m3u8", ".pls", ".asx", ".wax", ".xspf", ".ram"), "a playlist"),
    ".cue": "a cue sheet",
    ".avs": "a script (AviSynth)",
    ".vpy": "a script (VapourSynth)",
}
"""Endings of the names of text files that have no beginning of their own."""
_FIRST_ELEMENT = re.compile(r"<(?:\w+:)?(\w+)")  # <?xml …> and <!-- … --> are none
_CUE_SHEET = re.compile(r"^[ \t]*FILE .*\n[ \t]*TRACK \d", re.MULTILINE)
_IMAGE = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|BM.{4}\0{4}|RIFF.{4}WEBP|II\*\0|MM\0\*", re.S)
_MODULE = re.compile(
    rb"Extended Module: |IMPM|MThd|.{44}SCRM|.{1080}(M\.K\.|M!K!|[468]CHN|FLT[48]|\d\dCH)|PSID|RSID"
    rb"|NESM\x1a|Vgm |GBS\x01|SNES-SPC700",
    re.S,
)


@functools.cache
def audio_decoders() -> str:
    """FFmpeg's names of all decoders of audio, comma-separated.

    No others are opened, so that pictures and subtitles beside the audio cost no time.
    """
    names = []
    for name in sorted(av.codecs_available):
        try:
            is_audio = av.Codec(name, "r").type == "audio"
        except ValueError:  # an encoder
            continue
        if is_audio:
            names.append(name)
    return ",".join(names)


def what_it_is(head: bytes, suffix: str) -> str | None:
    """What a file is that is not read as audio, and what to do; None if that isn't known.

    Args:
        head: its first bytes; 4096 are enough.
        suffix: the ending of its name, such as ".m3u".
    """
    if _IMAGE.match(head):
        return "an image: give the audio files that belong to it"
    if _MODULE.match(head):
        return "a score, from which players compute sound: render it to flac or wav"
    text = _as_text(head)
    if text is None:
        return None
    kind = next((_BEGINNINGS[key] for key in _BEGINNINGS if text.lower().startswith(key)), None)
    if element := _FIRST_ELEMENT.search(text) if text.startswith("<") else None:
        kind = _ELEMENTS.get(element[1].lower())
    elif _CUE_SHEET.search(text):
        kind = "a cue sheet"
    kind = kind or _SUFFIXES.get(suffix.lower())
    if not kind and _is_address(text):
        kind = "a list of addresses"
    return _NAMES_OTHERS.format(kind) if kind else "text: give an audio file"


def _is_address(text: str) -> bool:
    """Whether the first line that is no comment is a URL."""
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    return re.fullmatch(r"[a-z][a-z0-9+.-]+://\S+", first, re.IGNORECASE) is not None


def _as_text(head: bytes) -> str | None:
    """The beginning of a text file; None for other files."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = head.decode(encoding, errors="replace").lstrip()
    if not text or any(ord(c) < 32 and c not in "\t\n\r\f\x1b" for c in text):
        return None
    return text if text.count("\ufffd") <= len(text) // 10 else None
