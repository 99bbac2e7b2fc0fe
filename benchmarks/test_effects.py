"""The effects of the CLMR chain on one batch: 32 mono clips of 59,049 samples at 22,050 Hz, p = 1, parameters of their
own for every clip in the ranges of CLMR. ``minimum_ratio`` holds the targets that the results must meet.

Not more clips: a batch of 64 and its result fill a cache of 32 MiB to the brim, and whether they fit in it, with what
lies between them, was another matter in every process (gain on two threads: 1.8 times the time)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import operations
import pytest
import sox
import torch
from clips import clip_by_clip
from harness import QUICK, Peer, agrees, agrees_below, compare
from limits import work
from materials import RATE, SAMPLES, batch
from peers import AM, TA, am, board, ta

from fastaug import functional
from fastaug.ops.wsola import stretch_factor

CLIPS = 32
LONG = (16, 0.0) if QUICK else (CLIPS, sox.SECONDS)  # clips in sox's long files, and seconds to repeat them to
SEMITONES = (-5.3, -2.1, 1.7, 6.4)  # of eight clips each: sox then needs four processes, not 32


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return batch(CLIPS)


@pytest.fixture(scope="module")
def rows(x: torch.Tensor) -> list[np.ndarray]:
    """The clips one by one, (1, T) each, for the libraries that take one."""
    return list(x.numpy())


def same_snr(snr_db: float, clean: torch.Tensor) -> Callable[[Any, Any], str]:
    """A check for random noise: every clip of both outputs has the asked signal-to-noise ratio within 0.3 dB."""

    def measured(noisy: Any) -> np.ndarray:
        signal, noise = clean.numpy().astype(np.float64), np.asarray(noisy, dtype=np.float64) - clean.numpy()
        return 10 * np.log10((signal**2).mean((1, 2)) / (noise**2).mean((1, 2)))

    def check(ours: Any, theirs: Any) -> str:
        worst = [float(np.abs(measured(value) - snr_db).max()) for value in (ours, theirs)]
        assert max(worst) < 0.3, f"SNR off by {worst[0]:.2f} dB (fastaug), {worst[1]:.2f} dB (peer)"
        return "same SNR"

    return check


def test_noise(benchmark: Any, threads: int, x: torch.Tensor, rows: list[np.ndarray]) -> None:
    snr = 30.0
    check = same_snr(snr, x)

    def torchaudio() -> Callable[[], torch.Tensor]:
        from torchaudio import functional as F

        wanted = torch.full((CLIPS, 1), snr)
        return lambda: F.add_noise(x, torch.randn_like(x), wanted)

    key = torch.arange(CLIPS * 3).reshape(CLIPS, 3)
    white = {"min_snr_in_db": snr, "max_snr_in_db": snr, "min_f_decay": 0.0, "max_f_decay": 0.0}
    compare(
        benchmark,
        lambda: functional.add_noise(x, key, snr_db=snr),
        [
            Peer("torchaudio add_noise + torch.randn", "torchaudio", torchaudio, check=check),
            Peer(
                f"{TA} AddColoredNoise", TA, ta("AddColoredNoise", x, **white), check=check, note="repeats one second"
            ),
            Peer(
                f"{AM} AddGaussianSNR",
                AM,
                am("AddGaussianSNR", rows, threads, min_snr_db=snr, max_snr_db=snr),
                check=check,
            ),
        ],
        items=CLIPS,
        unit="clip",
        threads=threads,
        facts=work(SAMPLES, passes=2),
    )


def test_gain(benchmark: Any, threads: int, x: torch.Tensor, rows: list[np.ndarray]) -> None:
    def plain() -> Callable[[], torch.Tensor]:
        factor = torch.full((CLIPS, 1, 1), 10 ** (-6 / 20))
        return lambda: x * factor

    compare(
        benchmark,
        lambda: functional.gain(x, -6.0),
        [
            Peer("torch x * factor", "torch", plain, check=agrees(100)),
            Peer(f"{TA} Gain", TA, ta("Gain", x, min_gain_in_db=-6.0, max_gain_in_db=-5.99999), check=agrees(90)),
            Peer(f"{AM} Gain", AM, am("Gain", rows, threads, min_gain_db=-6.0, max_gain_db=-6.0), check=agrees(100)),
            Peer("pedalboard Gain", "pedalboard", board(lambda pb, i: pb.Gain(-6.0), rows, threads), check=agrees(100)),
        ],
        items=CLIPS,
        unit="clip",
        threads=threads,
        facts=work(SAMPLES, passes=2, flops=operations.GAIN),
    )


def test_high_low_pass(benchmark: Any, threads: int, x: torch.Tensor, rows: list[np.ndarray]) -> None:
    """Half the clips low-pass, half high-pass: one call for us, two for the peers."""
    half = CLIPS // 2
    high = torch.arange(CLIPS) >= half
    cutoffs = torch.cat([torch.linspace(2200, 4000, half), torch.linspace(200, 1200, half)])
    names = ["HighPassFilter" if is_high else "LowPassFilter" for is_high in high.tolist()]

    def julius() -> Callable[[], torch.Tensor]:
        import julius as peer

        filters = [getattr(peer, n)(c / RATE, zeros=8) for n, c in zip(names, cutoffs.tolist(), strict=True)]
        return lambda: torch.stack([one(row) for one, row in zip(filters, x, strict=True)])

    def both(maker: Callable[..., Any], low_rows: Any, high_rows: Any, *more: Any) -> Callable[[], Callable[[], Any]]:
        ranges = (
            {"min_cutoff_freq": 2200.0, "max_cutoff_freq": 4000.0},
            {"min_cutoff_freq": 200.0, "max_cutoff_freq": 1200.0},
        )

        def build() -> Callable[[], Any]:
            first = maker("LowPassFilter", low_rows, *more, **ranges[0])()
            second = maker("HighPassFilter", high_rows, *more, **ranges[1])()
            return lambda: (first(), second())

        return build

    compare(
        benchmark,
        lambda: functional.sinc_filter(x, RATE, cutoffs, high),
        [
            Peer("julius LowPassFilter, HighPassFilter", "julius", julius, check=agrees(90)),
            Peer(
                f"{TA} LowPassFilter, HighPassFilter",
                TA,
                both(ta, x[:half], x[half:]),
                differs="draws its own cutoffs; the filter is julius's",
            ),
            Peer(
                f"{AM} LowPassFilter, HighPassFilter",
                AM,
                both(am, rows[:half], rows[half:], threads),
                differs="other algorithm: Butterworth IIR, 12 to 24 dB per octave",
            ),
        ],
        items=CLIPS,
        unit="clip",
        threads=threads,
        minimum_ratio={f"{TA} LowPassFilter, HighPassFilter": 10},
        facts=work(SAMPLES, passes=2, flops=operations.sinc_filter((cutoffs.double() / RATE).tolist())),
    )


@pytest.mark.parametrize("order", [1, 2, 4])
def test_butterworth(benchmark: Any, threads: int, x: torch.Tensor, rows: list[np.ndarray], order: int) -> None:
    """The IIR mode, low-pass and high-pass mixed."""
    half = CLIPS // 2
    high = torch.arange(CLIPS) >= half
    cutoffs = torch.cat([torch.linspace(2200, 4000, half), torch.linspace(200, 1200, half)])

    def first_order(pb: Any, i: int) -> Any:
        return (pb.HighpassFilter if high[i] else pb.LowpassFilter)(float(cutoffs[i]))

    def scipy() -> Callable[[], np.ndarray]:
        from scipy import signal

        kinds = ["highpass" if is_high else "lowpass" for is_high in high.tolist()]
        sections = [
            signal.butter(order, c, kind, fs=RATE, output="sos")
            for c, kind in zip(cutoffs.tolist(), kinds, strict=True)
        ]
        run = clip_by_clip(signal.sosfilt, sections, rows, threads=threads)
        return lambda: np.stack(run())

    def torchaudio() -> Callable[[], torch.Tensor]:
        from torchaudio import functional as F

        return lambda: F.lowpass_biquad(x, RATE, 3000.0)

    peers = [Peer("scipy sosfilt, float64", "scipy", scipy, check=agrees(100))]
    if order == 1:
        pedalboard = board(first_order, rows, threads)
        peers.append(Peer("pedalboard LowpassFilter, HighpassFilter", "pedalboard", pedalboard, check=agrees(90)))
    if order == 2:
        peers.append(
            Peer("torchaudio lowpass_biquad", "torchaudio", torchaudio, differs="one low-pass for the whole batch")
        )
    compare(
        benchmark,
        lambda: functional.butterworth(x, RATE, cutoffs, high, order),
        peers,
        items=CLIPS,
        unit="clip",
        threads=threads,
        minimum_ratio={"pedalboard LowpassFilter, HighpassFilter": 2} if order == 1 else None,
        facts=work(SAMPLES, passes=2, flops=operations.butterworth(order)),
    )


@pytest.mark.parametrize("rates", [(44_100, 22_050), (48_000, 22_050)], ids=["44100-22050", "48000-22050"])
def test_resample(benchmark: Any, threads: int, rates: tuple[int, int]) -> None:
    """Two-second mono clips. soxr HQ: pass band to 0.913, stop band from 1.0 of the lower Nyquist frequency."""
    rate, to_rate = rates
    clips = batch(32, 2 * rate, rate)
    single = list(clips.numpy()[:, 0])

    def soxr() -> Callable[[], np.ndarray]:
        import soxr as peer

        run = clip_by_clip(lambda row: peer.resample(row, rate, to_rate, quality="HQ"), single, threads=threads)
        return lambda: np.stack(run())[:, None]

    def torchaudio() -> Callable[[], torch.Tensor]:
        from torchaudio.transforms import Resample

        transform = Resample(rate, to_rate)
        return lambda: transform(clips)

    divisor = math.gcd(rate, to_rate)
    ups = to_rate // divisor, rate // divisor
    exact = (rate, to_rate) == (44_100, 22_050)
    compare(
        benchmark,
        lambda: functional.resample(clips, rate, to_rate),
        [
            Peer("soxr HQ", "soxr", soxr, check=agrees(50, edge=200)),
            Peer("torchaudio Resample", "torchaudio", torchaudio, differs="a short filter: pass band to about 0.8"),
        ],
        items=32,
        unit="clip",
        threads=threads,
        minimum_ratio={"soxr HQ": 1, "torchaudio Resample": 5} if exact else None,
        facts=work(2 * to_rate, passes=1 + rate / to_rate, flops=operations.resample(*ups)),
    )


def test_delay(benchmark: Any, threads: int, x: torch.Tensor, rows: list[np.ndarray]) -> None:
    delays = torch.tensor([200.0, 250.0, 300.0, 350.0, 400.0, 450.0, 500.0, 200.0] * (CLIPS // 8))

    def by_hand() -> Callable[[], torch.Tensor]:
        """As torchaudio-augmentations does it, but one call per clip so that each has its own delay."""
        samples = (delays * RATE / 1000).long().tolist()

        def one(row: torch.Tensor, d: int) -> torch.Tensor:
            delayed = torch.cat([torch.zeros(1, d), row[:, :-d]], dim=1)
            return (row + 0.5 * delayed) / 2

        return lambda: torch.stack([one(row, d) for row, d in zip(x, samples, strict=True)])

    compare(
        benchmark,
        lambda: functional.delay(x, RATE, delays),
        [
            Peer("torch cat + add, clip by clip", "torch", by_hand, check=agrees(100)),
            Peer(
                "pedalboard Delay",
                "pedalboard",
                board(lambda pb, i: pb.Delay(float(delays[i]) / 1000, 0.0, 0.5), rows, threads),
                differs="other mix: dry and wet at equal level",
            ),
        ],
        items=CLIPS,
        unit="clip",
        threads=threads,
        facts=work(SAMPLES, passes=2, flops=operations.DELAY),
    )


def test_pitch(benchmark: Any, threads: int, x: torch.Tensor, rows: list[np.ndarray]) -> None:
    shifts = [SEMITONES[i % len(SEMITONES)] for i in range(CLIPS)]
    chains = [["pitch", f"{100 * shift:g}", "rate", str(RATE)] for shift in shifts]

    def torchaudio() -> Callable[[], torch.Tensor]:
        from torchaudio.transforms import PitchShift

        transform = PitchShift(RATE, n_steps=-5)  # keeps its resampling kernel: the documented fast way
        return lambda: transform(x[:2]).detach()

    def librosa() -> Callable[[], np.ndarray]:
        import librosa as peer

        shift = peer.effects.pitch_shift
        run = clip_by_clip(lambda row, n: shift(row, sr=RATE, n_steps=n), rows[:8], shifts[:8], threads=threads)
        return lambda: np.stack(run())

    semitones = torch.tensor(shifts)
    long = sox.LongFiles(x.numpy()[: LONG[0]], RATE, chains[: LONG[0]], threads, LONG[1])
    compare(
        benchmark,
        lambda: functional.pitch_shift(x, RATE, semitones),
        [
            Peer(
                "sox pitch",
                None,
                lambda: long.run,
                items=long.items,
                baseline=lambda: long.no_effect,
                check=agrees_below(0.55, 60),  # both filters pass that at every shift
                agree_build=lambda: lambda: sox.per_clip(x.numpy(), RATE, chains),
            ),
            Peer(
                f"{AM} PitchShift (signalsmith)",
                AM,
                am("PitchShift", rows[:8], threads, min_semitones=-7.0, max_semitones=7.0),
                items=8,
                differs="other algorithm: spectral stretch",
            ),
            Peer(
                "pedalboard PitchShift (rubberband)",
                "pedalboard",
                board(lambda pb, i: pb.PitchShift(shifts[i]), rows[:4], threads),
                items=4,
                differs="other algorithm: Rubber Band",
            ),
            Peer("librosa pitch_shift", "librosa", librosa, items=8, differs="other algorithm: phase vocoder"),
            Peer(
                f"{TA} PitchShift",
                TA,
                ta("PitchShift", x[:8], min_transpose_semitones=-7.0, max_transpose_semitones=7.0),
                items=8,
                differs="other algorithm: phase vocoder; 26 possible ratios",
            ),
            Peer(
                "torchaudio PitchShift",
                "torchaudio",
                torchaudio,
                items=2,
                differs="other algorithm: phase vocoder; one shift for the batch",
            ),
        ],
        items=CLIPS,
        unit="clip",
        threads=threads,
        minimum_ratio={"sox pitch": 8, f"{AM} PitchShift (signalsmith)": 20, f"{TA} PitchShift": 100},
        facts=work(SAMPLES, passes=2, flops=operations.pitch(stretch_factor(semitones).tolist())),
    )


def test_reverb(benchmark: Any, threads: int, x: torch.Tensor, rows: list[np.ndarray]) -> None:
    settings = np.random.default_rng(1).integers(0, 100, (CLIPS, 3))
    reverberance, damping, room = torch.from_numpy(settings.T.astype(np.float32))
    exact = [["reverb", *map(str, row), "100", "channels", "1"] for row in settings.tolist()]
    timed = [["reverb", "50", "50", "50", "100", "channels", "1"]] * CLIPS  # sox's time does not depend on the settings
    long = sox.LongFiles(x.numpy()[: LONG[0]], RATE, timed[: LONG[0]], threads, LONG[1])
    compare(
        benchmark,
        lambda: functional.reverb(x, RATE, reverberance, damping, room),
        [
            Peer(
                "sox reverb",
                None,
                lambda: long.run,
                items=long.items,
                baseline=lambda: long.no_effect,
                check=agrees(100),
                agree_build=lambda: lambda: sox.per_clip(x.numpy(), RATE, exact),
            ),
            Peer(
                "pedalboard Reverb",
                "pedalboard",
                board(lambda pb, i: pb.Reverb(), rows, threads),
                differs="other algorithm: JUCE's Freeverb, stereo width and gains unlike sox's",
            ),
        ],
        items=CLIPS,
        unit="clip",
        threads=threads,
        minimum_ratio={"sox reverb": 6, "pedalboard Reverb": 4},  # the aim beside sox is 8
        facts=work(SAMPLES, passes=2, flops=operations.REVERB),
    )
