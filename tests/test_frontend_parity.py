"""The front ends beside librosa, torchaudio and nnAudio, where they can be imported; test_ops_spectral.py and
test_frontends.py hold them against float64 formulas of our own everywhere."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from fastaug.frontends import CQT, MFCC, PCEN, HarmonicStack, LogMel, MelSpectrogram, Spectrogram, presets

SIZES = [
    (512, None, 160, 40),
    (1024, None, 512, 128),
    (1024, 800, 256, 64),
    (2048, 2048, 500, 96),
    (400, None, 200, 32),
    (882, 600, 441, 48),
]


def clip(rate: int, seconds: float = 1.3) -> torch.Tensor:
    """Two tones, noise, a stretch 60 dB below, and an end: (1, T) float32."""
    t = torch.arange(int(rate * seconds)) / rate
    noise = torch.randn(t.numel(), generator=torch.Generator().manual_seed(5))
    x = 0.3 * torch.sin(2 * torch.pi * 440 * t) + 0.1 * torch.sin(2 * torch.pi * 2500 * t) + 0.02 * noise
    x[len(x) // 2 : len(x) * 2 // 3] *= 1e-3
    return x[None]


def check(ours: torch.Tensor, exact: torch.Tensor, theirs: np.ndarray, decibels: bool = False) -> None:
    """The issue's bounds: against the peer in float64; ours of float32 against those values."""
    theirs, ours64, single = np.asarray(theirs, np.float64), exact.numpy(), ours.double().numpy()
    assert ours64.shape == theirs.shape
    peak = theirs.max()
    if not decibels:
        assert np.abs(ours64 - theirs).max() <= 1e-9 * peak
        assert np.abs(single - theirs).max() <= 1e-6 * peak
        return
    assert np.abs(ours64 - theirs)[theirs > peak - 80].max() <= 1e-8
    assert np.abs(single - theirs)[theirs > peak - 40].max() <= 1e-4
    assert np.abs(single - theirs)[theirs > peak - 80].max() <= 1e-2


@pytest.mark.parametrize("pad", ["constant", "reflect"])
@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["area", "height"])
@pytest.mark.parametrize(("n_fft", "width", "hop", "bands"), SIZES)
def test_librosa(n_fft: int, width: int | None, hop: int, bands: int, norm: str, scale: str, pad: str) -> None:
    librosa = pytest.importorskip("librosa")
    x = clip(22_050)
    for power in (2.0, 1.0):
        settings: dict[str, Any] = {"n_fft": n_fft, "win_length": width, "hop_length": hop, "n_mels": bands}
        settings |= {"power": power, "sample_rate": 22_050, "pad": pad, "mel": scale, "norm": norm, "f_min": 30.0}
        # float64 filters: librosa rounds its own to float32 by default
        filters = librosa.filters.mel(
            sr=22_050, n_fft=n_fft, n_mels=bands, fmin=30.0, htk=scale == "htk",
            norm="slaney" if norm == "area" else None, dtype=np.float64,
        )  # fmt: skip
        spectra = librosa.stft(x[0].double().numpy(), n_fft=n_fft, win_length=width, hop_length=hop, pad_mode=pad)
        theirs = filters @ np.abs(spectra) ** power
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mel = MelSpectrogram(**settings)
            check(mel(x)[0], mel(x.double())[0], theirs)
            db = LogMel(**settings, log="db", floor=1e-10 if power == 2.0 else 1e-5)
            to_db = librosa.power_to_db if power == 2.0 else librosa.amplitude_to_db
            check(db(x)[0], db(x.double())[0], to_db(theirs, top_db=None), decibels=True)


@pytest.mark.parametrize("pad", ["constant", "reflect"])
@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["area", "height"])
@pytest.mark.parametrize(("n_fft", "width", "hop", "bands"), SIZES)
def test_torchaudio(n_fft: int, width: int | None, hop: int, bands: int, norm: str, scale: str, pad: str) -> None:
    torchaudio = pytest.importorskip("torchaudio")
    x = clip(16_000)
    settings: dict[str, Any] = {"n_fft": n_fft, "win_length": width, "hop_length": hop, "n_mels": bands}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = torchaudio.transforms.MelSpectrogram(
            16_000, **settings, mel_scale=scale, norm="slaney" if norm == "area" else None, pad_mode=pad
        ).double()
        ours = MelSpectrogram(**settings, sample_rate=16_000, mel=scale, norm=norm, pad=pad)
        theirs, exact = peer(x.double()).numpy(), ours(x.double())
        # its filters are made in float32, up to 1.4e-5 off; the strict bounds are against its way with exact ones
        assert np.abs(ours(x).numpy() - theirs).max() <= 2e-5 * theirs.max()
        peer.spectrogram.window = torch.hann_window(width or n_fft, dtype=torch.float64)
        bank = ours._bank(16_000, torch.device("cpu")).exact
        assert (peer.mel_scale.fb.T - bank).abs().max() < 2e-5 * bank.max()
        peer.mel_scale.fb = bank.T.contiguous()
        check(ours(x), exact, peer(x.double()).numpy())
        db = LogMel(**settings, sample_rate=16_000, mel=scale, norm=norm, pad=pad, log="db")
        decibels = torchaudio.transforms.AmplitudeToDB("power")(peer(x.double())).numpy()
        check(db(x), db(x.double()), decibels, decibels=True)


