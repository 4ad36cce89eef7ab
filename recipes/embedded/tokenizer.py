"""Tokenizer and prompt formats: Qwen2-Audio's, with a small vocabulary."""

import itertools
import json
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer

from .captions import (
    CHANGES,
    EFFECTS,
    LOUDNESSES,
    QUESTIONS,
    REGISTERS,
    TEMPOS,
    Attributes,
    answer,
)
from .instruments import BACKINGS, LEADS

END, USER, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
AUDIO, AUDIO_START, AUDIO_END = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
SPECIAL = (END, USER, TURN_END, AUDIO, AUDIO_START, AUDIO_END)

# Chat template of Qwen2-Audio-7B-Instruct.
CHAT_TEMPLATE = (
    "{% set audio_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if 'audio' in content or 'audio_url' in content or message['type'] == 'audio'"
    " or content['type'] == 'audio' %}"
    "{% set audio_count.value = audio_count.value + 1 %}"
    "Audio {{ audio_count.value }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT_START = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nAudio 1: "
)
CHAT_BETWEEN = "<|im_end|>\n<|im_start|>assistant\n"

# Words that are frequent in users' questions, so that they get tokens of their own.
_COMMON = """
the be to of and a in that have it for not on with as you do at this but by from or an will would
there their what so up out if about who which when make can like time just know take into your some
could them see other than then now only over also back after use two how our first well way even
new want because any these give most us music sound audio song voice instrument melody chord rhythm
tempo mood genre style beat bass drum piano guitar describe caption listen hear play playing speak
speaking talk loud quiet slow fast high low happy sad calm please tell me I is are was were does
"""


def corpus() -> list[str]:
    """Sentences with every form and every word of the grammar."""
    lines = [question for questions in QUESTIONS.values() for question in questions] * 20
    combinations = itertools.product(TEMPOS, LOUDNESSES, CHANGES, REGISTERS)
    for tempo, loudness, change, register in combinations:
        for lead in LEADS:
            for texture, backing in (
                ("line", ()),
                ("chords", ()),
                ("accompanied", tuple(BACKINGS)),
            ):
                music = Attributes(
                    "music",
                    lead=lead,
                    texture=texture,
                    backing=backing,
                    drums=texture == "accompanied",
                    speech=tempo == "slow",
                    register=register,
                    tempo=tempo,
                    loudness=loudness,
                    change=change,
                )
                lines += [answer(music, topic) for topic in QUESTIONS]
        others = [Attributes("effect", effect=e, loudness=loudness, change=change) for e in EFFECTS]
        others += [Attributes("speech", speech=True, loudness=loudness), Attributes("silence")]
        others += [Attributes("music", drums=True, tempo=tempo, loudness=loudness)]
        lines += [answer(other, topic) for other in others for topic in QUESTIONS]
    lines += [f"{word} {word} {word.capitalize()}" for word in _COMMON.split()] * 3
    lines += [CHAT_START.replace(USER, "").replace(TURN_END, ""), "user assistant system\n"] * 20
    return lines + [" " + line for line in lines]


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Id of a token.

    Raises:
        TypeError: if the text is not one token.
    """
    number = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(number, int):
        raise TypeError(f"{token!r} is not one token")
    return number


def train_tokenizer(vocabulary: int) -> Qwen2Tokenizer:
    """Train a byte-level BPE with at most `vocabulary` entries.

    Normalizer, pre-tokenizer and decoder are Qwen2's; only the merges are new.
    """
    qwen = Qwen2Tokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = qwen.normalizer
    bpe.pre_tokenizer = qwen.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    model = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    tokenizer = Qwen2Tokenizer(vocab=model["vocab"], merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    return tokenizer
