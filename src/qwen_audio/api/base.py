"""An opened checkpoint: what it is called, how deep it is, and what each depth takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qwen_audio.errors import OptionError
from qwen_audio.inference.cost import CostEstimate
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.models.tap import ModelDimensions, Tap

__all__ = ["Opened"]


class Opened:
    """What all verbs of a model share: its line."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @property
    def name(self) -> str:
        """What the checkpoint was loaded as."""
        return self.pipeline.checkpoint.name

    @property
    def dimensions(self) -> ModelDimensions:
        """The line's widths and depths."""
        return self.pipeline.checkpoint.dimensions

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Every tap, shallowest first."""
        return self.dimensions.taps()

    @property
    def dtype(self) -> str:
        """In which numbers it computes, such as "bfloat16"."""
        return self.pipeline.dtype_name

    def cost(self, tap: str | Tap | None = None) -> CostEstimate:
        """What a tap takes, before any of it is fetched or read: tensors, bytes, memory, GFLOP.

        None, or "text", is the whole line. Of a hub model only the index and the shards' headers
        are fetched.
        """
        return self.pipeline.cost(self._up_to(tap))

    def fetch(self, tap: str | Tap | None = None) -> None:
        """Bring from a hub what a tap (or text) needs; all verbs do so when they begin.

        Raises:
            CheckpointError: if the hub can't give it.
        """
        self.pipeline.fetch_weights(self._up_to(tap))

    def _up_to(self, tap: str | Tap | None) -> Tap | None:
        return None if tap in (None, "text") else self.dimensions.tap(tap)

    def _rendered(self, taps: Sequence[Tap], prompt: str | None) -> str | None:
        """The text that the language model is given, or None where no tap is in it."""
        if any(tap.in_language_model for tap in taps):
            return self.pipeline.prompts.render(prompt)
        if prompt is not None:
            raise OptionError(
                f"prompt={prompt!r:.60} with {', '.join(map(str, taps))}: only the language model "
                "(lm.K, lm.norm) reads a prompt; leave it out or choose such a tap"
            )
        return None

    def _named(self, taps: Iterable[str | Tap]) -> dict[str, Tap]:
        """Taps as they were written → taps of this model."""
        if not isinstance(taps, Iterable):
            raise OptionError(
                f"tap={taps!r}: name one, such as 'audio_tower', or several in a list"
            )
        named = {str(tap): self.dimensions.tap(tap) for tap in taps}
        if not named:
            raise OptionError("taps is empty: name at least one, such as 'audio_tower'")
        return named
