"""The synthetic corpus: deterministic, various, musical, and neither trivial nor hopeless to classify."""

from __future__ import annotations

import hashlib
import io
import itertools
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fastaug.datasets.synth_compose import INSTRUMENTS, KEYS, compose
from fastaug.datasets.synth_genres import GENRES
from fastaug.datasets.synthetic import CODECS, encode, synth, synth_track
from fastaug.shards import open_source

RATE = 22_050


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def _float(samples: np.ndarray) -> np.ndarray:
    return samples[:, 0] / 32_768.0


@pytest.fixture(scope="module")
def tracks() -> list[tuple[np.ndarray, dict]]:
    return [synth_track(5, index, 12.0) for index in range(50)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "corpus"
    synth(out, tracks=40, seconds=1.0, seed=3, progress=False)
    return out


def test_same_arguments_give_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    synth(tmp_path / "again", tracks=40, seconds=1.0, seed=3, workers=1, progress=False)
    assert _hashes(tmp_path / "again") == _hashes(corpus)
    synth(tmp_path / "other", tracks=40, seconds=1.0, seed=4, progress=False)
    assert not set(_hashes(tmp_path / "other").values()) & set(_hashes(corpus).values())


def test_a_track_does_not_depend_on_how_many_there_are(corpus: Path, tmp_path: Path) -> None:
    synth(tmp_path / "few", tracks=7, seconds=1.0, seed=3, progress=False)
    assert _audio_by_path(tmp_path / "few").items() <= _audio_by_path(corpus).items()


def _audio_by_path(folder: Path) -> dict[str, bytes]:
    source = open_source(folder)
    records = [source.read(i) for i in range(len(source))]
    return {record.fields["path"]: bytes(record.audio) for record in records}


def test_composition_and_sound_are_pinned() -> None:
    score = compose(0, 3, 30.0)
    samples, fields = synth_track(0, 3, 5.0)
    assert (score.genre, score.bpm, score.key) == ("chiptune", 130.3, "E major")
    assert fields["instruments"] == compose(0, 3, 5.0).instruments
    # The level rather than a hash: a machine's sin and exp may differ in the last bit.
    assert 20 * np.log10(_float(samples).std()) == pytest.approx(-19.0700, abs=0.01)


def test_splits_are_stratified_and_labels_complete(corpus: Path) -> None:
    source = {split: open_source(corpus, split=split) for split in ("train", "valid", "test")}
    assert {split: len(s) for split, s in source.items()} == {"train": 24, "valid": 6, "test": 10}
    fields = {split: [s.read(i).fields for i in range(len(s))] for split, s in source.items()}
    for genre in GENRES:
        counts = {split: sum(f["genre"] == genre for f in fs) for split, fs in fields.items()}
        assert sum(counts.values()) == 4 and counts["train"] >= 2, (genre, counts)
    everything = list(itertools.chain(*fields.values()))
    assert len({f["group"] for f in everything}) == 40
    for f in everything:
        assert f["key"] in KEYS and set(f["instruments"]) <= set(INSTRUMENTS) and f["instruments"]
        assert 50 < f["tempo"] < 200


def test_no_two_tracks_alike(tracks: list) -> None:
    assert len({samples.tobytes() for samples, _ in tracks}) == len(tracks)
    waves = np.stack([_float(samples) for samples, _ in tracks])
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    correlation = np.abs(waves @ waves.T) - np.eye(len(waves))
    assert correlation.max() < 0.4
    spectra = np.stack([np.log(_spectrogram(_float(samples)).mean(0) + 1e-8) for samples, _ in tracks])
    distance = np.linalg.norm(spectra[:, None] - spectra[None], axis=-1) + 1e9 * np.eye(len(spectra))
    assert distance.min() > 1.0  # nor is one a re-tuned copy of another


def test_levels(tracks: list) -> None:
    for samples, fields in tracks:
        wave = _float(samples)
        db = 20 * np.log10(wave.std())
        assert -23.5 < db < -11.5, fields
        assert 0.05 < np.abs(wave).max() < 0.86, fields
        assert abs(wave.mean()) < 1e-3
        seconds = wave[: len(wave) // RATE * RATE].reshape(-1, RATE)
        assert (seconds.std(axis=1) > 1e-4).all(), ("a silent second", fields)


def test_lossy_codecs_do_not_clip(tracks: list) -> None:
    for codec in ("mp3", "ogg"):
        for samples, fields in tracks[:10]:
            decoded, _ = soundfile.read(io.BytesIO(encode(samples, RATE, codec)), dtype="float32")
            assert np.abs(decoded).max() < 1.0, (codec, fields)


def _spectrogram(wave: np.ndarray, size: int = 1024, hop: int = 256) -> np.ndarray:
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[::hop] * np.hanning(size)
    return np.abs(np.fft.rfft(frames, axis=1)) ** 2


def test_the_labelled_tempo_is_there(tracks: list) -> None:
    """Onset strength repeats more after a beat than after other lags, for nearly all tracks."""
    right = 0
    for samples, fields in tracks:
        flux = np.maximum(np.diff(np.log(_spectrogram(_float(samples)) + 1e-6), axis=0), 0).sum(1)
        flux -= flux.mean()
        power = np.fft.irfft(np.abs(np.fft.rfft(flux, 2 * len(flux))) ** 2)[: len(flux)]
        beat = 60.0 / fields["tempo"] * RATE / 256
        on, off = (np.mean([power[round(beat * k)] for k in ks]) for ks in ((1, 2, 4), (1.37, 2.37, 3.63)))
        right += on > off
    assert right >= 0.85 * len(tracks)


def test_the_labelled_key_is_there(tracks: list) -> None:
    """More energy per note lies on the seven notes of the scale than on the five others."""
    right, names = 0, ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
    for samples, fields in tracks:
        power = np.sqrt(_spectrogram(_float(samples), 8192, 4096).mean(0))
        hertz = np.fft.rfftfreq(8192, 1 / RATE)
        band = (hertz > 120) & (hertz < 1_500)
        pitch = np.rint(12 * np.log2(hertz[band] / 440.0) + 69).astype(int) % 12
        chroma = np.bincount(pitch, power[band], 12) / np.bincount(pitch, minlength=12)
        tonic, mode = fields["key"].split()
        scale = (0, 2, 4, 5, 7, 9, 11) if mode == "major" else (0, 2, 3, 5, 7, 8, 10)
        inside = [(names.index(tonic) + step) % 12 for step in scale]
        right += chroma[inside].mean() > np.delete(chroma, inside).mean()
    assert right >= 0.9 * len(tracks)


def _log_mel_statistics(wave: np.ndarray) -> np.ndarray:
    hertz = np.fft.rfftfreq(1024, 1 / RATE)
    mel = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), 66)
    edges = 700 * (10 ** (mel / 2595) - 1)
    low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bank = np.maximum(0, np.minimum((hertz - low) / (mid - low), (high - hertz) / (high - mid)))
    log = np.log(_spectrogram(wave, 1024, 512) @ bank.T + 1e-6)
    return np.concatenate([log.mean(0), log.std(0)])


