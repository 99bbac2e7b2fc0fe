"""The ten genres of the synthetic corpus, as tables.

Patterns have one character per sixteenth: ``X`` accent, ``x`` hit, ``o`` soft, ``?`` sometimes, ``.`` rest. In bass
patterns the characters are notes: ``R`` root, ``3`` third, ``5`` fifth, ``8`` octave, ``w`` a step towards the next
chord. Progressions are scale degrees (0 is the tonic), one per bar.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GENRES", "Bass", "Comp", "Drums", "Genre", "Harmony", "Lead", "Mix", "Tempo"]

Range = tuple[float, float]


@dataclass(frozen=True)
class Tempo:
    bpm: Range
    beats: int = 4
    swing: Range = (0.5, 0.5)  # where the off-beat eighth falls within the beat
    loose: float = 0.0  # seconds of random timing


@dataclass(frozen=True)
class Drums:
    kits: tuple[dict[str, str], ...]  # alternatives; drum -> pattern
    level: Range = (0.7, 1.0)
    p: float = 1.0


@dataclass(frozen=True)
class Bass:
    voices: tuple[str, ...]
    patterns: tuple[str, ...]
    gate: Range = (0.6, 1.0)
    level: Range = (0.7, 1.0)
    p: float = 1.0


@dataclass(frozen=True)
class Comp:
    voices: tuple[str, ...]
    patterns: tuple[str, ...]
    chord: str = "triad"  # power, triad, seventh, arpeggio
    gate: Range = (0.5, 0.9)
    level: Range = (0.5, 0.9)
    p: float = 1.0


@dataclass(frozen=True)
class Lead:
    voices: tuple[str, ...]
    density: Range = (0.3, 0.6)  # notes per eighth
    octave: tuple[int, ...] = (5, 6)
    level: Range = (0.5, 0.9)
    p: float = 0.8


@dataclass(frozen=True)
class Harmony:
    minor: float
    progressions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Mix:
    dark: Range = (0.0, 0.5)  # strength of the low-pass; negative brightens
    drive: Range = (0.3, 1.0)  # gain into the final soft clipper
    echo: Range = (0.0, 0.2)
    space: Range = (0.0, 0.2)
    hiss: Range = (-75.0, -60.0)  # dB
    pump: Range = (0.0, 0.0)  # how far the kick ducks the rest


@dataclass(frozen=True)
class Genre:
    tempo: Tempo
    drums: Drums
    bass: Bass
    comp: Comp
    lead: Lead
    harmony: Harmony
    mix: Mix


_POP = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 4))
_VAMP = ((0, 0, 3, 3), (0, 0, 0, 0), (0, 0, 6, 5), (0, 5, 0, 6))

GENRES: dict[str, Genre] = {
    "ambient": Genre(
        Tempo((60, 95), loose=0.02),
        Drums(
            (
                {"shaker": "o...o...o...o...", "rim": "......?.......?."},
                {"kick": "x.......x.......", "hat": "..o...o...o...?."},
            ),
            (0.25, 0.6),
            0.5,
        ),
        Bass(("sub bass", "upright bass"), ("R...............", "R.......5......."), (0.9, 1.0), (0.5, 0.9), 0.7),
        Comp(
            ("synth pad", "strings", "electric piano"),
            ("X...............", "X.......x......."),
            "seventh",
            (1.0, 1.0),
            (0.7, 1.0),
        ),
        Lead(("bell", "flute", "electric piano"), (0.1, 0.3), p=0.8),
        Harmony(0.5, ((0, 3, 5, 4), (0, 5), (0, 2, 3, 3))),
        Mix((0.3, 0.9), (0.2, 0.6), (0.2, 0.5), (0.3, 0.6), (-62, -48)),
    ),
    "blues": Genre(
        Tempo((75, 135), swing=(0.6, 0.67), loose=0.012),
        Drums(
            (
                {"kick": "X.......x.....?.", "snare": "....X.......X..o", "ride": "x...x.x.x...x.x."},
                {"kick": "X.....x.x.......", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
            ),
            (0.5, 0.9),
        ),
        Bass(
            ("electric bass", "upright bass"), ("R...3...5...w...", "R...R...5...5...", "R.R.3.3.5.5.w.w."), (0.7, 0.9)
        ),
        Comp(
            ("steel guitar", "piano", "organ"),
            ("x.....x...x...?.", "....x.......x...", "x.x.x.x.x.x.x.x."),
            "seventh",
            (0.3, 0.8),
        ),
        Lead(("harmonica", "steel guitar", "distorted guitar"), (0.35, 0.65), (5,)),
        Harmony(0.15, ((0, 0, 0, 0, 3, 3, 0, 0, 4, 3, 0, 4), (0, 3, 0, 0, 3, 3, 0, 0, 4, 3, 0, 4))),
        Mix((-0.05, 0.3), (0.5, 1.4), (0.0, 0.2), (0.05, 0.25), (-62, -45)),
    ),
    "bossa": Genre(
        Tempo((105, 150), loose=0.008),
        Drums(
            (
                {"rim": "x..x..x...x..x..", "shaker": "xoxoxoxoxoxoxoxo", "kick": "x..xx..xx..xx..x"},
                {"rim": "x..x..x...x..x..", "conga": "..o?..xx..o?..xx", "hat": "x.x.x.x.x.x.x.x."},
            ),
            (0.4, 0.8),
        ),
        Bass(("upright bass", "electric bass"), ("R.....5.5.....R.", "R.....5.R.....5."), (0.7, 1.0)),
        Comp(
            ("nylon guitar", "electric piano", "piano"),
            ("x..x..x...x..x..", "x...x..x..x..x..", "..x...x..x....x."),
            "seventh",
            (0.5, 0.9),
        ),
        Lead(("flute", "nylon guitar", "piano"), (0.25, 0.55)),
        Harmony(0.4, ((0, 5, 1, 4), (0, 0, 1, 4), (1, 4, 0, 5))),
        Mix((0.15, 0.6), (0.3, 0.8), (0.0, 0.15), (0.1, 0.3), (-68, -50)),
    ),
    "chiptune": Genre(
        Tempo((110, 170)),
        Drums(
            (
                {"kick": "x...x...x...x...", "blip": "..x...x...x...xo"},
                {"kick": "x..x....x.x.....", "blip": "..x.x.x...x.x.x."},
                {"blip": "x.x.X.x.x.x.X.xx"},
            ),
            (0.5, 0.9),
        ),
        Bass(
            ("pulse", "synth bass", "square lead"),
            ("R.R.R.R.R.R.R.R.", "R.8.R.8.R.8.R.8.", "R..R..R.R..R..5."),
            (0.5, 0.9),
        ),
        Comp(("pulse", "square lead"), ("xxxxxxxxxxxxxxxx", "x.xxx.xxx.xxx.xx"), "arpeggio", (0.6, 1.0), (0.4, 0.8)),
        Lead(("square lead", "pulse"), (0.5, 0.9), (5, 6), p=0.95),
        Harmony(0.5, _POP),
        Mix((-0.55, -0.2), (0.6, 1.4), (0.0, 0.25), (0.0, 0.05), (-80, -65)),
    ),
    "dub": Genre(
        Tempo((66, 92), swing=(0.5, 0.6), loose=0.006),
        Drums(
            (
                {"kick": "........X.......", "rim": "....o...X.....?.", "hat": "x.x.x.x.x.x.x.xo"},
                {"kick": "X...X...X...X...", "snare": "........X.....?.", "hat": "..x...x...x...x."},
            ),
            (0.6, 1.0),
        ),
        Bass(
            ("sub bass", "electric bass"),
            ("R..R..5.....3.R.", "R.....R.5..3....", "....R.R.5...3.R."),
            (0.6, 1.0),
            (1.1, 1.6),
        ),
        Comp(
            ("organ", "clean guitar", "piano"),
            ("..x...x...x...x.", "....X.......X...", "..xx..xx..xx..xx"),
            "triad",
            (0.2, 0.5),
        ),
        Lead(("harmonica", "brass", "synth pad", "square lead"), (0.15, 0.35), p=0.6),
        Harmony(0.7, _VAMP),
        Mix((0.4, 0.95), (0.5, 1.2), (0.3, 0.6), (0.1, 0.35), (-62, -48)),
    ),
    "funk": Genre(
        Tempo((92, 122), swing=(0.5, 0.57), loose=0.005),
        Drums(
            (
                {"kick": "X..x..x...x..x..", "snare": "....X..o.o..X..o", "hat": "xoxoxoxoxoxoxoxo"},
                {
                    "kick": "X.x.......xx....",
                    "snare": "....X..o....X...",
                    "open": "..............x.",
                    "hat": "x.xxx.xxx.xxx.x.",
                },
            ),
            (0.7, 1.0),
        ),
        Bass(
            ("electric bass", "synth bass"),
            ("R..R..8...R.5.w.", "R.RR...8..R..5.R", "R...R.8.R..3..5."),
            (0.4, 0.7),
            (0.8, 1.1),
        ),
        Comp(
            ("clean guitar", "electric piano", "organ"),
            ("..xx..x...xx..x.", "x.x..x.xx.x..x.x", "....x..x....x..x"),
            "seventh",
            (0.2, 0.5),
        ),
        Lead(("brass", "saw lead", "flute", "distorted guitar"), (0.2, 0.5), (5,)),
        Harmony(0.6, _VAMP),
        Mix((-0.4, -0.05), (0.6, 1.4), (0.0, 0.15), (0.02, 0.15), (-72, -56)),
    ),
    "jungle": Genre(
        Tempo((152, 178)),
        Drums(
            (
                {
                    "kick": "X.x.......xx....",
                    "snare": "....X..o.o..X..o",
                    "hat": "x.x.x.x.x.x.x.x.",
                    "open": "..........?.....",
                },
                {"kick": "X.........x.....", "snare": "....X....?..X..x", "ride": "x.x.x.x.x.x.x.x."},
            ),
            (1.1, 1.5),
        ),
        Bass(
            ("sub bass", "synth bass"),
            ("R.........5.....", "R...............", "R..R..........8."),
            (0.7, 1.0),
            (1.0, 1.5),
        ),
        Comp(
            ("synth pad", "electric piano", "strings"), ("X...............", "x..x..........x."), "seventh", (0.6, 1.0)
        ),
        Lead(("saw lead", "square lead", "bell"), (0.1, 0.4), p=0.6),
        Harmony(0.8, ((0, 5, 3, 4), (0, 0, 5, 6), (0, 3))),
        Mix((-0.3, 0.1), (0.6, 1.5), (0.1, 0.4), (0.05, 0.25), (-75, -58), (0.0, 0.4)),
    ),
    "metal": Genre(
        Tempo((95, 190)),
        Drums(
            (
                {"kick": "xxxxxxxxxxxxxxxx", "snare": "....X.......X...", "open": "x...x...x...x..."},
                {"kick": "X..x.x..X..x.x..", "snare": "....X.......X..x", "ride": "x.x.x.x.x.x.x.x."},
                {"kick": "X.X.X.X.X.X.X.X.", "snare": ".X.X.X.X.X.X.X.X", "tom": "............?.?."},
            ),
            (0.6, 0.9),
        ),
        Bass(
            ("electric bass", "synth bass"),
            ("R.R.R.R.R.R.R.R.", "R.RRR.RRR.RRR.RR", "R..R..R.R..R..R."),
            (0.6, 0.9),
            (0.6, 1.0),
        ),
        Comp(
            ("distorted guitar",),
            ("x.xxx.xxx.xxx.xx", "X..X..X.X..X..X.", "X.......X......."),
            "power",
            (0.6, 1.0),
            (0.8, 1.1),
        ),
        Lead(("distorted guitar", "saw lead"), (0.5, 0.95), (5, 6), p=0.5),
        Harmony(0.95, ((0, 0, 5, 6), (0, 1, 0, 1), (0, 5, 3, 4))),
        Mix((-0.2, 0.2), (1.0, 2.5), (0.0, 0.1), (0.02, 0.15), (-70, -55)),
    ),
    "techno": Genre(
        Tempo((118, 142)),
        Drums(
            (
                {"kick": "X...X...X...X...", "open": "..x...x...x...x.", "clap": "....x.......x..."},
                {"kick": "X...X...X...X..?", "hat": "x.xxx.xxx.xxx.xx", "rim": "...x..x....x..x."},
            ),
            (1.0, 1.4),
        ),
        Bass(("synth bass", "sub bass"), ("..R...R...R...R.", ".RRR.RRR.RRR.RRR", "R.RR.R.RR.RR.R.8"), (0.4, 0.8)),
        Comp(
            ("saw lead", "synth pad", "organ"),
            ("..x..x....x..x..", "x..x..x..x..x.x.", "X..............."),
            "triad",
            (0.3, 0.7),
            (0.4, 0.8),
        ),
        Lead(("saw lead", "square lead", "bell"), (0.2, 0.7), p=0.5),
        Harmony(0.9, ((0, 0, 0, 0), (0, 0, 5, 5), (0, 6))),
        Mix((-0.2, 0.35), (0.8, 1.8), (0.1, 0.4), (0.05, 0.3), (-75, -60), (0.2, 0.7)),
    ),
    "waltz": Genre(
        Tempo((84, 180), beats=3, loose=0.015),
        Drums(
            (
                {"kick": "x...........", "snare": "....o...o...", "hat": "....x...x..."},
                {"tom": "o...........", "shaker": "....o...o..."},
                {"kick": "x.......?...", "ride": "x...x..ox..."},
            ),
            (0.25, 0.6),
            0.5,
        ),
        Bass(("upright bass", "strings"), ("R...........", "R.......5...", "R...3...5..."), (0.6, 0.9)),
        Comp(("accordion", "piano", "strings"), ("....x...x...", "....x...x.x.", "X..........."), "triad", (0.3, 0.8)),
        Lead(("accordion", "flute", "strings", "piano"), (0.35, 0.7), p=0.95),
        Harmony(0.4, ((0, 0, 4, 4, 4, 4, 0, 0), (0, 3, 4, 0), (0, 5, 1, 4))),
        Mix((0.1, 0.6), (0.2, 0.7), (0.0, 0.1), (0.15, 0.4), (-66, -46)),
    ),
}
