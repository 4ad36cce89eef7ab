"""Grammar of the captions: attributes to sentences, and sentences to attributes.

Training writes captions with `caption`, evaluation reads generated ones with `parse`; a test checks
that `parse(caption(a)) == a` for all attributes. A sentence outside the grammar parses to None, and
counts as wrong in evaluation.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .instruments import BACKINGS, BY_NAME, LEADS

TEMPOS = ("slow", "moderate", "fast")
REGISTERS = ("low", "middle", "high")
LOUDNESSES = ("quiet", "moderate", "loud")
CHANGES = ("steady", "louder", "softer")
EFFECTS = {
    "impact": "an impact or a bang",
    "machine": "an engine or a machine",
    "nature": "wind, water or noise",
    "creature": "an animal or a creature",
    "electronic": "a beep or an electronic sound",
}
MOODS = {
    ("slow", "quiet"): "calm",
    ("slow", "moderate"): "gentle",
    ("slow", "loud"): "solemn",
    ("moderate", "quiet"): "relaxed",
    ("moderate", "moderate"): "easygoing",
    ("moderate", "loud"): "confident",
    ("fast", "quiet"): "light",
    ("fast", "moderate"): "lively",
    ("fast", "loud"): "energetic",
}
_CHANGE_WORDS = {"steady": "stays steady", "louder": "grows louder", "softer": "grows softer"}
_LOUDNESS_WORDS = {"quiet": "quiet", "moderate": "moderately loud", "loud": "loud"}

CAPTION_QUESTIONS = ("Describe the music:", "Describe the sound:", "Describe the audio:")
QUESTIONS: dict[str, tuple[str, ...]] = {
    "caption": CAPTION_QUESTIONS,
    "lead": (
        "Which instrument leads?",
        "What instrument leads?",
        "Which instrument plays the melody?",
        "What is the lead instrument?",
    ),
    "instruments": (
        "Which instruments play?",
        "What instruments play?",
        "Which instruments are playing?",
        "What instruments are there?",
    ),
    "speech": (
        "Is anyone speaking?",
        "Is someone speaking?",
        "Is anybody talking?",
        "Is there speech?",
    ),
    "tempo": ("How fast is it?", "How fast is the music?", "What is the tempo?"),
    "drums": ("Are there drums?", "Are there any drums?", "Do drums play?"),
    "loudness": ("How loud is it?", "How loud is the music?", "How loud is the sound?"),
    "music": ("Is this music?", "Is it music?", "Is there music?"),
}


@dataclass(frozen=True)
class Attributes:
    """Everything a caption may state. A field is None where it does not apply or is inaudible.

    Attributes:
        kind: music, speech, effect or silence.
        lead: leading instrument; None for drums alone.
        texture: line, chords or accompanied.
        backing: accompanying instruments, without drums.
        speech: a voice over music (kind music) or alone (kind speech).
        tempo: None in clips too short for a pulse.
        change: of loudness; None in clips too short for a trend.
        effect: group of `EFFECTS`.
    """

    kind: str
    lead: str | None = None
    texture: str | None = None
    backing: tuple[str, ...] = ()
    drums: bool = False
    speech: bool = False
    register: str | None = None
    tempo: str | None = None
    loudness: str | None = None
    change: str | None = None
    effect: str | None = None

    @property
    def mood(self) -> str | None:
        """Mood from tempo and loudness, where both are known."""
        if self.kind != "music" or self.tempo is None or self.loudness is None:
            return None
        return MOODS[self.tempo, self.loudness]


UNNAMED_BACKING = "other instruments"


def reliable_attributes(a: Attributes) -> Attributes:
    """The attributes that the present checkpoint recognizes reliably, for its captions.

    Accompanying instruments are not among them, so captions don't name them: a wrong name is worse
    than none.
    """
    return replace(a, backing=(UNNAMED_BACKING,) if a.backing else ())


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _loudness_sentence(a: Attributes) -> str:
    if a.loudness is None:
        return ""
    change = f" and {_CHANGE_WORDS[a.change]}" if a.change else ""
    return f"It is {_LOUDNESS_WORDS[a.loudness]}{change}."


def _music_sentence(a: Attributes) -> str:
    if a.lead is None:
        return "Drums play alone."
    register = f"in a {a.register} register"
    if a.texture == "accompanied":
        others = _join([*a.backing, *(["drums"] if a.drums else [])])
        article = BY_NAME[a.lead].article
        return f"{article} {a.lead} leads {register}, accompanied by {others}."
    what = "a melody" if a.texture == "line" else "chords"
    return f"A solo {a.lead} plays {what} {register}."


def caption(a: Attributes) -> str:
    """Caption that states exactly these attributes."""
    if a.kind == "silence":
        return "Silence. Nothing is heard."
    if a.kind == "speech":
        return f"Someone is speaking, without music. {_loudness_sentence(a)}".strip()
    if a.kind == "effect":
        group = f": {EFFECTS[a.effect]}" if a.effect else ""
        return f"A sound that is neither music nor speech{group}. {_loudness_sentence(a)}".strip()
    sentences = [
        "Someone is speaking over music." if a.speech else "",
        _music_sentence(a),
        f"The tempo is {a.tempo}." if a.tempo else "",
        _loudness_sentence(a),
        f"The mood is {a.mood}." if a.mood else "",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def answer(a: Attributes, topic: str) -> str:
    """Answer to a question of `QUESTIONS[topic]`.

    Raises:
        ValueError: for an unknown topic.
    """
    if topic == "caption":
        return caption(a)
    if topic == "speech":
        return "Yes, someone is speaking." if a.speech else "No, nobody is speaking."
    if topic == "loudness":
        return _loudness_sentence(a) or "Nothing is heard."
    if topic == "drums":
        return "Yes, there are drums." if a.drums else "No, there are no drums."
    if a.kind != "music":
        what = {"silence": "Nothing is heard.", "speech": "Someone is speaking."}.get(
            a.kind, "The sound is neither music nor speech."
        )
        return (
            f"No, this is not music. {what}" if topic == "music" else f"There is no music. {what}"
        )
    if topic == "music":
        return "Yes, someone is speaking over music." if a.speech else "Yes, this is music."
    if topic == "tempo":
        return f"The tempo is {a.tempo}." if a.tempo else "There is no clear tempo."
    if a.lead is None:
        return "Drums play alone."
    lead = f"{BY_NAME[a.lead].article} {a.lead}"
    if topic == "lead":
        return f"{lead}."
    if topic == "instruments":
        return f"{_join([lead, *a.backing, *(['drums'] if a.drums else [])])}."
    raise ValueError(f"no such topic: {topic!r}; topics are {', '.join(QUESTIONS)}")


def _alternatives(words: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_LOUD = (
    rf"(?: ?It is (?P<loudness>{_alternatives(_LOUDNESS_WORDS.values())})"
    rf"(?: and (?P<change>{_alternatives(_CHANGE_WORDS.values())}))?\.)?"
)
_SPEECH = re.compile(rf"Someone is speaking, without music\.{_LOUD}")
_EFFECT = re.compile(
    r"A sound that is neither music nor speech"
    rf"(?:: (?P<effect>{_alternatives(EFFECTS.values())}))?\.{_LOUD}"
)
_OTHERS = _alternatives([*BACKINGS, UNNAMED_BACKING, "drums"])
_MUSIC = re.compile(
    r"(?P<speech>Someone is speaking over music\. )?"
    r"(?:Drums play alone\.|"
    rf"(?:A solo (?P<solo>{_alternatives(LEADS)}) plays (?P<what>a melody|chords)"
    rf"|An? (?P<lead>{_alternatives(LEADS)}) leads)"
    rf" in a (?P<register>{_alternatives(REGISTERS)}) register"
    rf"(?:, accompanied by (?P<others>(?:{_OTHERS})(?:(?:, | and )(?:{_OTHERS}))*))?\.)"
    rf"(?: The tempo is (?P<tempo>{_alternatives(TEMPOS)})\.)?{_LOUD}"
    rf"(?: The mood is (?P<mood>{_alternatives(MOODS.values())})\.)?"
)


def _loudness_and_change(match: re.Match[str]) -> tuple[str | None, str | None]:
    words, change = match["loudness"], match["change"]
    return (
        next((k for k, v in _LOUDNESS_WORDS.items() if v == words), None),
        next((k for k, v in _CHANGE_WORDS.items() if v == change), None),
    )


def parse(text: str) -> Attributes | None:
    """Attributes that a caption states; None for a text outside the grammar."""
    text = text.strip()
    if text == "Silence. Nothing is heard.":
        return Attributes("silence")
    if match := _SPEECH.fullmatch(text):
        loudness, change = _loudness_and_change(match)
        return Attributes("speech", speech=True, loudness=loudness, change=change)
    if match := _EFFECT.fullmatch(text):
        loudness, change = _loudness_and_change(match)
        effect = next((k for k, v in EFFECTS.items() if v == match["effect"]), None)
        return Attributes("effect", effect=effect, loudness=loudness, change=change)
    match = _MUSIC.fullmatch(text)
    if match is None:
        return None
    loudness, change = _loudness_and_change(match)
    lead = match["solo"] or match["lead"]
    others = re.split(r", | and ", match["others"]) if match["others"] else []
    texture = None
    if lead is not None:
        texture = {"a melody": "line", "chords": "chords", None: "accompanied"}[match["what"]]
    return Attributes(
        "music",
        lead=lead,
        texture=texture,
        backing=tuple(other for other in others if other != "drums"),
        drums=lead is None or "drums" in others,
        speech=match["speech"] is not None,
        register=match["register"],
        tempo=match["tempo"],
        loudness=loudness,
        change=change,
    )
