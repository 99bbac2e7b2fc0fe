"""LogMel against a float64 NumPy definition, against published constants of the mel scales, and in use."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from scipy.fft import dct

from fastaug import Gain, Pipeline, SpecAugment
from fastaug.frontends import (
    CQT,
    MFCC,
    PCEN,
    HarmonicStack,
    LogMel,
    MelSpectrogram,
    hz_to_mel,
    mel_filters,
    mel_to_hz,
    pcen,
    presets,
)
from fastaug.frontends.harmonic import harmonic_centres

RATE = 22_050


def triangle(hz: float, low: float, centre: float, high: float) -> float:
    return max(0.0, min((hz - low) / (centre - low), (high - hz) / (high - centre)))


def reference(x: np.ndarray, n_fft: int, hop: int, n_mels: int, rate: int, mel: str, offset: float) -> np.ndarray:
    """ln(mel power + offset) of one channel, frame by frame in float64, with a DFT by its definition."""
    if mel == "htk":
        points = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), n_mels + 2)
        edges = 700 * (10 ** (points / 2595) - 1)
    else:
        top = 15 + 27 * np.log(rate / 2 / 1000) / np.log(6.4)
        points = np.linspace(0, top, n_mels + 2)
        edges = np.array([m * 200 / 3 if m < 15 else 1000 * np.exp((m - 15) * np.log(6.4) / 27) for m in points])
    n = np.arange(n_fft)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / n_fft)
    basis = np.exp(-2j * np.pi * np.outer(np.arange(n_fft // 2 + 1), n) / n_fft)
    padded = np.concatenate([np.zeros(n_fft // 2), x.astype(np.float64), np.zeros(n_fft // 2)])
    out = np.empty((n_mels, 1 + len(x) // hop))
    for frame in range(out.shape[1]):
        power = np.abs(basis @ (window * padded[frame * hop : frame * hop + n_fft])) ** 2
        for band in range(n_mels):
            low, centre, high = edges[band : band + 3]
            height = 2 / (high - low) if mel == "slaney" else 1.0
            weights = [triangle(k * rate / n_fft, low, centre, high) for k in range(n_fft // 2 + 1)]
            out[band, frame] = np.log(height * np.dot(weights, power) + offset)
    return out


@pytest.mark.parametrize("mel", ["slaney", "htk"])
@pytest.mark.parametrize(("n_fft", "hop", "n_mels", "rate"), [(256, 128, 20, 8000), (512, 200, 40, 22_050)])
def test_against_the_definition(mel: str, n_fft: int, hop: int, n_mels: int, rate: int) -> None:
    x = 0.3 * torch.randn(1, 1, 2000, generator=torch.Generator().manual_seed(0))
    out = LogMel(n_fft=n_fft, hop_length=hop, n_mels=n_mels, sample_rate=rate, mel=mel)(x)
    expected = reference(x[0, 0].numpy(), n_fft, hop, n_mels, rate, mel, 1e-6)
    assert out.shape == (1, 1, n_mels, 1 + 2000 // hop)
    assert np.abs(out[0, 0].numpy() - expected).max() < 2e-4


def test_mel_scales_have_their_published_values() -> None:
    assert hz_to_mel(1000.0, "slaney") == pytest.approx(15.0)
    assert hz_to_mel([200 / 3, 6400.0], "slaney") == pytest.approx([1.0, 42.0])  # Slaney's Auditory Toolbox
    assert hz_to_mel(1000.0, "htk") == pytest.approx(999.9855)  # librosa.hz_to_mel(1000, htk=True)
    for scale in ("slaney", "htk"):
        hz = np.array([0.0, 60.0, 999.0, 1001.0, 11_025.0])
        assert mel_to_hz(hz_to_mel(hz, scale), scale) == pytest.approx(hz, abs=1e-8)


def test_filters() -> None:
    slaney, htk = mel_filters(RATE, 4096, 40), mel_filters(RATE, 4096, 40, mel="htk")
    assert slaney.shape == (40, 2049)
    assert slaney.sum(1) * RATE / 4096 == pytest.approx(np.ones(40), rel=0.02), "area 1 in Hz"
    inner = htk[:, 100:1900].sum(0)
    assert inner == pytest.approx(np.ones_like(inner)), "HTK triangles add to 1"
    narrow = mel_filters(RATE, 4096, 10, f_min=500.0, f_max=2000.0)
    bins = np.arange(2049) * RATE / 4096
    assert (narrow[:, (bins <= 500) | (bins >= 2000)] == 0).all() and (narrow.max(1) > 0).all()


def test_a_tone_is_in_its_band() -> None:
    t = torch.arange(RATE) / RATE
    out = LogMel(sample_rate=RATE)(torch.sin(2 * torch.pi * 1000 * t)[None])
    ends = mel_to_hz(np.linspace(0, hz_to_mel(RATE / 2), 130))
    expected = int(np.argmin(np.abs(ends[1:-1] - 1000)))
    assert (out[0, :, 5:-5].argmax(0) == expected).all()


def test_shapes_dtypes_and_padding() -> None:
    frontend = LogMel(n_fft=256, hop_length=100, n_mels=16, sample_rate=8000)
    x = torch.randn(2, 3, 1, 1000)
    out = frontend(x)
    assert out.shape == (2, 3, 1, 16, 11) and frontend.frames(1000) == 11
    assert torch.allclose(frontend(x[1, 2]), out[1, 2], atol=1e-5)
    for length in (0, 1, 99, 100, 101):
        assert frontend(x[..., :length]).shape[-1] == frontend.frames(length) == 1 + length // 100
    assert torch.allclose(frontend(x[..., :0]), torch.tensor(1e-6).log().expand(2, 3, 1, 16, 1))
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert frontend(x.to(dtype)).dtype == dtype
    x.requires_grad_()
    frontend(x).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_rows_are_independent() -> None:
    frontend = LogMel(sample_rate=RATE)
    x = 0.1 * torch.randn(5, 1, 8000)
    clean = frontend(x)
    bad = x.clone()
    bad[2, 0, 10] = float("nan")
    out = frontend(bad)
    assert out[2].isnan().any()
    for row in (0, 1, 3, 4):
        error = (out[row] - clean[row]).double().square().mean() / clean[row].double().square().mean()
        assert error <= 1e-12
        alone = frontend(x[row : row + 1])[0]
        assert (alone - clean[row]).double().square().mean() / clean[row].double().square().mean() <= 1e-12


def test_rate_rules() -> None:
    x = torch.randn(1, 1, 4000)
    bare, built, bound = LogMel(), LogMel(sample_rate=RATE), LogMel()
    bound.bind(RATE)
    assert torch.equal(bare(x, RATE), built(x)) and torch.equal(bound(x), built(x))
    assert torch.equal(built(x, 16_000), bare(x, 16_000)) and not torch.equal(built(x, 16_000), built(x))
    with pytest.raises(ValueError, match="LogMel needs a sample rate"):
        bare(x)
    with pytest.raises(ValueError, match="built for sample_rate=22050, bound to 16000"):
        built.bind(16_000)


def test_repr_copies_and_state() -> None:
    frontend = LogMel(n_mels=64, sample_rate=RATE)
    assert repr(eval(repr(frontend))) == repr(frontend) and "n_mels=64" in repr(frontend)
    x = torch.randn(1, 1, 2000)
    for again in (copy.deepcopy(frontend), pickle.loads(pickle.dumps(frontend))):
        assert torch.equal(again(x), frontend(x))
    assert not frontend.state_dict(), "nothing to learn, nothing to save"
    assert isinstance(torch.nn.Sequential(frontend), torch.nn.Module)


def test_mistakes() -> None:
    wrongs: list[dict[str, Any]] = [
        {"n_fft": 1},
        {"mel": "bark"},
        {"hop_length": 0},
        {"sample_rate": -1},
        {"offset": 0.0},
    ]
    wrongs += [{"log": "lg"}, {"norm": "l1"}, {"top_db": 80.0}, {"pad": "edge"}, {"power": 3.0}, {"normalise": "row"}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"LogMel"):
            LogMel(**wrong)
    with pytest.raises(ValueError, match="f_max <= 4000"):
        LogMel(f_max=5000.0)(torch.randn(1, 100), 8000)
    with pytest.warns(UserWarning, match=r"of 128 bands hold no bin of n_fft=256 at 22050 Hz"):
        LogMel(n_fft=256)(torch.randn(1, 1000), RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LogMel()(torch.randn(1, 1000), RATE)


def test_logarithms_and_normalisation() -> None:
    x, settings = 0.1 * torch.randn(3, 2, 8000), {"n_fft": 512, "hop_length": 256, "n_mels": 20, "sample_rate": 8000}
    power, magnitude = MelSpectrogram(**settings)(x), MelSpectrogram(**settings, power=1.0)(x)
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(LogMel(**settings, log="db")(x), 10 * power.log10(), **close)
    torch.testing.assert_close(LogMel(**settings, log="db", power=1.0)(x), 20 * magnitude.log10(), **close)
    torch.testing.assert_close(LogMel(**settings, log="log1p", gain=100.0)(x), (100 * power).log1p(), **close)
    torch.testing.assert_close(LogMel(**settings, offset=0.0, floor=0.5)(x), power.clamp(min=0.5).log(), **close)
    capped = LogMel(**settings, log="db", top_db=10.0)(x)
    torch.testing.assert_close(capped.amin((1, 2, 3)), capped.amax((1, 2, 3)) - 10.0)
    own = LogMel(**settings, normalise="clip")(x)
    assert own.mean((1, 2, 3)).abs().max() < 1e-5 and (own.std((1, 2, 3), correction=0) - 1).abs().max() < 1e-5
    torch.testing.assert_close(LogMel(**settings, normalise=(-3.0, 2.0))(x), (LogMel(**settings)(x) + 3) / 2)
    capped = LogMel(**settings, log="db", top_db=10.0, normalise=(-30.0, 4.0))(x)
    torch.testing.assert_close(capped, (LogMel(**settings, log="db", top_db=10.0)(x) + 30) / 4, **close)
    far = LogMel(**settings, normalise=(-300.0, 50.0), dtype=torch.bfloat16)(x)
    assert torch.equal(far, LogMel(**settings, normalise=(-300.0, 50.0))(x).bfloat16()), "rounded once, at the end"
    narrow = LogMel(**settings, dtype=torch.bfloat16)(x)
    assert narrow.dtype == torch.bfloat16 and torch.equal(narrow, LogMel(**settings)(x).bfloat16())


def test_mfcc_is_the_cosine_transform_of_the_bands() -> None:
    settings = {"n_fft": 512, "hop_length": 256, "n_mels": 20, "sample_rate": 8000}
    x = 0.1 * torch.randn(5, 1, 8000)
    bands = LogMel(**settings, log="db", top_db=80.0)(x).double()
    ours = MFCC(**settings, n_mfcc=13)(x)
    expected = dct(bands.numpy(), axis=-2, norm="ortho")[..., :13, :]
    assert ours.shape == (5, 1, 13, 32) and np.abs(ours.numpy() - expected).max() < 1e-3
    for rows in ([2], [4, 1]):
        assert torch.equal(MFCC(**settings, n_mfcc=13)(x[rows]), ours[rows]), "bit for bit"
    with pytest.raises(ValueError, match="n_mfcc must be 1 to n_mels = 20"):
        MFCC(n_mels=20, n_mfcc=21)


def test_pcen_by_its_recursion() -> None:
    energy = torch.rand(2, 3, 40, dtype=torch.float64)
    for start in (None, 1.0):
        smooth, frames = energy[..., 0] if start is None else torch.ones(2, 3, dtype=torch.float64), []
        for n in range(40):
            smooth = 0.9 * smooth + 0.1 * energy[..., n]
            frames.append((energy[..., n] / (1e-6 + smooth) ** 0.98 + 2.0) ** 0.5 - 2.0**0.5)
        assert (pcen(energy, 0.1, start=start) - torch.stack(frames, -1)).abs().max() < 1e-12
    x = torch.randn(3, 1, 4000)
    front = PCEN(n_fft=256, hop_length=128, n_mels=10, sample_rate=8000)
    assert torch.equal(front(x[1:2]), front(x)[1:2]) and torch.isfinite(front(torch.zeros(1, 1, 4000))).all()


def test_cqt_by_its_definition() -> None:
    rate, hop, x = 8000, 200, 0.2 * torch.randn(1, 1, 6000, dtype=torch.float64)
    front = CQT(hop_length=hop, sample_rate=rate, f_min=110.0, bins=30)
    ours, quality = front(x), 1 / (2 ** (1 / 12) - 1)
    assert ours.shape == (1, 1, 30, 31)
    wide = np.pad(x[0, 0].numpy(), 4000)
    for k in (0, 11, 12, 29):
        length = int(np.ceil(quality * rate / (110.0 * 2 ** (k / 12))))
        n = np.arange(length) - length // 2
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
        kernel = window / window.sum() * np.sqrt(length) * np.exp(-2j * np.pi * 110.0 * 2 ** (k / 12) / rate * n)
        for frame in (0, 7, 30):
            at = 4000 + frame * hop + n
            assert abs(np.dot(wide[at], kernel)) == pytest.approx(float(ours[0, 0, k, frame]), rel=1e-9)
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate)[None]
    assert (front(tone)[0, :, 10:-10].argmax(0) == 24).all()
    with pytest.raises(ValueError, match="above 3500 Hz"):
        CQT(sample_rate=7000)(tone)


def test_harmonic_stack() -> None:
    rate = 16_000
    t = torch.arange(rate) / rate
    note = harmonic_centres(rate)[0, 60]
    tone = torch.stack([torch.sin(2 * torch.pi * note * h * t) for h in (1, 2, 3, 4, 5, 6)]).mean(0)[None, None]
    front = HarmonicStack(n_fft=2048, hop_length=512, sample_rate=rate)
    out = front(tone)
    assert out.shape == (1, 6, harmonic_centres(rate).shape[1], front.frames(rate))
    assert (out[0, :, :, 15].amax(1) - out[0, :, 60, 15] < 3.0).all(), "all overtones in one row"
    learned = HarmonicStack(n_fft=2048, hop_length=512, sample_rate=rate, learn_q=True)
    torch.testing.assert_close(learned(tone), out, atol=2e-2, rtol=0)
    learned(tone).sum().backward()
    assert learned.q.grad is not None and learned.q.grad.abs() > 0
    assert front(torch.zeros(2, 3, 4000)).shape[:2] == (2, 18) and front(torch.zeros(4000)).dim() == 3
    with pytest.raises(ValueError, match="no fundamental above C1"):
        HarmonicStack(sample_rate=300)(tone)


def test_presets() -> None:
    x = 0.1 * torch.randn(2, 1, 16_000)
    assert presets.cola()(x).shape == (2, 1, 64, 98) and presets.torchaudio()(x).shape == (2, 1, 128, 81)
    assert presets.librosa()(x).shape == (2, 1, 128, 32) and presets.simclr_internship()(x).shape == (2, 1, 128, 32)
    assert presets.librosa(n_mels=64, top_db=None).top_db is None
    # TensorFlow's linear_to_mel_weight_matrix and stft, from their documentation
    mels = np.linspace(*(1127 * np.log1p(np.array([60.0, 7800.0]) / 700)), 66)
    bins = 1127 * np.log1p(np.arange(513) * 16_000 / 1024 / 700)
    rising = (bins - mels[:-2, None]) / (mels[1:-1] - mels[:-2])[:, None]
    falling = (mels[2:, None] - bins) / (mels[2:] - mels[1:-1])[:, None]
    weights = np.maximum(0, np.minimum(rising, falling))
    weights[:, 0] = 0
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([x[1, 0].double().numpy()[i * 160 : i * 160 + 400] * window for i in range(98)], -1)
    expected = np.log(np.maximum(weights @ np.abs(np.fft.rfft(frames, 1024, axis=0)), 1e-5))
    assert np.abs(presets.cola()(x.double())[1, 0].numpy() - expected).max() < 1e-9
    assert np.abs(presets.cola()(x)[1, 0].numpy() - expected).max() < 1e-4


def test_waveforms_and_spectrograms_from_one_decode(tmp_path: Path) -> None:
    """Both are of the same augmented samples; masks are written into new spectrograms, never into the audio."""
    for i in range(6):
        soundfile.write(tmp_path / f"{i}.wav", 0.3 * np.random.default_rng(i).standard_normal(9000), 8000)
    mel = LogMel(n_fft=256, hop_length=128, n_mels=16)
    common: dict[str, Any] = {"sample_rate": 8000, "crop_samples": 8000, "views": 2, "batch_size": 6, "device": "cpu"}
    common |= {"transform": Gain(gain_db=(-12.0, 0.0))}
    (plain,) = Pipeline(tmp_path, frontend=mel, **common)
    assert torch.equal(plain.spectrograms, mel(plain.audio, 8000)) and not torch.equal(plain.audio[0], plain.audio[1])
    masks = SpecAugment(fill=-99.0)
    for steps in (masks, [masks, None]):
        (masked,) = Pipeline(tmp_path, frontend=mel, spec_transform=steps, **common)
        assert torch.equal(masked.audio, plain.audio)
        hidden = masked.spectrograms == -99.0
        assert torch.equal(masked.spectrograms, plain.spectrograms.masked_fill(hidden, -99.0))
        assert hidden[0].any() and hidden[1].any() == (steps is masks)
    (kept,) = Pipeline(tmp_path, frontend=lambda audio: audio.unflatten(-1, (80, 100)), spec_transform=masks, **common)
    assert torch.equal(kept.audio, plain.audio) and (kept.spectrograms == -99.0).any(), "a view of the audio"
