"""Python lines and commands that compute and save what each view shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from qwen_audio import OptionError
from qwen_audio.playground.context import AppContext

from .collection_code import map_code, search_code
from .export import PANELS
from .recording_code import Code, RecordingCode, RecordingName, Shown, call, command_line

__all__ = ["ViewCode"]

_EDIT = re.compile(r"(?P<tap>[\w.]+)\[(?P<span>\w+)\]: (?P<name>\w+)\((?P<arguments>.*)\)")
"""An edit as results name it."""
_DEFAULT_METRIC, _DEFAULT_ALIGNMENT = "cosine", "time"
_DEFAULT_NEW_TOKENS = 256
"""Of `ask` and of the command."""


class ViewCode:
    """Writes the code of views.

    Attributes:
        writers: by view.
    """

    def __init__(self, context: AppContext) -> None:
        self.context, self.code = context, RecordingCode(context)
        self.writers: dict[str, Callable[[Shown], Code]] = {
            "audio": self._plot,
            "ask": self._ask,
            "choices": self._choices,
            "occlusion": self._occlusion,
            "hidden_states": self._plot,
            "lens": self._lens,
            "edit": self._edit,
            "compare": self._compare,
            "trace": self._trace,
            "search": partial(search_code, self.code),
            "map": partial(map_code, self.code),
        }

    def _plot(self, shown: Shown) -> Code:
        tap = str(self.context.model.dimensions.tap(shown.tap))
        panels = PANELS.get(shown.view)
        python = [
            *self.code.load(shown.clip),
            call("view = model.view", "clip", tap=tap),
            *_saving(shown, "view", "npz"),
        ]
        return self._of_file(shown, python, "plot", {"--tap": tap, "--panel": panels})

    def _ask(self, shown: Shown) -> Code:
        turns, window = shown.result
        python = [
            "import qwen_audio as qa",
            "",
            f"model = {self.code.model()}",
            *self.code.waveform(RecordingName.of(shown.clip), "clip", window),
            "session = model.session(clip)",
        ]
        most = self.context.limits.max_new_tokens
        limit = None if most == _DEFAULT_NEW_TOKENS else most
        for number, (question, chat) in enumerate(turns):
            options = {"chat": chat, "follow_up": True if number else None, "max_new_tokens": limit}
            python.append(call("session.ask", *([repr(question)] if question else []), **options))
        python[-1] = f"print({python[-1]})"
        recording = RecordingName.of(shown.clip)
        note = self.code.no_command((recording, window))
        question, chat = turns[-1]
        if len(turns) > 1 or chat is not None:
            note = (
                "There is no command: `describe` asks one question, in the prompt style that the "
                "checkpoint was trained with."
            )
        options = {"--prompt": question or None, "--max-new-tokens": limit}
        return self.code.with_command(
            python, note, ["describe", self.code.file_argument(recording)], options
        )

    def _choices(self, shown: Shown) -> Code:
        choices, prompt = list(shown.result.choices), self._question(shown.result.prompt)
        python = [
            *self.code.load(shown.clip),
            call("scores = model.score", "clip", prompt=prompt, choices=choices),
            *_saving(shown, "scores", "csv"),
        ]
        options = {"--labels": "choices.json", "--prompt": prompt}
        code = self._of_file(shown, python, "classify", options)
        if not code.command:
            return code
        labels = command_line(["printf", "%s", json.dumps(choices, ensure_ascii=False)])
        return Code(python, f"{labels} > choices.json && {code.command}")

    def _occlusion(self, shown: Shown) -> Code:
        result, prompt = shown.result, self._question(shown.result.prompt)
        starts, window = result.start_seconds, result.window_seconds
        # Two windows that cover a clip are at both of its ends, whatever the hop.
        hop = round(float(starts[1] - starts[0]), 6) if len(starts) > 2 else window
        made = call(
            "occlusion = model.occlusion",
            "clip",
            question=prompt,
            answers=result.answers,
            window_seconds=window,
            hop_seconds=hop,
        )
        python = [*self.code.load(shown.clip), made, *_saving(shown, "occlusion", "csv")]
        options = {"--prompt": prompt, "--answer": result.answers}
        return self._of_file(shown, python, "occlude", options | {"--window": window, "--hop": hop})

    def _lens(self, shown: Shown) -> Code:
        words = [word.word for word in shown.result.followed] or None
        prompt = self._question(shown.result.prompt)
        python = [
            *self.code.load(shown.clip),
            call("lens = model.lens", "clip", prompt=prompt, tokens=words),
            *_saving(shown, "lens", "csv"),
        ]
        return self._of_file(shown, python, "lens", {"--prompt": prompt, "--token": words})

    def _edit(self, shown: Shown) -> Code:
        effect = shown.result
        prompt = None if effect.scores is None else self._question(effect.scores[0].prompt)
        asked = {} if prompt is None else {"prompt": prompt}
        describe = call("model.describe", "clip", **asked)
        answer = ["choices=[answer]", "include_end=answer.complete"]
        score = call("model.score", "clip", *answer, **asked)
        python = [
            *self.code.load(shown.clip),
            f"answer = {describe}",
            f"scores = {score}",
            f"with {_edit_call(effect.edit)}:",
            f"    edited = {describe}",
            f"    edited_scores = {score}",
            'print(answer, edited, sep="\\n")',
            "print(edited_scores.log_probability - scores.log_probability)",
        ]
        return Code(python, note="There is no command: hidden states are edited in Python only.")

    def _compare(self, shown: Shown) -> Code:
        result, options = shown.result, dict[str, Any]()
        if (metric := getattr(result, "metric", _DEFAULT_METRIC)) != _DEFAULT_METRIC:
            options["metric"] = metric
        if (alignment := getattr(result, "alignment", _DEFAULT_ALIGNMENT)) != _DEFAULT_ALIGNMENT:
            options["alignment"] = alignment
        python = [
            *self._load_pair(shown),
            call("comparison = model.compare", "clip", "other", **options),
            *_saving(shown, "comparison", "csv"),
        ]
        named = {f"--{name}": value for name, value in options.items()}
        return self._of_pair(shown, python, "compare", named)

    def _trace(self, shown: Shown) -> Code:
        prompt, answers = self._question(shown.result.prompt), shown.result.answers
        pair = (shown.clip, shown.other)
        shorter, longer = sorted(each.window_waveform.duration_seconds for each in pair)
        seconds = None if shorter == longer else shorter
        made = call(
            "trace = model.trace", "clip", "other", prompt=prompt, answers=answers, seconds=seconds
        )
        python = [*self._load_pair(shown), made, *_saving(shown, "trace", "csv")]
        options = {"--prompt": prompt, "--answer": answers, "--seconds": seconds}
        return self._of_pair(shown, python, "trace", options)

    def _question(self, rendered: str) -> str | None:
        """The question that a rendered prompt was made of; None for the model's default.

        One that can't be taken apart is returned as it is, which has the same effect.
        """
        spec, mark = self.context.model.spec, "QUESTION"
        if rendered == spec("lm.0").prompt:
            return None
        before, _, after = str(spec("lm.0", prompt=mark).prompt).partition(mark)
        question = rendered[len(before) : len(rendered) - len(after)]
        is_whole = question.strip() and spec("lm.0", prompt=question).prompt == rendered
        return question if is_whole else rendered

    def _load_pair(self, shown: Shown) -> list[str]:
        """Python lines that load both recordings, as `clip` and `other`."""
        lines = self.code.load(shown.clip)
        other = RecordingName.of(shown.other)
        more = self.code.waveform(other, "other", shown.other.window_of_many)
        return [
            *lines,
            *(line for line in more if line not in lines),
        ]  # a collection is opened once

    def _of_file(
        self, shown: Shown, python: list[str], command: str, options: dict[str, Any]
    ) -> Code:
        """With a command that processes the open recording and writes a picture."""
        recording = RecordingName.of(shown.clip)
        note = self.code.no_command((recording, shown.clip.window_of_many))
        arguments = [command, self.code.file_argument(recording)]
        return self.code.with_command(python, note, arguments, options | _picture(shown))

    def _of_pair(
        self, shown: Shown, python: list[str], command: str, options: dict[str, Any]
    ) -> Code:
        """With a command that processes both recordings and writes a picture."""
        pair = (shown.clip, shown.other)
        parts = [(RecordingName.of(each), each.window_of_many) for each in pair]
        note = self.code.no_command(*parts)
        files = [self.code.file_argument(recording) for recording, _ in parts]
        if files[0] == files[1] and not note:
            note = f"There is no command: `{command}` takes files of different names."
        return self.code.with_command(python, note, [command, *files], options | _picture(shown))


def _picture(shown: Shown) -> dict[str, str | None]:
    return {"-o": f"{shown.view}.png", "--theme": shown.theme}


def _saving(shown: Shown, variable: str, numbers: str) -> list[str]:
    """Python lines that write a result's numbers and its picture."""
    panels = PANELS.get(shown.view)
    arguments = [variable, f'"{shown.view}.png"', *([] if panels is None else [repr(panels)])]
    return [
        f'{variable}.save("{shown.view}.{numbers}")',
        call("qa.save_plot", *arguments, theme=shown.theme),
    ]


def _edit_call(edit: str) -> str:
    """The Python expression of an edit that results name, such as `lm.2[audio]: zero()`."""
    found = _EDIT.fullmatch(edit)
    if found is None:
        raise OptionError(f"{edit:.80}: there is no code of several edits")
    arguments = re.sub(r"heads=([\d+]+)", lambda heads: _heads(heads[1]), found["arguments"])
    made = f"qa.edits.{found['name']}({arguments})"
    span = None if found["span"] == "audio" else found["span"]
    return call("model.edit", repr(found["tap"]), made, span=span)


def _heads(numbers: str) -> str:
    return f"heads=[{', '.join(numbers.split('+'))}]"
