"""A checkpoint's tokenizer from its files; and its tokens as bytes."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers import Tokenizer

from qwen_audio.errors import CheckpointError
from qwen_audio.models.checkpoint_files import CheckpointFiles
from qwen_audio.models.processor_files import SLOW_TOKENIZER, TEKKEN, TOKENIZER

from .tekken import read_tekken

__all__ = ["read_tokenizer", "token_bytes"]


def read_tokenizer(checkpoint: CheckpointFiles) -> Tokenizer:
    """From tokenizer.json, tekken.json, or the files of a tokenizer that was saved without.

    Raises:
        CheckpointError: if they can't be read.
    """
    path = checkpoint.file(TOKENIZER)
    tekken = None if path else checkpoint.file(TEKKEN)
    files = TOKENIZER if path else TEKKEN if tekken else "vocab.json and merges.txt"
    for name in () if path or tekken else SLOW_TOKENIZER:
        checkpoint.file(name)
    try:
        if path is not None:
            return Tokenizer.from_buffer(path.read_bytes())  # from_file takes no non-UTF-8 path
        if tekken is not None:
            return read_tekken(tekken)
        from transformers import Qwen2Tokenizer

        slow: Any = Qwen2Tokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
    except Exception as error:  # neither library raises anything narrower
        raise CheckpointError(
            f"{checkpoint.name}: {files} can't be read ({error}): download it again"
        ) from error
    return slow.backend_tokenizer


def token_bytes(tokenizer: Tokenizer, token_id: int) -> bytes | None:
    """The bytes of a token's text, which may be a part of a character; None where they aren't
    known."""
    text = str(tokenizer.decode([token_id], skip_special_tokens=False))
    if text and "\N{REPLACEMENT CHARACTER}" not in text:
        return text.encode()
    values = [_byte_values().get(character) for character in tokenizer.id_to_token(token_id) or ""]
    known = [value for value in values if value is not None]
    return bytes(known) if known and len(known) == len(values) else None


@cache
def _byte_values() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: value for value, character in bytes_to_unicode().items()}
