"""Every effect and the whole chain on a CUDA device: 512 mono clips of 59,049 samples at 22,050 Hz.

Times are CUDA events around the call, after a warm-up, over rotating inputs, with the L2 cache flushed before each call
and the device kept busy until the host has queued the work, so that launches are hidden where nothing synchronises.
The copy bandwidth and the rate of a float32 matrix product are measured first. Each case says which share of the copy
bandwidth it reaches, counting one read of its input and one write of its output, however often it really touches them;
and which multiple of its floor it takes: the larger of those bytes at the copy bandwidth and its arithmetic (as counted
in a direct implementation) at the matrix-product rate.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from harness import Peer, Run, agrees, compare, synchronised
from materials import RATE, SAMPLES, batch, tracks
from peers import TA, ta
from test_chain import batched_chain

from fastaug import Compose, Delay, LogMel, Reverb, SpecAugment, clmr, codecs, functional
from fastaug.codecs.device import DeviceBatch
from fastaug.codecs.native import Members, Wanted
from fastaug.random import Keys
from fastaug.transforms.base import params_to

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("cuda", "in_time")]
BATCH = 512
SLOW_PEER = 8  # clips for peers that loop over examples


class CudaEvents:
    """``timer(run) -> seconds`` on the current stream."""

    def __init__(self) -> None:
        self._flush = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")  # larger than any L2

    def __call__(self, run: Run) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        torch.cuda._sleep(2_000_000)  # about a millisecond, in which the host queues the work
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


class Inputs:
    """Four different batches in turn, so that no call finds its input in the cache."""

    def __init__(self) -> None:
        base = batch(32)
        copies = [base.roll(1000 * i, -1) * (0.9 - 0.1 * (i % 4)) for i in range(4 * BATCH // 32)]
        everything = torch.cat(copies).cuda().split(BATCH)
        self.first = everything[0]
        self.rotating = itertools.cycle(everything)


@pytest.fixture(scope="module")
def timer(cuda: None) -> CudaEvents:
    return CudaEvents()


@pytest.fixture(scope="module")
def inputs(cuda: None) -> Inputs:
    return Inputs()


@pytest.fixture(scope="module")
def copy_bandwidth(timer: CudaEvents) -> float:
    """Bytes per second of a device-to-device copy of 1 GiB, read plus written."""
    source = torch.rand(2**28, device="cuda")
    target = torch.empty_like(source)
    seconds = sorted(timer(lambda: target.copy_(source)) for _ in range(12))[6]
    return 2 * source.nbytes / seconds


@pytest.fixture(scope="module")
def arithmetic_rate(timer: CudaEvents) -> float:
    """Floating-point operations per second of a float32 matrix product on the ordinary cores (no TF32)."""
    size = 8192
    a, b = torch.rand(2, size, size, device="cuda")
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    seconds = sorted(timer(lambda: torch.mm(a, b)) for _ in range(8))[3]
    torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * size**3 / seconds


@pytest.fixture
def measure(
    benchmark: Any, timer: CudaEvents, inputs: Inputs, copy_bandwidth: float, arithmetic_rate: float
) -> Callable[..., None]:
    """``measure(function, peers, flops)``: time ``function(x)`` on rotating inputs, record its shares of the limits.
    flops: operations per output sample."""

    def on_first(function: Callable[[torch.Tensor], torch.Tensor], peers: list[Peer], flops: float = 0.0) -> None:
        output = function(inputs.first)
        moved = inputs.first.nbytes + output.nbytes
        before = inputs.first.clone()
        turn = itertools.chain([inputs.first], inputs.rotating)  # the first call's output is what peers agree with
        record = compare(benchmark, lambda: function(next(turn)), peers, items=BATCH, unit="clip", timer=timer)
        torch.testing.assert_close(inputs.first, before, rtol=0, atol=0)
        rate = moved / (record["ours"]["best"] * BATCH)
        floor = max(moved / copy_bandwidth, flops * output.numel() / arithmetic_rate)
        multiple = record["ours"]["best"] * BATCH / floor
        benchmark.extra_info.update(bytes_moved=moved, copy_bandwidth=copy_bandwidth, copy_share=rate / copy_bandwidth)
        benchmark.extra_info.update(flops=flops * output.numel(), flops_rate=arithmetic_rate, floor_multiple=multiple)
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(
            f"\n  {BATCH / (record['ours']['best'] * BATCH):,.0f} clips/s, {rate / 1e9:,.0f} GB/s,"
            f" {rate / copy_bandwidth:.1%} of copy ({copy_bandwidth / 1e9:,.0f} GB/s), {multiple:.1f} x the floor"
            f" (arithmetic at {arithmetic_rate / 1e12:.0f} Tflop/s), peak {peak:.1f} GiB"
        )

    return on_first


def test_limits(benchmark: Any, copy_bandwidth: float, arithmetic_rate: float) -> None:
    """First of all: what the shares of the other cases are shares of."""
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(copy_bandwidth=copy_bandwidth, flops_rate=arithmetic_rate)
    print(f"\n  copy {copy_bandwidth / 1e9:,.0f} GB/s, matrix product {arithmetic_rate / 1e12:.1f} Tflop/s")


def on_host(least_db: float) -> Callable[[Any, Any], str]:
    check = agrees(least_db)
    return lambda ours, theirs: check(ours.detach().cpu(), theirs.detach().cpu())


def test_gain(measure: Callable[..., None], inputs: Inputs) -> None:
    settings = {"min_gain_in_db": -6.0, "max_gain_in_db": -5.99999}
    peers = [
        Peer("torch x * factor", "torch", lambda: lambda: inputs.first * 10 ** (-6 / 20), check=on_host(100)),
        Peer(f"{TA} Gain", TA, ta("Gain", inputs.first, **settings), check=on_host(90)),
    ]
    measure(lambda x: functional.gain(x, -6.0), peers)


def test_noise(measure: Callable[..., None], inputs: Inputs) -> None:
    x, snr = inputs.first, torch.full((BATCH, 1), 30.0, device="cuda")
    key = torch.arange(BATCH * 3, device="cuda").reshape(BATCH, 3)

    def torchaudio() -> Run:
        from torchaudio import functional as F

        return lambda: F.add_noise(x, torch.randn_like(x), snr)

    white = {"min_snr_in_db": 30.0, "max_snr_in_db": 30.0, "min_f_decay": 0.0, "max_f_decay": 0.0}
    peers = [
        Peer("torchaudio add_noise + torch.randn", "torchaudio", torchaudio, differs="random draws"),
        Peer(f"{TA} AddColoredNoise", TA, ta("AddColoredNoise", x[:SLOW_PEER], **white), items=SLOW_PEER,
             differs="random draws"),
    ]  # fmt: skip
    measure(lambda x: functional.add_noise(x, key, snr_db=30.0), peers)


def clmr_filters() -> tuple[torch.Tensor, torch.Tensor]:
    """Cutoffs in hertz and which of them are high-passes, in the ranges of CLMR."""
    half = BATCH // 2
    cutoffs = torch.cat([torch.linspace(2200, 4000, half), torch.linspace(200, 1200, half)])
    return cutoffs.cuda(), (torch.arange(BATCH) >= half).cuda()


def test_high_low_pass(measure: Callable[..., None], inputs: Inputs) -> None:
    cutoffs, high = clmr_filters()
    x = inputs.first[-SLOW_PEER:]
    peers = [
        Peer(f"{TA} HighPassFilter", TA, ta("HighPassFilter", x, min_cutoff_freq=200.0, max_cutoff_freq=1200.0),
             items=SLOW_PEER, differs="draws its own cutoffs; high-passes only"),
    ]  # fmt: skip
    taps_a_side = float((8 * RATE / cutoffs.double() / 2).mean())  # a pair of taps: an addition and a multiply-add
    measure(lambda x: functional.sinc_filter(x, RATE, cutoffs, high), peers, flops=3 * taps_a_side)


@pytest.mark.parametrize("order", [1, 4])
def test_butterworth(measure: Callable[..., None], inputs: Inputs, order: int) -> None:
    cutoffs, high = clmr_filters()

    def torchaudio() -> Run:
        from torchaudio import functional as F

        return lambda: F.lowpass_biquad(inputs.first[:SLOW_PEER], RATE, 3000.0)

    peers = [
        Peer("torchaudio lowpass_biquad", "torchaudio", torchaudio, items=SLOW_PEER, differs="one low-pass for all")
    ]
    measure(lambda x: functional.butterworth(x, RATE, cutoffs, high, order), peers)


def test_resample(measure: Callable[..., None], inputs: Inputs) -> None:
    """44.1 to 22.05 kHz, the clips taken as half as long."""

    def torchaudio() -> Run:
        from torchaudio.transforms import Resample

        layer = Resample(44_100, 22_050).cuda()
        return lambda: layer(inputs.first)

    peers = [Peer("torchaudio Resample", "torchaudio", torchaudio, differs="a short filter: pass band to about 0.8")]
    measure(lambda x: functional.resample(x, 44_100, 22_050), peers, flops=2 * 352)


def test_delay(measure: Callable[..., None]) -> None:
    delays = torch.tensor([200.0, 250.0, 300.0, 350.0] * (BATCH // 4), device="cuda")
    measure(lambda x: functional.delay(x, RATE, delays), [])


def test_pitch(measure: Callable[..., None], inputs: Inputs) -> None:
    semitones = torch.linspace(-7, 7, BATCH, device="cuda")

    def torchaudio() -> Run:
        from torchaudio.transforms import PitchShift

        transform = PitchShift(RATE, n_steps=-5).cuda()
        return lambda: transform(inputs.first[:SLOW_PEER]).detach()

    span = {"min_transpose_semitones": -7.0, "max_transpose_semitones": 7.0}
    peers = [
        Peer(f"{TA} PitchShift", TA, ta("PitchShift", inputs.first[:SLOW_PEER], **span), items=SLOW_PEER,
             differs="other algorithm: phase vocoder"),
        Peer("torchaudio PitchShift", "torchaudio", torchaudio, items=SLOW_PEER,
             differs="other algorithm: phase vocoder; one shift for the batch"),
    ]  # fmt: skip
    # 324 candidates of 264 samples, three operations each, for every 1544 samples; then, two operations for each
    # product: a half-band of 80 taps, twice 13 flattening taps, and twice three pairs of taps of nine coefficients
    flops = 324 * 264 * 3 / 1544 + 2 * (80 + 2 * 13 + 2 * 3 * 9)
    measure(lambda x: functional.pitch_shift(x, RATE, semitones), peers, flops=flops)


def test_reverb(measure: Callable[..., None]) -> None:
    reverberance, damping, room = torch.rand(3, BATCH, device="cuda") * 99
    measure(lambda x: functional.reverb(x, RATE, reverberance, damping, room), [], flops=16 * 5 + 8 * 3 + 8)


CROPS = 256  # of 30 s tracks


def encoded_crops(codec: str) -> tuple[list[bytes], np.ndarray]:
    """Stereo tracks of 44.1 kHz, and where in each a crop of 2.68 s begins, at 22.05 kHz."""
    first = np.random.default_rng(3).integers(512, 30 * RATE - SAMPLES - 512, CROPS)
    codec, _, kbps = codec.partition("-")
    return tracks(CROPS, 30.0, codec, kbps=int(kbps) if kbps else None), first


def kernel_times(run: Run) -> dict[str, float]:
    """Milliseconds of every kernel and copy of one call, by name."""
    run()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    return {event.key: event.device_time_total / 1e3 for event in profile.key_averages() if event.device_time_total}


@pytest.mark.parametrize("codec", ["wav", "flac", "mp3-128", "mp3-320"])
def test_decode_from_pinned_bytes(benchmark: Any, timer: CudaEvents, codec: str) -> None:
    """The copy to the device and all kernels: a batch of crops as mono at 22.05 kHz. At most 3 ms is the aim."""
    data, first = encoded_crops(codec)
    members = Members(data, [str(i) for i in range(CROPS)], os.cpu_count() or 1)
    wanted = Wanted(np.arange(CROPS), np.arange(CROPS), first, np.full(CROPS, SAMPLES))
    batch = DeviceBatch(members, wanted, RATE, (CROPS, 1, SAMPLES), "cuda", os.cpu_count() or 1)
    assert not batch.finish()
    pinned = batch.staged.cpu().pin_memory()

    def ours() -> torch.Tensor:
        batch.queue(pinned.to("cuda", non_blocking=True))
        return batch.samples

    def copy_alone() -> Run:
        return lambda: pinned.to("cuda", non_blocking=True)

    peers = [Peer("torch: the copy alone", "torch", copy_alone, differs="decodes nothing")]
    record = compare(benchmark, ours, peers, items=CROPS, unit="crop", timer=timer)
    times = kernel_times(ours)
    benchmark.extra_info.update(bytes_copied=pinned.numel(), kernel_ms=times)
    took = record["ours"]["best"] * CROPS * 1e3
    print(f"\n  {took:.2f} ms for {CROPS} crops, {pinned.numel() / 1e6:.0f} MB copied")
    for name, milliseconds in times.items():
        print(f"  {milliseconds:8.3f} ms {name}")


@pytest.mark.parametrize("codec", ["wav", "flac", "mp3-128", "mp3-320"])
def test_decode(benchmark: Any, codec: str) -> None:
    """From bytes in memory, the host's share included: beside all CPU cores, and DALI's on as many threads."""
    data, first = encoded_crops(codec)
    cores = os.cpu_count() or 1

    def on(device: str) -> Run:
        def run() -> torch.Tensor:
            samples, status = codecs.decode(data, first, SAMPLES, RATE, device=device, num_threads=cores)
            assert not status.any()
            return samples.cuda()

        return run

    def dali() -> Run:
        from nvidia.dali import fn, pipeline_def, types

        @pipeline_def(batch_size=CROPS, num_threads=cores, device_id=0)
        def whole_tracks() -> Any:
            encoded = fn.external_source(source=lambda: [np.frombuffer(item, np.uint8) for item in data], batch=True)
            audio, _ = fn.decoders.audio(encoded, downmix=True, sample_rate=RATE, dtype=types.FLOAT)
            start = fn.external_source(source=lambda: list(first.astype(np.int32)[:, None]), batch=True)
            return fn.slice(audio, start, (SAMPLES,), axes=(0,)).gpu()

        pipe = whole_tracks()
        pipe.build()
        return pipe.run

    peers = [
        Peer(f"fastaug on {cores} CPU cores", None, lambda: on("cpu"), check=on_host(90)),
        Peer("DALI decoders.audio", "nvidia-dali-cuda130", dali, differs="decodes and resamples whole tracks"),
    ]
    compare(benchmark, on("cuda"), peers, items=CROPS, unit="crop", threads=cores, timer=synchronised)


def test_clmr_view(measure: Callable[..., None], inputs: Inputs) -> None:
    transform = clmr(sample_rate=RATE)
    peer = Peer("torch-audiomentations", TA, lambda: batched_chain(inputs.first[:SLOW_PEER]), items=SLOW_PEER,
                differs="random draws; has no delay and no reverb")  # fmt: skip
    measure(transform, [peer])


def test_clmr_view_without_delay_and_reverb(measure: Callable[..., None], inputs: Inputs) -> None:
    """What torch-audiomentations has, on as many clips for both."""
    whole = clmr(sample_rate=RATE)
    transform = Compose([step for step in whole.transforms if not isinstance(step, Delay | Reverb)], sample_rate=RATE)
    peer = Peer("torch-audiomentations", TA, lambda: batched_chain(inputs.first[:64]), items=64, differs="random draws")
    measure(transform, [peer])


def frame_flops(n_fft: int) -> float:
    """Window, a real FFT by one of half the length (5 n log2 n) and its untangling, squares, two bands a bin."""
    half = n_fft // 2
    return n_fft + 5 * half * math.log2(half) + 6 * half + 3 * half + 4 * half


def cufft(x: torch.Tensor, front: LogMel) -> Run:
    """The same by torch.stft, a product of matrices and a logarithm."""
    window = torch.hann_window(front.n_fft, device="cuda")
    bank = front._bank(RATE, x.device).filters

    def run() -> torch.Tensor:
        spectra = torch.stft(x[:, 0], front.n_fft, front.hop_length, window=window, pad_mode="constant",
                             return_complex=True)  # fmt: skip
        return torch.log(bank @ spectra.abs().square() + front.offset)[:, None]

    return run


@pytest.mark.parametrize("n_fft", [1024, 2048, 400])
def test_logmel(measure: Callable[..., None], inputs: Inputs, n_fft: int) -> None:
    hop, bands = n_fft // 2, 128 if n_fft > 1000 else 64
    ours = LogMel(n_fft=n_fft, hop_length=hop, n_mels=bands, sample_rate=RATE)

    def torchaudio() -> Run:
        from torchaudio.transforms import MelSpectrogram

        layer = MelSpectrogram(RATE, n_fft=n_fft, hop_length=hop, n_mels=bands, mel_scale="slaney", norm="slaney",
                               pad_mode="constant").cuda()  # fmt: skip
        return lambda: torch.log(layer(inputs.first) + ours.offset)

    def nnaudio() -> Run:
        from nnAudio.features import MelSpectrogram

        layer = MelSpectrogram(sr=RATE, n_fft=n_fft, hop_length=hop, n_mels=bands, pad_mode="constant", verbose=False)
        layer = layer.cuda()
        return lambda: torch.log(layer(inputs.first[:, 0]) + ours.offset)[:, None]

    peers = [
        Peer("torch.stft (cuFFT) + product + log", "torch", lambda: cufft(inputs.first, ours), check=on_host(60)),
        Peer("torchaudio MelSpectrogram", "torchaudio", torchaudio, check=on_host(60)),
        Peer("nnAudio MelSpectrogram", "nnAudio", nnaudio, check=on_host(50)),
    ]
    assert inputs.first.shape[-1] == SAMPLES
    measure(ours, peers, flops=frame_flops(n_fft) / bands)


def test_logmel_and_masks(measure: Callable[..., None], inputs: Inputs) -> None:
    """LogMel and SpecAugment: two masks along either axis, drawn before."""
    front = LogMel(n_fft=1024, hop_length=512, n_mels=128, sample_rate=RATE)
    augment = SpecAugment(freq_width=26, time_width=23, fill=0.0)
    params = params_to(augment.draw(Keys.of(0, range(BATCH))), torch.device("cuda"))

    def torchaudio() -> Run:
        from torchaudio.transforms import FrequencyMasking, MelSpectrogram, TimeMasking

        layer = MelSpectrogram(RATE, n_fft=1024, hop_length=512, n_mels=128, mel_scale="slaney", norm="slaney",
                               pad_mode="constant").cuda()  # fmt: skip
        masks = [FrequencyMasking(27, True), FrequencyMasking(27, True), TimeMasking(24, True), TimeMasking(24, True)]

        def run() -> torch.Tensor:
            y = torch.log(layer(inputs.first) + front.offset)
            for mask in masks:
                y = mask(y)
            return y

        return run

    peer = Peer("torchaudio MelSpectrogram + masks, iid", "torchaudio", torchaudio, differs="draws its own masks")
    measure(
        lambda x: augment._apply_to(front(x), params, None, None, inplace=True), [peer], flops=frame_flops(1024) / 128
    )


def test_logmel_beside_dali(benchmark: Any, inputs: Inputs) -> None:
    """By the host's clock to the end of all work, as DALI has streams of its own."""
    front = LogMel(n_fft=1024, hop_length=512, n_mels=128, sample_rate=RATE, log="db")

    def dali() -> Run:
        from nvidia.dali import fn, pipeline_def

        clips = [clip[0] for clip in inputs.first]

        @pipeline_def(batch_size=BATCH, num_threads=1, device_id=0)
        def mel() -> Any:
            audio = fn.external_source(source=lambda: clips, batch=True, device="gpu", no_copy=True)
            spectra = fn.spectrogram(audio, nfft=1024, window_step=512, reflect_padding=False)
            bands = fn.mel_filter_bank(spectra, sample_rate=RATE, nfilter=128, freq_high=RATE / 2)
            return fn.to_decibels(bands, multiplier=10.0, reference=1.0, cutoff_db=-100.0)

        pipe = mel()
        pipe.build()
        return pipe.run

    peer = Peer("DALI spectrogram + mel_filter_bank + to_decibels", "nvidia-dali-cuda130", dali,
                differs="its outputs are not held against ours")  # fmt: skip
    compare(benchmark, lambda: front(inputs.first), [peer], items=BATCH, unit="clip", timer=synchronised)
