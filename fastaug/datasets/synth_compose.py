"""Composing the tracks of the synthetic corpus: a seed and an index become a list of notes.

Each facet of a track (tempo, drums, bass, chords, lead, harmony, mix) comes from its genre or, with probability
``CROSSING``, from another one. That is what makes the genres overlap: no single cue settles the label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fastaug.datasets.synth_genres import GENRES, Bass, Comp, Drums, Harmony, Lead, Mix, Tempo
from fastaug.datasets.synth_voices import VOICES, Draws

__all__ = ["CROSSING", "INSTRUMENTS", "KEYS", "Hit", "Score", "compose"]

CROSSING = 0.08
_TONICS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)
_SECTION_BARS = 4
_FACETS = ("tempo", "harmony", "drums", "bass", "comp", "lead", "mix")
_PERCUSSION = {"conga", "shaker", "rim"}
_STRENGTH = {"X": 1.0, "x": 0.75, "o": 0.4, "?": 0.6}

#: Class names of the two categorical side labels.
KEYS = tuple(sorted(f"{tonic} {mode}" for tonic in _TONICS for mode in ("major", "minor")))
INSTRUMENTS = tuple(sorted([*VOICES, "drum kit", "percussion"]))


@dataclass(frozen=True)
class Hit:
    """One note: ``voice`` of VOICES at a MIDI ``pitch``, or a drum of DRUMS (pitch 0). Times in seconds."""

    voice: str
    pitch: int
    start: float
    length: float
    gain: float


@dataclass
class Score:
    """A composed track, ready to be rendered at any rate. ``parts`` maps drums, bass, comp, lead to their hits."""

    index: int
    seconds: float
    genre: str
    bpm: float
    key: str
    mix: Mix
    parts: dict[str, list[Hit]]

    @property
    def instruments(self) -> list[str]:
        names = {hit.voice for part, hits in self.parts.items() if part != "drums" for hit in hits}
        drums = {hit.voice for hit in self.parts["drums"]}
        if drums & _PERCUSSION:
            names.add("percussion")
        if drums - _PERCUSSION:
            names.add("drum kit")
        return sorted(names)


@dataclass(frozen=True)
class _Song:
    """What all parts share: the clock, the chords and which parts play when."""

    tempo: Tempo
    beat: float  # seconds
    swing: float
    lead_in: float  # seconds of the first bar that lie before the track
    bars: int
    chords: tuple[int, ...]  # scale degree per bar
    tonic: int
    scale: tuple[int, ...]
    playing: tuple[frozenset[str], ...]  # per section

    @property
    def steps(self) -> int:
        return 4 * self.tempo.beats

    @property
    def step(self) -> float:
        return self.beat / 4

    def time(self, bar: int, step: int) -> float:
        """Seconds of a sixteenth, swing included."""
        whole, part = divmod(step, 4)
        within = (0.0, self.swing / 2, self.swing, (1 + self.swing) / 2)[part]
        return (bar * self.tempo.beats + whole + within) * self.beat - self.lead_in

    def pitch(self, degree: int) -> int:
        """MIDI number of a scale degree in the octave of middle C."""
        octave, step = divmod(degree, 7)
        return 60 + self.tonic + 12 * octave + self.scale[step]

    def plays(self, part: str, bar: int) -> bool:
        return part in self.playing[bar // _SECTION_BARS]


def compose(seed: int, index: int, seconds: float) -> Score:
    """Composes track ``index``; the same arguments give the same score on every machine.

    Args:
        seed: corpus seed.
        index: track number, which also fixes the genre (``index % 10``).
        seconds: length of the track.
    """
    style = Draws(seed, f"track/{index}/style")
    genre = list(GENRES)[index % len(GENRES)]
    facet = {name: GENRES[_source(style, genre)] for name in _FACETS}
    tempo, harmony = facet["tempo"].tempo, facet["harmony"].harmony
    bpm = round(style.uniform(*tempo.bpm), 1)
    minor = style.chance(harmony.minor)
    tonic = style.integer(0, 12)
    drums, bass, comp, lead = facet["drums"].drums, facet["bass"].bass, facet["comp"].comp, facet["lead"].lead
    chances = {"drums": drums.p, "bass": bass.p, "comp": comp.p, "lead": lead.p}
    used = {name for name, p in chances.items() if style.chance(p)}
    song = _song(style, tempo, bpm, harmony, tonic, minor, seconds, used)
    parts = {
        "drums": _drums(song, drums, Draws(seed, f"track/{index}/drums")),
        "bass": _bass(song, bass, Draws(seed, f"track/{index}/bass")),
        "comp": _comp(song, comp, Draws(seed, f"track/{index}/comp")),
        "lead": _lead(song, lead, Draws(seed, f"track/{index}/lead")),
    }
    audible = {name: _within(hits, seconds) for name, hits in parts.items()}
    key = f"{_TONICS[tonic]} {'minor' if minor else 'major'}"
    return Score(index, seconds, genre, bpm, key, facet["mix"].mix, audible)


def _within(hits: list[Hit], seconds: float) -> list[Hit]:
    """The hits that sound in [0, seconds); a note that began before is taken up at 0."""
    kept = []
    for hit in hits:
        if hit.start < 0.0 and hit.start + hit.length > 0.05:
            hit = replace(hit, start=0.0, length=hit.length + hit.start)
        if 0.0 <= hit.start < seconds - 0.02:
            kept.append(hit)
    return kept


def _source(draws: Draws, genre: str) -> str:
    """The genre that lends a facet: usually the track's own."""
    crossed, other = draws.chance(CROSSING), draws.choice([name for name in GENRES if name != genre])
    return other if crossed else genre


