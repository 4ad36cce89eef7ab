"""Tokenizers of Mistral's, tekken.json: converted by transformers once, and kept."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from tokenizers import Tokenizer

__all__ = ["read_tekken"]


def read_tekken(path: Path) -> Tokenizer:
    """The tokenizer of a file, whose conversion takes several times as long as reading the result.

    That is kept in huggingface_hub's assets folder, by the file's content and the version of
    transformers; where the folder can't be written to, or has a file that is damaged, the tokenizer
    is converted again.
    """
    kept = _kept_file(path)
    if kept is not None and kept.is_file():
        with suppress(Exception):  # what tokenizers raises for a damaged file
            return Tokenizer.from_buffer(kept.read_bytes())
    from transformers.integrations.mistral.tokenizer import MistralConverter

    tokenizer = MistralConverter(str(path)).converted()
    if kept is not None:
        unfinished = kept.with_name(f"{kept.name}.{os.getpid()}.unfinished")
        with suppress(OSError):
            try:
                unfinished.write_text(tokenizer.to_str(), encoding="utf-8")
                unfinished.replace(kept)  # there whole or not at all
            finally:
                unfinished.unlink(missing_ok=True)
    return tokenizer


def _kept_file(path: Path) -> Path | None:
    """Where the conversion of a file is kept; None where there is no such folder."""
    import transformers
    from huggingface_hub import cached_assets_path

    content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    key = f"{content}-transformers-{transformers.__version__}"
    try:
        folder = cached_assets_path("qwen_audio", namespace="tokenizers", subfolder=key)
    except (OSError, ValueError):
        return None
    return folder / "tokenizer.json"
