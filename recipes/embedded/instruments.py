"""Instruments that captions may name, their families and General MIDI programs.

Programs that sound alike share a name (such as celesta and glockenspiel); programs without a plain
English name are left out.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Instrument:
    """An instrument that captions may name as lead.

    Attributes:
        programs: General MIDI programs, counted from 0.
        low, high: range of its notes, as MIDI keys.
        chords: whether it can play several notes at once.
        held_out: programs of the same family that training does not use, to measure generalization
            to other timbres.
    """

    name: str
    family: str
    programs: tuple[int, ...]
    low: int
    high: int
    chords: bool = False
    article: str = "A"
    held_out: tuple[int, ...] = ()


INSTRUMENTS: tuple[Instrument, ...] = (
    Instrument("piano", "keyboard", (0, 1, 2), 30, 96, True, held_out=(3,)),
    Instrument("electric piano", "keyboard", (4, 5), 36, 88, True, "An"),
    Instrument("harpsichord", "keyboard", (6,), 36, 86, True),
    Instrument("glockenspiel", "mallets", (8, 9), 67, 100, held_out=(10,)),
    Instrument("vibraphone", "mallets", (11,), 53, 89, True),
    Instrument("marimba", "mallets", (12, 13), 48, 93),
    Instrument("set of tubular bells", "mallets", (14,), 55, 79),
    Instrument("steel drum", "mallets", (114,), 52, 86),
    Instrument("organ", "organ", (16, 17, 19, 20), 36, 90, True, "An", held_out=(18,)),
    Instrument("accordion", "free reeds", (21, 23), 48, 88, True, "An"),
    Instrument("harmonica", "free reeds", (22,), 58, 90),
    Instrument("acoustic guitar", "guitar", (24, 25), 40, 80, True, "An"),
    Instrument("clean electric guitar", "guitar", (26, 28), 40, 82, True, held_out=(27,)),
    Instrument("distorted guitar", "guitar", (29, 30), 40, 84, True),
    Instrument("bass", "bass", (32, 33, 34, 36, 37), 26, 55, held_out=(35,)),
    Instrument("synth bass", "bass", (38, 39), 26, 55),
    Instrument("violin", "strings", (40, 110), 55, 96, held_out=(41,)),
    Instrument("cello", "strings", (42,), 36, 74),
    Instrument("double bass", "strings", (43,), 28, 55),
    Instrument("string section", "strings", (44, 48, 49, 51), 38, 90, True, held_out=(50,)),
    Instrument("choir", "voices", (52, 53, 54), 45, 84, True),
    Instrument("trumpet", "brass", (56,), 54, 86, held_out=(59,)),
    Instrument("trombone", "brass", (57,), 38, 70),
    Instrument("tuba", "brass", (58,), 28, 55),
    Instrument("French horn", "brass", (60,), 41, 75),
    Instrument("brass section", "brass", (61, 62, 63), 43, 84, True),
    Instrument("saxophone", "reeds", (64, 65, 67), 44, 86, held_out=(66,)),
    Instrument("oboe", "reeds", (68, 69), 54, 88, False, "An"),
    Instrument("bassoon", "reeds", (70,), 34, 68),
    Instrument("clarinet", "reeds", (71,), 50, 88),
    Instrument("bagpipe", "reeds", (109,), 55, 80),
    Instrument("flute", "flutes", (72, 73, 77), 60, 98, held_out=(74,)),
    Instrument("pan flute", "flutes", (75,), 58, 90),
    Instrument("whistle", "flutes", (78, 79), 62, 96),
    Instrument("synth lead", "synth", (80, 81, 82, 83, 84, 86), 45, 90, held_out=(87,)),
    Instrument("synth pad", "synth", (88, 89, 91, 92, 93, 94, 95), 42, 84, True, held_out=(90,)),
    Instrument("harp", "plucked", (46,), 36, 92, True),
    Instrument("section of pizzicato strings", "plucked", (45,), 38, 88),
    Instrument("sitar", "plucked", (104,), 45, 78),
    Instrument("banjo", "plucked", (105,), 48, 84, held_out=(106, 107)),
)

# Further sounds of the same instruments, for training: font, name → (bank, program). None is of a
# held-out program.
_SIMILAR_PROGRAMS: dict[str, tuple[tuple[int, int], ...]] = {
    "glockenspiel": ((0, 112),),  # tinkle bell
    "marimba": ((0, 108),),  # kalimba
    "clean electric guitar": ((0, 31),),  # its harmonics
    "oboe": ((0, 111),),  # shanai
    "pan flute": ((0, 76),),  # blown bottle
    "synth pad": ((0, 97), (0, 102)),
}
_SHARED_VARIANTS: dict[str, tuple[tuple[int, int], ...]] = _SIMILAR_PROGRAMS | {
    "electric piano": ((8, 4), (8, 5)),
    "harpsichord": ((8, 6),),
    "set of tubular bells": ((8, 14),),
    "organ": ((8, 16), (8, 17), (8, 19)),
    "accordion": ((8, 21),),
    "acoustic guitar": ((8, 25),),
    "clean electric guitar": (*_SIMILAR_PROGRAMS["clean electric guitar"], (8, 26), (8, 28)),
    "distorted guitar": ((8, 30),),
    "synth bass": ((8, 38), (8, 39)),
    "brass section": ((8, 61), (8, 62), (8, 63)),
    "synth lead": ((8, 80),),
}
VARIANTS: dict[str, dict[str, tuple[tuple[int, int], ...]]] = {
    "fluid": _SHARED_VARIANTS | {"violin": ((8, 40),), "string section": ((8, 48),)},
    "musescore": _SHARED_VARIANTS
    | {
        "piano": ((8, 0),),
        "violin": ((8, 40),),
        "string section": tuple(
            (bank, program) for bank in (20, 25, 30, 40, 50) for program in (44, 48, 49)
        ),
        "section of pizzicato strings": ((20, 45), (25, 45), (30, 45), (40, 45), (50, 45)),
        "synth lead": ((8, 80), (20, 81)),
    },
    "generaluser": _SHARED_VARIANTS
    | {
        "set of tubular bells": ((8, 14), (9, 14), (11, 14)),
        "synth bass": ((1, 38), (8, 38), (8, 39), (11, 38), (11, 39), (12, 38)),
        "string section": ((1, 44), (1, 48), (1, 49), (8, 48), (11, 49), (12, 49)),
        "choir": ((1, 52),),
        "trumpet": ((1, 56),),
        "trombone": ((1, 57),),
        "French horn": ((1, 60),),
        "brass section": ((1, 61), (8, 61), (8, 62), (8, 63), (11, 61)),
        "whistle": ((11, 78),),
        "synth lead": ((1, 80), (1, 81), (8, 80), (8, 81), (12, 80), (12, 81), (13, 80), (13, 81)),
        "synth pad": (
            (0, 97),
            (0, 102),
            (11, 88),
            (11, 89),
            (11, 96),
            (12, 88),
            (12, 89),
            (13, 88),
        ),
    },
    "sonivox": _SIMILAR_PROGRAMS,
}

BY_NAME: dict[str, Instrument] = {instrument.name: instrument for instrument in INSTRUMENTS}
LEADS: tuple[str, ...] = tuple(BY_NAME)
FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(i.family for i in INSTRUMENTS))

# Relative frequency in training of leads that are often confused with others.
LEAD_WEIGHTS: dict[str, float] = {
    "trumpet": 4.0,
    "glockenspiel": 3.0,
    "synth pad": 3.0,
    "synth lead": 2.5,
    "clean electric guitar": 2.5,
    "saxophone": 2.0,
    "organ": 2.0,
    "piano": 2.0,
    "trombone": 1.5,
    "brass section": 1.5,
}

# Accompanying instruments have coarser names, by their role in the music.
BACKINGS: dict[str, tuple[str, ...]] = {
    "piano": ("piano", "electric piano"),
    "organ": ("organ",),
    "guitar": ("acoustic guitar", "clean electric guitar", "distorted guitar"),
    "strings": ("string section",),
    "choir": ("choir",),
    "synth pad": ("synth pad",),
    "bass": ("bass", "synth bass"),
}


def family_of(lead: str) -> str:
    """Family of an instrument.

    Raises:
        KeyError: for an unknown name.
    """
    return BY_NAME[lead].family
