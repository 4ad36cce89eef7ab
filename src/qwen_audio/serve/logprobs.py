"""Log-probabilities of an answer's tokens, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qwen_audio.inference.token_probability import TokenProbability
from qwen_audio.models.components.prompt import PromptTokenizer

from .api_errors import ParameterError
from .schemas import ChatRequest

__all__ = ["logprobs_of", "top_count_of"]


def top_count_of(request: ChatRequest) -> int | None:
    """How many of the likeliest tokens a request asks for; None: for no log-probabilities.

    Raises:
        ParameterError: for `top_logprobs` without `logprobs`.
    """
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs is not None:
        raise ParameterError(
            400,
            "top_logprobs has no effect without logprobs: leave it out, or set both.",
            "top_logprobs",
            "invalid_value",
        )
    return None


def logprobs_of(
    tokenizer: PromptTokenizer, probabilities: Iterable[TokenProbability]
) -> dict[str, Any]:
    """`choices[0].logprobs` of some tokens."""

    def described(token_id: int, log_probability: float) -> dict[str, Any]:
        found = tokenizer.token_bytes(token_id)
        return {
            "token": tokenizer.decode_token(token_id),
            "logprob": log_probability,
            "bytes": None if found is None else list(found),
        }

    content = [
        {
            **described(each.token_id, each.log_probability),
            "top_logprobs": [described(*pair) for pair in each.top],
        }
        for each in probabilities
    ]
    return {"content": content, "refusal": None}
