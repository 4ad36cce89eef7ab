"""EmbeddingSpec: everything that decides a vector. Only vectors of equal specs compare."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qwen_audio.audio.window import WINDOW_SECONDS
from qwen_audio.errors import OptionError, number_option, whole_number_option

__all__ = ["EmbeddingSpec", "settings_fingerprint", "spec_differences"]

_LEFT_OUT_UNSET = frozenset({"adapter", "edits", "quantization", "track"})
"""Settings that are stored only where they are set, so that older fingerprints stay valid."""


@dataclass(frozen=True)
class EmbeddingSpec:
    """The settings that a vector was computed with, stored beside it.

    `prompt` is set only at taps in the language model, and only there `span` may differ; `track`
    only where an audio track of the files was chosen. `adapter` is the content hash of the adapter
    that the model was loaded with, if any; `quantization` says how its weights are, such as
    "int4-g32+head-int8"; `edits` says what was changed at taps up to this one, in order.

    Raises:
        OptionError: for a length or track that is no number.
    """

    model: str
    revision: str
    tap: str
    pooling: str = "mean"
    span: str = "audio"
    prompt: str | None = None
    window_seconds: float = WINDOW_SECONDS
    hop_seconds: float = WINDOW_SECONDS
    dtype: str = "float32"
    track: int | None = None
    adapter: str | None = None
    quantization: str | None = None
    edits: str | None = None

    def __post_init__(self) -> None:
        for name in ("window_seconds", "hop_seconds"):  # as floats: 30 and 30.0 are equal
            seconds = number_option(name, getattr(self, name), "a number of seconds")
            if not 0 < seconds < math.inf:
                raise OptionError(f"{name}={seconds:g}: use a number of seconds greater than 0")
            object.__setattr__(self, name, seconds)
        if self.track is not None:
            object.__setattr__(self, "track", whole_number_option("track", self.track, 0))

    @cached_property
    def fingerprint(self) -> str:
        """Equal for equal specs, on any machine: 16 hexadecimal digits of SHA-256."""
        return settings_fingerprint(self.settings)

    @property
    def options(self) -> dict[str, Any]:
        """Keyword options of `AudioModel.encode` and `AudioModel.spec` that give this spec."""
        names = ("tap", "pooling", "span", "prompt", "window_seconds", "hop_seconds")
        options = {name: getattr(self, name) for name in names}
        return options if self.track is None else {**options, "track": self.track}

    @property
    def settings(self) -> dict[str, Any]:
        """By name, as stored: without settings that newer versions added and that are unset."""
        settings = dataclasses.asdict(self)
        return {
            name: value
            for name, value in settings.items()
            if value is not None or name not in _LEFT_OUT_UNSET
        }

    def to_json(self) -> str:
        """One line; `from_json` reads it back."""
        return json.dumps(self.settings, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EmbeddingSpec:
        """Raises OptionError for anything but a JSON object, unknown or missing settings."""
        try:
            settings = json.loads(text)
        except ValueError as error:
            raise OptionError(f"{text!r:.80} is not an embedding spec in JSON ({error})") from error
        if not isinstance(settings, dict):
            raise OptionError(f"{text!r:.80} is not an embedding spec in JSON: give an object")
        return cls.from_settings(**settings)

    @classmethod
    def from_settings(cls, **settings: Any) -> EmbeddingSpec:
        """Raises OptionError, not TypeError, for unknown or missing settings."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(settings.keys() - known)
        missing = sorted({"model", "revision", "tap"} - settings.keys())
        if unknown or missing:
            raise OptionError(
                f"an embedding spec with unknown settings {unknown} and missing ones {missing}: "
                f"it takes {', '.join(sorted(known))}"
            )
        return cls(**settings)


def spec_differences(stored: EmbeddingSpec, requested: EmbeddingSpec) -> str:
    """What differs, in words; "" where vectors of both compare.

    The revision of a checkpoint folder is a digest of its content, so the folder's name does not
    matter.
    """
    if requested.revision == stored.revision:
        requested = dataclasses.replace(requested, model=stored.model)
    if requested.fingerprint == stored.fingerprint:
        return ""
    here, there = stored.settings, requested.settings
    return ", ".join(
        f"{name} {here.get(name)!r} here and {there.get(name)!r} asked for"
        for name in sorted(here | there)
        if here.get(name) != there.get(name)
    )


def settings_fingerprint(settings: Mapping[str, Any]) -> str:
    """Equal for equal settings, which JSON can hold: 16 hexadecimal digits of SHA-256."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