def test_presets_are_the_libraries_defaults() -> None:
    librosa, torchaudio = pytest.importorskip("librosa"), pytest.importorskip("torchaudio")
    x = clip(22_050)
    theirs = librosa.power_to_db(librosa.feature.melspectrogram(y=x[0].numpy()))
    assert np.abs(presets.librosa()(x)[0].numpy() - theirs).max() < 0.02
    x = clip(16_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torchaudio.transforms.AmplitudeToDB()(torchaudio.transforms.MelSpectrogram()(x)).numpy()
        ours = presets.torchaudio()(x).numpy()
    loud = theirs > theirs.max() - 80
    assert ours.shape == theirs.shape and np.abs(ours - theirs)[loud].max() < 0.02


def test_top_db_and_mfcc() -> None:
    librosa, torchaudio = pytest.importorskip("librosa"), pytest.importorskip("torchaudio")
    x = clip(22_050)
    settings: dict[str, Any] = {"n_fft": 1024, "hop_length": 512, "n_mels": 64}
    ours = MFCC(**settings, sample_rate=22_050, n_mfcc=20)
    y = x[0].double().numpy()
    theirs = librosa.feature.mfcc(y=y, sr=22_050, n_mfcc=20, **settings)
    assert np.abs(ours(x)[0].numpy() - theirs).max() < 0.02
    assert np.abs(ours(x.double())[0].numpy() - theirs).max() < 1e-3, "librosa's filters are rounded to float32"
    peer = torchaudio.transforms.MFCC(22_050, 20, melkwargs=settings).double()
    ours = MFCC(**settings, sample_rate=22_050, n_mfcc=20, mel="htk", pad="reflect")
    assert (ours(x) - peer(x.double())).abs().max() < 0.02


def test_pcen() -> None:
    librosa = pytest.importorskip("librosa")
    x = clip(22_050)
    ours = PCEN(n_mels=40, sample_rate=22_050, start=1.0)
    magnitudes = MelSpectrogram(n_mels=40, sample_rate=22_050, power=1.0)(x.double())[0].numpy()
    theirs = librosa.pcen(magnitudes * 2**31, sr=22_050, hop_length=512)
    assert np.abs(ours(x.double())[0].numpy() - theirs).max() < 1e-8 * theirs.max()
    assert np.abs(ours(x)[0].numpy() - theirs).max() < 1e-4 * theirs.max()


def test_nnaudio() -> None:
    features = pytest.importorskip("nnAudio.features")
    x = clip(22_050, 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = features.CQT1992v2(sr=22_050, hop_length=512, n_bins=72, pad_mode="constant", verbose=False)
        theirs = peer(x).detach()
        mel = features.MelSpectrogram(
            sr=22_050, n_fft=1024, n_mels=64, hop_length=512, pad_mode="constant", verbose=False
        )
    ours = CQT(hop_length=512, sample_rate=22_050, bins=72)(x)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 3e-3 * theirs.max(), "its kernels of even length lie half a sample away"
    band = MelSpectrogram(n_mels=64, sample_rate=22_050)(x)
    assert (band - mel(x).detach()).abs().max() < 1e-5 * band.max()


def test_librosa_cqt() -> None:
    librosa = pytest.importorskip("librosa")
    x = clip(22_050, 2.0)
    theirs = np.abs(librosa.cqt(x[0].numpy(), sr=22_050, hop_length=512, n_bins=72, tuning=0.0))
    ours = CQT(hop_length=512, sample_rate=22_050, bins=72)(x)[0].numpy()
    frames = slice(24, 60)  # away from the ends, where its octaves see other padding
    assert np.abs(ours - theirs)[:, frames].max() < 0.03 * theirs.max(), "it resamples octave by octave"


def test_harmonic_stack_is_the_authors() -> None:
    """HarmonicSTFT of minzwon/sota-music-tagging-models, written down from its formulas."""
    torchaudio = pytest.importorskip("torchaudio")
    librosa = pytest.importorskip("librosa")
    x, rate = clip(16_000), 16_000
    low = librosa.note_to_midi("C1")
    levels = int(librosa.note_to_midi(librosa.hz_to_note(rate / 12)) - low) * 2
    midi = np.linspace(low, low + levels / 2, levels + 1)[:-1]
    centres = np.concatenate([440.0 * 2 ** ((midi - 69) / 12) * h for h in range(1, 7)])
    bins = np.linspace(0, rate // 2, 257)
    width = (0.1079 * centres + 24.7) / 1.5
    up = bins[:, None] * (2 / width) + 1 - 2 * centres / width
    down = bins[:, None] * (-2 / width) + 1 + 2 * centres / width
    bank = torch.from_numpy(np.maximum(0, np.minimum(up, down)))
    power = torchaudio.transforms.Spectrogram(n_fft=513, hop_length=256).double()(x.double())
    theirs = 10 * torch.log10((bank.T @ power).clamp(min=1e-10)).reshape(1, 6, levels, -1)
    ours = HarmonicStack(n_fft=513, hop_length=256, sample_rate=rate, bw_q=1.5, pad="reflect")(x[None])
    assert ours.shape == theirs.shape
    assert (ours - theirs)[theirs > theirs.max() - 80].abs().max() < 0.01


def test_spectrogram_is_torchs() -> None:
    x = clip(16_000)
    for n_fft, hop, width in [(512, 100, 512), (1024, 256, 700), (300, 64, 300)]:
        window = torch.hann_window(width, dtype=torch.float64)
        theirs = torch.stft(x.double(), n_fft, hop, width, window, pad_mode="reflect", return_complex=True).abs()
        for power in (1.0, 2.0):
            ours = Spectrogram(n_fft, hop, win_length=width, pad="reflect", power=power)
            check(ours(x), ours(x.double()), theirs.numpy() ** power)
