"""Conversations in transformers' format: their audio, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qwen_audio.errors import OptionError

__all__ = ["Message", "audio_inputs"]

Message = Mapping[str, Any]
"""One turn in transformers' format: {"role": "user", "content": text or a list of parts}."""

AUDIO_KEYS = ("audio", "audio_url", "url", "path")
"""Keys under which the audio part of a message may give its audio; exactly one is used."""

ROLES = ("system", "user", "assistant")
"""Roles that chat templates know."""


def audio_inputs(messages: Sequence[Any]) -> Iterator[Any]:
    """The audio inputs of a conversation, in order.

    Raises:
        OptionError: for an empty or malformed conversation, one that doesn't end with the user's
            turn, or a part that is neither text nor audio, which the template would drop.
    """
    if not messages:
        raise OptionError("the conversation is empty: give at least one user turn")
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, str | list | tuple) or "role" not in message:
            raise OptionError(
                f"{message!r:.80} is not a message: give {{'role': …, 'content': …}} for each "
                "turn, with content a text or a list of parts"
            )
        if message["role"] not in ROLES or not content:
            raise OptionError(
                f"{message!r:.80}: use a role of {', '.join(ROLES)}, and content that is not empty"
            )
        for part in () if isinstance(content, str) else content:
            keys = part.keys() if isinstance(part, Mapping) else set()
            if keys & set(AUDIO_KEYS) or (keys and part.get("type") == "audio"):
                audios = [part[key] for key in AUDIO_KEYS if key in keys]
                if len(audios) != 1:
                    raise OptionError(
                        f"an audio part needs one of {', '.join(AUDIO_KEYS)}, not {sorted(part)}"
                    )
                if "text" in keys:
                    raise OptionError(
                        f"{part!r:.80} has audio and text, of which a template renders one: "
                        "give them as two parts"
                    )
                yield audios[0]
            elif "text" not in keys:
                raise OptionError(
                    f"{part!r:.80} is neither text nor audio: give {{'type': 'text', 'text': …}} "
                    "or {'type': 'audio', 'audio': …}"
                )
    if messages[-1]["role"] != "user":
        raise OptionError(
            f"the conversation ends with the {messages[-1]['role']}'s turn: end it with a user "
            "turn for the model to answer"
        )
