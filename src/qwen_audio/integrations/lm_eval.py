"""Adapter for lm-evaluation-harness: likelihoods and answers about audio.

    import lm_eval
    from qwen_audio.integrations.lm_eval import QwenAudioLM

    lm_eval.simple_evaluate(QwenAudioLM("Qwen/Qwen2-Audio-7B-Instruct"), tasks=["my_audio_task"])

A task gives its audio with `doc_to_audio`, and says with `<audio>` in its text where each goes.
Tasks of rolling likelihoods (perplexity of texts) are refused: they have neither audio nor prompt.
See https://github.com/EleutherAI/lm-evaluation-harness.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from torch import Tensor

from qwen_audio.api.model import load
from qwen_audio.audio.load import load_waveform
from qwen_audio.errors import AudioError, OptionError, check_extra
from qwen_audio.inference.generation import CachedContext
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.score import ChoiceScores
from qwen_audio.inference.token_tree import check_choices
from qwen_audio.models.checkpoint import EMBEDDED

check_extra("the adapter for lm-evaluation-harness", "lm-eval", "lm_eval")
from lm_eval.api.model import LM  # noqa: E402
from lm_eval.api.registry import register_model  # noqa: E402

__all__ = ["PLACEHOLDER", "QwenAudioLM"]

PLACEHOLDER = "<audio>"
"""Where audio goes in the text of a task."""


@register_model("qwen-audio")
class QwenAudioLM(LM):  # type: ignore[misc]
    """A model whose answers about audio are scored and generated; text without audio, too.

    Args:
        pretrained: as `model` of `qwen_audio.load`.
        options: others of `load`: device, dtype, quantize, …; those of the harness that have no
            meaning here (batch_size, max_batch_size) are ignored.
    """

    MULTIMODAL = True

    def __init__(self, pretrained: str = EMBEDDED, **options: Any) -> None:
        super().__init__()
        for name in ("batch_size", "max_batch_size"):
            options.pop(name, None)
        self._model = load(pretrained, **options)
        self._pipeline = self._model.pipeline

    @property
    def tokenizer_name(self) -> str:
        """For the harness's cache."""
        return self._model.name

    def loglikelihood(
        self,
        requests: Sequence[Any],
        disable_tqdm: bool = False,  # noqa: ARG002 (there is no bar)
    ) -> list[tuple[float, bool]]:
        """For each request, (context, continuation) or with a dict of audio, the log-probability
        of the continuation, and whether it is what the model would say."""
        results: list[tuple[float, bool]] = []
        # The continuations of one document follow one another, and share all else.
        for _, group in groupby(requests, key=lambda each: (each.args[0], each.doc_id)):
            of_document = list(group)
            prompt_text, rows = self._input(of_document[0].args)
            token_ids = [self._pipeline.tokenizer.encode_text(each.args[1]) for each in of_document]
            scores = self._scores(prompt_text, rows, token_ids)
            for request, result in zip(of_document, scores, strict=True):
                results.append(result)
                self.cache_hook.add_partial("loglikelihood", request.args, result)
        return results

    def loglikelihood_rolling(
        self,
        requests: Sequence[Any],
        disable_tqdm: bool = False,
    ) -> list[float]:
        """Not available: the harness defines it for texts alone, without a prompt or audio.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "loglikelihood_rolling is of texts alone, and qwen-audio scores answers to a prompt: "
            "use tasks of loglikelihood, multiple_choice or generate_until, or lm_eval's model "
            "'hf' for text"
        )

    def generate_until(
        self,
        requests: Sequence[Any],
        disable_tqdm: bool = False,  # noqa: ARG002
    ) -> list[str]:
        """For each request, (context, options) or with a dict of audio, the answer up to the first
        of the texts in `until`."""
        texts = []
        for request in requests:
            prompt_text, rows = self._input(request.args)
            options = dict(request.args[1])
            until = options.get("until") or []
            sampled = options.get("do_sample", True) and float(options.get("temperature") or 0)
            sampling = Sampling(
                int(options.get("max_gen_toks", Sampling.max_new_tokens)),
                temperature=sampled or 0.0,
                top_p=float(options.get("top_p", 1.0)) if sampled else 1.0,
            )
            (answer,) = self._pipeline.generate(prompt_text, [rows], sampling)
            text = answer.text
            for end in [until] if isinstance(until, str) else until:
                text = text.split(end)[0] if end else text
            texts.append(text)
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        """Turns whose content has `<audio>` in it, through the checkpoint's template."""
        if not add_generation_prompt:
            raise OptionError("a prompt ends where the answer begins: leave out gen_prefix")
        turns = []
        for turn in chat_history:
            content = turn["content"]
            if isinstance(content, str) and PLACEHOLDER in content:
                content = _parts(content)
            turns.append({"role": turn["role"], "content": content})
        return self._pipeline.tokenizer.apply_chat_template(turns)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """For the harness's record of what was used."""
        return "" if chat_template else None

    def _input(self, arguments: Sequence[Any]) -> tuple[str, list[Tensor]]:
        """A request's prompt with the checkpoint's placeholders, and the rows of its audios."""
        context = str(arguments[0])
        extras = arguments[2] if len(arguments) > 2 else {}
        audios = extras.get("audio") or []
        form = self._pipeline.tokenizer.format
        marked = f"{form.before_audio}{form.audio}{form.after_audio}"
        prompt_text = context.replace(PLACEHOLDER, marked)
        missing = len(audios) - prompt_text.count(form.audio)
        if missing == len(audios):  # a task that doesn't say where: before the text
            prompt_text = marked * len(audios) + prompt_text
        return prompt_text, self._rows(audios)

    def _rows(self, audios: Iterable[Any]) -> list[Tensor]:
        mels = []
        longest = self._pipeline.checkpoint.family.window_limits.max_seconds
        for audio in audios:
            waveform = load_waveform(audio)
            if waveform.duration_seconds > longest:
                raise AudioError(
                    f"{waveform.name} lasts {waveform.duration_seconds:.1f} s, but each audio of a "
                    f"request is encoded at once, up to {longest:g} s: cut it"
                )
            mels.append(self._pipeline.log_mel(waveform.samples))
        return self._pipeline.encode_audio(mels) if mels else []

    def _scores(
        self, prompt_text: str, rows: list[Tensor], token_ids: Sequence[tuple[int, ...]]
    ) -> list[tuple[float, bool]]:
        """All at once, or one after another where one begins another, or is it."""

        def pairs(scores: ChoiceScores) -> list[tuple[float, bool]]:
            return list(zip(scores.log_probability.tolist(), scores.is_greedy, strict=True))

        context = CachedContext()
        try:
            check_choices(token_ids, [""] * len(token_ids), include_end=False)
        except OptionError:
            return [
                pairs(self._pipeline.score(prompt_text, [rows], [ids], context=context)[0])[0]
                for ids in token_ids
            ]
        return pairs(self._pipeline.score(prompt_text, [rows], token_ids)[0])


def _parts(content: str) -> list[dict[str, Any]]:
    """Text with placeholders as the parts of a turn."""
    texts = content.split(PLACEHOLDER)
    parts: list[dict[str, Any]] = []
    for number, text in enumerate(texts):
        parts += [{"type": "audio", "audio": ""}] if number else []
        parts += [{"type": "text", "text": text.strip()}] if text.strip() else []
    return parts