def _song(
    draws: Draws, tempo: Tempo, bpm: float, harmony: Harmony, tonic: int, minor: bool, seconds: float, used: set[str]
) -> _Song:
    beat = 60.0 / bpm
    bars = math.ceil(seconds / (beat * tempo.beats)) + 2
    progression = draws.choice(harmony.progressions)
    offset = draws.integer(0, len(progression))
    chords = tuple(progression[(bar + offset) % len(progression)] for bar in range(bars))
    playing = []
    for _ in range(bars // _SECTION_BARS + 1):
        section = {name for name in sorted(used) if draws.chance(0.85)}
        # A section is never silent: the chords always carry something to hear.
        playing.append(frozenset(section if len(section) >= 2 else used | {"comp"}))
    return _Song(
        tempo, beat, draws.uniform(*tempo.swing), draws.uniform(0.0, beat), bars, chords, tonic,
        _MINOR if minor else _MAJOR, tuple(playing),
    )  # fmt: skip


def _hits(pattern: str, steps: int, draws: Draws) -> list[tuple[int, str]]:
    """(step, character) of a pattern in a bar of ``steps``; a shorter pattern wraps, a longer one is cut."""
    found = []
    for step in range(steps):
        character = pattern[step % len(pattern)]
        if character != "." and (character != "?" or draws.chance(0.4)):
            found.append((step, character))
    return found


def _loose(song: _Song, draws: Draws) -> float:
    return song.tempo.loose * draws.uniform(-1.0, 1.0)


def _drums(song: _Song, part: Drums, draws: Draws) -> list[Hit]:
    kit, level = draws.choice(part.kits), draws.uniform(*part.level)
    # The odd drum of another kit, or one missing, so that two tracks of a genre seldom share their groove.
    extra = draws.choice(
        [{}, {}, {"shaker": "x.x.x.x.x.x.x.x."}, {"conga": "...x..x....x..x."}, {"hat": "xxxxxxxxxxxxxxxx"}]
    )
    kit = {**extra, **kit}
    busy = draws.uniform(0.0, 0.12)
    hits = []
    for bar in range(song.bars):
        if not song.plays("drums", bar):
            continue
        for drum, pattern in kit.items():
            for step, character in _hits(pattern, song.steps, draws):
                gain = level * _STRENGTH[character] * draws.uniform(0.85, 1.1)
                hits.append(Hit(drum, 0, song.time(bar, step) + _loose(song, draws), 0.0, gain))
            if draws.chance(busy):
                step = draws.integer(0, song.steps)
                hits.append(Hit(drum, 0, song.time(bar, step), 0.0, level * 0.5))
        if bar % _SECTION_BARS == _SECTION_BARS - 1 and draws.chance(0.4):
            fill = draws.choice(("snare", "tom", "conga"))
            for step in range(song.steps - 4, song.steps):
                if draws.chance(0.7):
                    hits.append(Hit(fill, 0, song.time(bar, step), 0.0, level * draws.uniform(0.4, 0.9)))
    return hits


def _fold(pitch: int, low: int) -> int:
    """The same note in the octave that starts at ``low``."""
    return low + (pitch - low) % 12


def _bass(song: _Song, part: Bass, draws: Draws) -> list[Hit]:
    voice, pattern = draws.choice(part.voices), draws.choice(part.patterns)
    gate, level, low = draws.uniform(*part.gate), draws.uniform(*part.level), draws.integer(28, 36)
    hits = []
    for bar in range(song.bars):
        if not song.plays("bass", bar):
            continue
        degree, target = song.chords[bar], song.chords[min(bar + 1, song.bars - 1)]
        root = _fold(song.pitch(degree), low)
        found = _hits(pattern, song.steps, draws)
        for number, (step, character) in enumerate(found):
            until = found[number + 1][0] if number + 1 < len(found) else song.steps
            pitch = {
                "R": root,
                "8": root + 12,
                "3": root + song.pitch(degree + 2) - song.pitch(degree),
                "5": root + 7,
                "w": _fold(song.pitch(target), low) + draws.choice((-1, 1, 2)),
            }[character]
            start = song.time(bar, step) + _loose(song, draws)
            hits.append(Hit(voice, pitch, start, (until - step) * song.step * gate, level * draws.uniform(0.85, 1.1)))
    return hits


def _voicing(song: _Song, degree: int, kind: str, low: int) -> list[int]:
    """MIDI numbers of a chord: close position above ``low``, or low root + fifth + octave for power chords."""
    if kind == "power":
        root = _fold(song.pitch(degree), 40)
        return [root, root + 7, root + 12]
    steps = (0, 2, 4, 6) if kind == "seventh" else (0, 2, 4)
    return sorted(_fold(song.pitch(degree + step), low) for step in steps)


def _comp(song: _Song, part: Comp, draws: Draws) -> list[Hit]:
    voice, pattern = draws.choice(part.voices), draws.choice(part.patterns)
    gate, level, low = draws.uniform(*part.gate), draws.uniform(*part.level), draws.integer(50, 61)
    rising = draws.chance(0.5)
    hits = []
    for bar in range(song.bars):
        if not song.plays("comp", bar):
            continue
        chord = _voicing(song, song.chords[bar], part.chord, low)
        found = _hits(pattern, song.steps, draws)
        for number, (step, character) in enumerate(found):
            until = found[number + 1][0] if number + 1 < len(found) else song.steps
            start = song.time(bar, step) + _loose(song, draws)
            gain = level * _STRENGTH[character] * draws.uniform(0.85, 1.1)
            notes = chord
            if part.chord == "arpeggio":
                notes = [chord[(number if rising else -number) % len(chord)] + 12]
            for pitch in notes:
                hits.append(Hit(voice, pitch, start, (until - step) * song.step * gate, gain / math.sqrt(len(notes))))
    return hits


def _motif(song: _Song, draws: Draws, density: float) -> list[tuple[int, int, int]]:
    """Two bars of melody: (step, degree above the tonic, length in steps), a walk on the scale."""
    degree, notes, step = draws.integer(0, 7), [], 0
    while step < 2 * song.steps:
        length = 2 * draws.choice((1, 1, 1, 2, 2, 3, 4))
        if draws.chance(density * 1.4):
            degree = min(max(degree + draws.integer(-2, 3), -3), 9)
            notes.append((step, degree, length))
        step += length if density < 0.7 else 2
    return notes


def _lead(song: _Song, part: Lead, draws: Draws) -> list[Hit]:
    voice, octave, level = draws.choice(part.voices), draws.choice(part.octave), draws.uniform(*part.level)
    density = draws.uniform(*part.density)
    motifs = [_motif(song, draws, density) for _ in range(3)]
    hits = []
    for pair in range(0, song.bars, 2):
        for step, degree, length in draws.choice(motifs):
            bar, step_in_bar = pair + step // song.steps, step % song.steps
            if bar >= song.bars or not song.plays("lead", bar) or draws.chance(0.1):
                continue
            if step_in_bar % 8 == 0:  # strong beats take the nearest note of the chord
                degree = min((song.chords[bar] + k for k in (-7, -5, -3, 0, 2, 4, 7, 9)), key=lambda d: abs(d - degree))
            start = song.time(bar, step_in_bar) + _loose(song, draws)
            pitch = song.pitch(degree) + 12 * (octave - 5)
            hits.append(Hit(voice, pitch, start, length * song.step * 0.85, level * draws.uniform(0.8, 1.1)))
    return hits