def test_a_linear_probe_finds_the_genres_neither_easy_nor_hopeless() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    tracks = [synth_track(0, index, 10.0) for index in range(240)]
    features = np.stack([_log_mel_statistics(_float(samples)) for samples, _ in tracks])
    genres = [fields["genre"] for _, fields in tracks]
    probe = make_pipeline(StandardScaler(), linear.LogisticRegression(C=0.1, max_iter=2000))
    accuracy = cross_val_score(probe, features, genres, cv=4).mean()
    assert 0.5 <= accuracy <= 0.85


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("rate", "channels"), [(22_050, 1), (44_100, 2)])
def test_codecs_are_real(codec: str, rate: int, channels: int, tmp_path: Path) -> None:
    synth(tmp_path, tracks=1, seconds=1.0, codec=codec, sample_rate=rate, channels=channels, progress=False)
    record = open_source(tmp_path).read(0)
    with soundfile.SoundFile(io.BytesIO(record.audio)) as file:
        assert (file.format, file.subtype) == CODECS[codec]
        assert (file.samplerate, file.channels) == (rate, channels)
        decoded = file.read(dtype="float32", always_2d=True)
    expected = synth_track(0, 0, 1.0, rate, channels)[0] / 32_768.0
    assert decoded.shape == expected.shape
    error = np.abs(decoded - expected).max() if codec in ("flac", "wav") else (decoded - expected).std()
    assert error < (1e-4 if codec in ("flac", "wav") else 0.15 * expected.std())
    again = encode(synth_track(0, 0, 1.0, rate, channels)[0], rate, codec)
    assert again == record.audio


def test_mixed_has_every_codec_and_several_rates(corpus: Path) -> None:
    formats = set()
    for audio in _audio_by_path(corpus).values():
        with soundfile.SoundFile(io.BytesIO(audio)) as file:
            formats.add((file.format, file.samplerate, file.channels))
    assert {f for f, _, _ in formats} == {"MP3", "OGG", "FLAC", "WAV"}
    assert len({r for _, r, _ in formats}) >= 3 and {c for _, _, c in formats} == {1, 2}


def test_synthesis_costs_less_than_encoding() -> None:
    def cost(work) -> float:
        start = time.thread_time()
        work()
        return time.thread_time() - start

    samples = [synth_track(1, index, 20.0)[0] for index in range(5)]  # also warms the caches
    rendering = cost(lambda: [synth_track(1, index, 20.0) for index in range(5)])
    encoding = cost(lambda: [encode(s, RATE, "mp3") for s in samples])
    assert rendering < encoding


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tracks": 0}, "tracks must be at least 1"),
        ({"seconds": 0.1}, "seconds must lie in"),
        ({"codec": "aac"}, "codec must be one of"),
        ({"channels": 3}, "channels must be 1 or 2"),
        ({"sample_rate": 0}, "sample_rate must lie in"),
        ({"codec": "mp3", "sample_rate": 96_000}, "mp3 has the sample rates"),
    ],
)
def test_bad_arguments(arguments: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        synth(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
