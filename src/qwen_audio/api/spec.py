"""Spec: everything that decides a vector. Vectors of two Specs must never be compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qwen_audio.audio.window import WINDOW_SECONDS
from qwen_audio.errors import OptionError

__all__ = ["EmbeddingSpec"]


@dataclass(frozen=True)
class EmbeddingSpec:
    """The settings under which a vector was made, as stored beside it.

    `prompt` and `span` matter, and are set, only at taps in the language model.
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

    @cached_property
    def fingerprint(self) -> str:
        """The same for equal Specs, on any machine: 16 hexadecimal digits of SHA-256."""
        canonical = json.dumps(self._settings(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def options(self) -> dict[str, Any]:
        """The keyword options of `AudioModel.encode` and `AudioModel.spec` that lead to it."""
        names = ("tap", "pooling", "span", "prompt", "window_seconds", "hop_seconds")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> str:
        """One line; `from_json` reads it back."""
        return json.dumps(self._settings(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EmbeddingSpec:
        """Raises OptionError for what is no JSON object, and for unknown or missing settings."""
        try:
            settings = json.loads(text)
        except ValueError as error:
            raise OptionError(f"{text!r:.80} is no Spec in JSON ({error})") from error
        if not isinstance(settings, dict):
            raise OptionError(f"{text!r:.80} is no Spec in JSON: it takes an object")
        return cls.of(**settings)

    @classmethod
    def of(cls, **settings: Any) -> EmbeddingSpec:
        """Raises OptionError, not TypeError, for unknown or missing settings."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(settings.keys() - known)
        missing = sorted({"model", "revision", "tap"} - settings.keys())
        if unknown or missing:
            raise OptionError(
                f"a Spec with unknown settings {unknown} and missing ones {missing}: "
                f"it takes {', '.join(sorted(known))}"
            )
        return cls(**settings)

    def _settings(self) -> dict[str, Any]:
        """By name; 30 s are written as 30.0 s are, to which they are equal."""
        seconds = {
            "window_seconds": float(self.window_seconds),
            "hop_seconds": float(self.hop_seconds),
        }
        return dataclasses.asdict(self) | seconds
