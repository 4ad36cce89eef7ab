"""What all methods of a model share: the pipeline, its dimensions and taps, and their cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qwen_audio.audio.load_options import LoadOptions
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import OptionError
from qwen_audio.inference.cost import CostEstimate
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.interventions import described
from qwen_audio.inference.options import PoolingName, SpanName, check_prompt, check_span
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.pooling import Pooling
from qwen_audio.models.components.prompt import PromptTokenizer
from qwen_audio.models.tap import ModelDimensions, Tap
from qwen_audio.weights.option_values import quantize_name

__all__ = ["ModelBase", "token_texts"]


class ModelBase:
    """A loaded checkpoint.

    Attributes:
        pipeline: the batched computation behind all methods: encoder and decoder passes, capture at
            taps, generation. For code that builds on this package.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @property
    def name(self) -> str:
        """The checkpoint's name, as it was given to `load`."""
        return self.pipeline.checkpoint.name

    @property
    def adapter(self) -> str | None:
        """The adapter's name, as it was given to `load`; None without one."""
        adapter = self.pipeline.checkpoint.adapter
        return None if adapter is None else adapter.name

    @property
    def quantization(self) -> str | None:
        """How its weights are quantised, such as "int4-g32+head-int8"; None where they aren't."""
        return self.pipeline.checkpoint.quantization

    @property
    def quantize(self) -> str | None:
        """The option of `load` that gives it; None also for a checkpoint that is stored so."""
        return quantize_name(self.quantization)

    @property
    def dimensions(self) -> ModelDimensions:
        """Widths and numbers of layers."""
        return self.pipeline.checkpoint.dimensions

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Every tap, shallowest first."""
        return self.dimensions.taps()

    @property
    def dtype(self) -> str:
        """The dtype of the computation, such as "bfloat16"."""
        return self.pipeline.dtype_name

    def cost(self, tap: str | Tap | None = None) -> CostEstimate:
        """What a tap needs, before any weights are read: tensors, bytes, memory, GFLOP.

        None, or "text", means generating text. Of a hub model only the index and the shards'
        headers are downloaded.
        """
        return self.pipeline.cost(self._tap_or_text(tap))

    def fetch(self, tap: str | Tap | None = None) -> None:
        """Download from a hub all that a tap (or text) needs; every method does so when it starts.

        Raises:
            CheckpointError: if the hub can't deliver it.
        """
        resolved = self._tap_or_text(tap)
        self.pipeline.fetch_weights(resolved)
        _ = self.pipeline.checkpoint.feature_extractor
        if resolved is None or resolved.in_language_model:
            _ = self.pipeline.tokenizer.render(None)  # with the chat template

    def spec(
        self,
        tap: str | Tap = "audio_tower",
        *,
        pooling: PoolingName = "mean",
        span: SpanName = "audio",
        prompt: str | None = None,
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
        track: int | None = None,
    ) -> EmbeddingSpec:
        """The embedding spec of `encode` with the same options; raises as it does."""
        resolved = self.dimensions.tap(tap)
        window_config = self.pipeline.window_config(window_seconds, hop_seconds)
        pool = Pooling(pooling, span)
        check_span(span, resolved)
        prompt_text = self._prompt_text([resolved], prompt)
        return self._spec(resolved, pool, prompt_text, window_config, track)

    def _tap_or_text(self, tap: str | Tap | None) -> Tap | None:
        if tap is not None and tap != "text":
            return self.dimensions.tap(tap)
        if not self.dimensions.has_language_model:
            raise OptionError(
                f"{self.name} has no language model that generates text: name one of its taps, "
                f"such as {self.taps[-1]}"
            )
        return None

    def _prompt_text(self, taps: Sequence[Tap], prompt: str | None) -> str | None:
        """The rendered prompt, or None where no tap is in the language model."""
        if any(tap.in_language_model for tap in taps):
            return self.pipeline.tokenizer.render(prompt)
        check_prompt(prompt, taps)
        return None

    def _resolve_taps(self, taps: Iterable[str | Tap]) -> dict[str, Tap]:
        """Taps of this model, by the names they were given as."""
        if not isinstance(taps, Iterable):
            raise OptionError(
                f"tap={taps!r}: name one, such as 'audio_tower', or several in a list"
            )
        resolved = {str(tap): self.dimensions.tap(tap) for tap in taps}
        if not resolved:
            raise OptionError("taps is empty: name at least one, such as 'audio_tower'")
        return resolved

    def _spec(
        self,
        tap: Tap,
        pool: Pooling,
        prompt_text: str | None,
        window_config: WindowConfig,
        track: int | None,
    ) -> EmbeddingSpec:
        return EmbeddingSpec(
            model=self.name,
            revision=self.pipeline.checkpoint.revision,
            tap=str(tap),
            pooling=pool.pooling,
            span=pool.span,
            prompt=prompt_text if tap.in_language_model else None,
            window_seconds=window_config.window_seconds,
            hop_seconds=window_config.resolved_hop_seconds,
            dtype=self.pipeline.dtype_name,
            track=LoadOptions(track=track).track,
            adapter=self.pipeline.checkpoint.adapter_hash,
            quantization=self.quantization,
            edits=described(self.pipeline.edits, tap),
        )

    def _token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each position of the language model; "" for audio."""
        if not token_ids:  # of a tap before the language model, which may not exist
            return []
        return token_texts(self.pipeline.tokenizer, token_ids)


def token_texts(tokenizer: PromptTokenizer, token_ids: Sequence[int]) -> list[str]:
    """The text of each position of the language model; "" for audio."""
    texts = {token: tokenizer.decode_token(token) for token in set(token_ids)}
    texts[tokenizer.audio_token_id] = ""
    return [texts[token] for token in token_ids]
