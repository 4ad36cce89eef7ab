"""Writes voxtral_prompts.json and voxtral_texts.json: what mistral-common makes of conversations,
and of texts to be continued, with a small tokenizer.

    uv run --isolated --no-project --with "mistral-common[audio]==1.13.1" \
        python tests/data/make_voxtral_prompts.py

Not in the development environment: with Python 3.11 and 3.12 it needs an older numpy.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

DATA = Path(__file__).parent
sys.path.insert(0, str(DATA.parent))

from tekken import write_tekken  # noqa: E402

AUDIO = {"type": "audio", "audio": ""}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": [AUDIO, _text("Is it fast?")]}],
    [{"role": "user", "content": [_text("What is this?"), AUDIO, _text(" And\n\nthat? ")]}],
    [{"role": "user", "content": [AUDIO, AUDIO, _text("Übermut 42 [INST] </s> [AUDIO]")]}],
    [{"role": "user", "content": " What is that? "}],
    [
        {"role": "user", "content": [AUDIO, _text("What is this?")]},
        {"role": "assistant", "content": "a thing"},
        {"role": "user", "content": "Is it?"},
    ],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is this?"},
        {"role": "assistant", "content": "That."},
        {"role": "user", "content": [_text("in here?")]},
    ],
]


TEXTS = ("What is this?", "Übermut 42 that", "this is that:")


def main() -> None:
    """Write the files beside this one."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(16_000, np.float32), 16_000, format="WAV")
    url = {"url": base64.b64encode(file.getvalue()).decode()}
    with tempfile.TemporaryDirectory() as folder:
        write_tekken(Path(folder))
        tokenizer = MistralTokenizer.from_file(str(Path(folder) / "tekken.json"))
    prompts = []
    for messages in CONVERSATIONS:
        given = json.loads(json.dumps(messages))
        for message in given:
            if isinstance(message["content"], list):
                message["content"] = [
                    {"type": "audio_url", "audio_url": url} if part["type"] == "audio" else part
                    for part in message["content"]
                ]
        request = ChatCompletionRequest.from_openai(messages=given)
        ids = tokenizer.encode_chat_completion(request).tokens
        prompts.append({"messages": messages, "ids": ids})
    text = json.dumps(prompts, ensure_ascii=False, indent=None)
    (DATA / "voxtral_prompts.json").write_text(text + "\n", encoding="utf-8")
    encode = tokenizer.instruct_tokenizer.tokenizer.encode  # as a raw completion is encoded
    texts = {text: encode(text, bos=True, eos=False) for text in TEXTS}
    text = json.dumps(texts, ensure_ascii=False)
    (DATA / "voxtral_texts.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
