"""Layer III frames by hand against a float64 decoder from the standard's formulas, and against mpg123 and FFmpeg on the
same bytes. They cover what no encoder at hand makes: intensity stereo, mixed blocks, subblock gain, odd tables, …"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import mp3_reference
import mp3_writer as mw
from fastaug.codecs import Status, decode
from mp3_writer import EMPTY, LONG, SHORT, START, STOP, Frame, Granule

REFERENCE_MAX, PEER_MAX = 3e-6, 6e-6  # of full scale 1; samples reach 0.1 to 2
RATES = range(9)


def spectrum(seed: int, last: int = 400, top: int = 12) -> list[int]:
    """Lines that fall off, zeros from `last` on."""
    rng = np.random.default_rng(seed)
    size = np.maximum(top * np.exp(-np.arange(last) / (last / 4 + 1)), 0.9)
    return np.rint(rng.uniform(-1, 1, last) * size).astype(int).tolist()


def ours(data: bytes) -> np.ndarray:
    samples, status = decode([data], channels=None)
    assert status.tolist() == [Status.OK]
    return np.asarray(samples[0])


def run(command: list[str], data: bytes, channels: int) -> np.ndarray:
    with tempfile.NamedTemporaryFile(suffix=".mp3") as file:
        file.write(data)
        file.flush()
        command = [file.name if word == "FILE" else word for word in command]
        raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.float32).reshape(-1, channels).T


def mpg123(data: bytes, channels: int) -> np.ndarray:
    return run(["mpg123", "-q", "-e", "f32", "-s", "FILE"], data, channels)


def ffmpeg(data: bytes, channels: int) -> np.ndarray:
    command = ["ffmpeg", "-loglevel", "error", "-f", "mp3", "-i", "FILE", "-f", "f32le", "-"]
    return run(command, data, channels)


PEERS = {"mpg123": mpg123, "ffmpeg": ffmpeg}


def check(frames: Sequence[Frame], peers: Sequence[str] = ("mpg123", "ffmpeg"), mean: bool = True) -> np.ndarray:
    """Samples of a silent frame, these, and two silent ones (the filter bank's tail)."""
    frames = [mw.silent(frames[0]), *frames, *[mw.silent(frames[0])] * 2]
    data = mw.stream(frames)
    got, expected = ours(data), mp3_reference.decode(frames)
    assert got.shape == expected.shape
    peak = np.abs(expected).max()
    assert 1e-3 < peak < 40
    assert np.abs(got - expected).max() < REFERENCE_MAX * max(peak, 1)
    for peer in peers:
        if shutil.which(peer):
            theirs = PEERS[peer](data, len(got))
            assert theirs.shape == got.shape, peer
            assert np.abs(got - theirs).max() < PEER_MAX * max(peak, 1), peer
    if mean and len(got) == 2:
        mixed, _ = decode([data], channels=1)
        assert np.abs(np.asarray(mixed[0, 0]) - expected.mean(0)).max() < REFERENCE_MAX * max(peak, 1)
    return got


def frame(granules: Sequence[Granule], rate: int = 0, **more: bool | int | tuple[int, int]) -> Frame:
    """One channel's granules as frames need them: a pair of MPEG 1, one of the lower rates."""
    assert len(granules) == (2 if rate < 3 else 1)
    return Frame([[g] for g in granules], rate, **more)  # type: ignore[arg-type]


def frames_of(granules: Sequence[Granule], rate: int) -> list[Frame]:
    step = 2 if rate < 3 else 1
    granules = [*granules, *[EMPTY] * (len(granules) % step)]
    return [frame(granules[i : i + step], rate) for i in range(0, len(granules), step)]


def pair_values(number: int, long_values: bool) -> list[int]:
    size, _ = mw.codes()[number]
    top = 15 + (1 << int(mw.LINBITS[number])) - 1
    rng = np.random.default_rng(number)
    values = np.stack(np.divmod(np.arange(size * size), size), 1)
    if mw.LINBITS[number]:
        high = rng.integers(15, top + 1, values.shape) if long_values else 15
        values = np.where(values == 15, high, values)
        values.flat[np.flatnonzero(values >= 15)[-1:]] = top if long_values else 15
    return (values * rng.choice([-1, 1], values.shape)).ravel().tolist()


@pytest.mark.parametrize("number", [n for n in range(1, 32) if n not in (4, 14)])
def test_every_code_of_every_table(number: int) -> None:
    lines = pair_values(number, long_values=True)
    gain = 210 - int(4 * np.log2(max(max(map(abs, lines)), 1) ** (4 / 3) / 0.1))
    frames = []
    for at in range(0, len(lines), 128):
        # in all three regions: bands of 44.1 kHz at lines 36 and 90
        part = Granule(lines[at : at + 128], gain, tables=(number,) * 3, big=len(lines[at : at + 128]) // 2)
        frames += [frame([replace(part, regions=(7, 4)), EMPTY])]
    check(frames)


@pytest.mark.parametrize("table", [0, 1])
def test_every_quadruple(table: int) -> None:
    fours = [[int(bit) for bit in f"{n:04b}"] for n in range(16)]
    signs = np.random.default_rng(table).choice([-1, 1], (9, 16, 4))
    lines = (np.array([fours] * 9) * signs).ravel().tolist()
    check([frame([Granule(lines, 190, quadruples=table), Granule(lines[7:300], 190, quadruples=table)])])


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("mixed", [False, True])
def test_blocks_and_subblock_gain(rate: int, mixed: bool) -> None:
    """The order of blocks that encoders make; subblock_gain up to 7. Mixed windows of start and stop blocks too."""
    granules = [
        Granule(spectrum(0), 185),
        Granule(spectrum(1), 185, block=START, mixed=mixed),
        Granule(spectrum(2, 560), 185, block=SHORT, mixed=mixed, subblock_gain=(0, 1, 3)),
        Granule(spectrum(3, 576), 190, block=SHORT, mixed=mixed, subblock_gain=(7, 2, 4)),
        Granule(spectrum(4, 60), 185, block=SHORT, mixed=mixed),
        Granule(spectrum(5), 185, block=STOP, mixed=mixed),
        Granule(spectrum(6), 185),
    ]
    # At 8 kHz the standard has no mixed blocks: its two long subbands end inside a band. FFmpeg asks for a sample.
    check(frames_of(granules, rate), () if rate == 8 and mixed else ("mpg123", "ffmpeg"))


@pytest.mark.parametrize("rate", RATES)
def test_every_start_of_a_region(rate: int) -> None:
    """Other codes in each region, so that an edge in the wrong place garbles the rest."""
    lines = np.sign(spectrum(9, 576, 40)).tolist()
    combinations = [(a, b) for a in range(16) for b in range(8)][:: 5 if rate in (0, 5) else 17]
    granules = [Granule(lines, 190, tables=(2, 5, 7), regions=each, big=288) for each in combinations]
    check(frames_of(granules, rate))


def band_factors(rate: int, g: Granule, seed: int, intensity: bool = False) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(rng.integers(0, 1 << size)) for size in mw.factor_sizes(rate, g, intensity)]


@pytest.mark.parametrize("compress", range(16))
def test_factors_of_mpeg_1(compress: int) -> None:
    kinds = [Granule(block=LONG), Granule(block=SHORT), Granule(block=SHORT, mixed=True), Granule(block=STOP)]
    granules = []
    for n in range(8):
        g = replace(kinds[n % 4], lines=spectrum(n, 576, 20), gain=175, compress=compress)
        g = replace(g, scale=n // 4, preflag=int(g.block != SHORT and n > 0))
        granules += [replace(g, factors=band_factors(0, g, n)), EMPTY]  # FFmpeg wants a start before a short block
    check(frames_of(granules, compress % 3))


@pytest.mark.parametrize("shared", range(16))
def test_factors_shared_with_the_first_granule(shared: int) -> None:
    g = Granule(spectrum(1, 576), 190, compress=15)
    first = replace(g, factors=band_factors(0, g, 1))
    own = band_factors(0, g, 2)
    group = np.repeat([0, 1, 2, 3], [6, 5, 5, 5])
    factors = [f if shared >> (3 - n) & 1 else o for f, o, n in zip(first.factors, own, group, strict=True)]
    second = replace(g, lines=spectrum(2, 576), factors=factors)
    channel = [first, second]
    check([Frame([[a, b] for a, b in zip(channel, channel, strict=True)], 0, shared=(shared, shared))])


LSF_SPLITS = [0, 17, 79, 80, 255, 399, 400, 421, 463, 499, 500, 504, 511]


@pytest.mark.parametrize("compress", LSF_SPLITS)
@pytest.mark.parametrize("rate", [3, 7])
def test_factors_of_the_lower_rates(compress: int, rate: int) -> None:
    granules = []
    for n, (block, mixed) in enumerate([(LONG, False), (SHORT, False), (SHORT, True), (STOP, False)]):
        g = Granule(spectrum(n, 576, 20), 190, compress=compress, block=block, mixed=mixed, scale=n & 1)
        granules += [replace(g, factors=band_factors(rate, g, n)), EMPTY]
    # of MPEG 2.5 mpg123 has other regions in mixed blocks, FFmpeg those of MPEG 2
    check(frames_of(granules, rate), ("ffmpeg",) if rate >= 6 else ("mpg123", "ffmpeg"))


KINDS = [(LONG, False), (SHORT, False), (SHORT, True)]


def intensity_frames(rate: int, block: int, mixed: bool, ms: bool, compress: int, seeds: range) -> list[Frame]:
    """Left channels with lines everywhere; right ones that end somewhere, in short blocks not alike in each window."""
    frames = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        left = Granule(spectrum(seed, 576, 8), 188, block=block, mixed=mixed)
        right = replace(left, compress=compress)
        right = replace(right, factors=band_factors(rate, right, seed, True))
        lines = np.array(spectrum(seed + 100, 576, 8))
        for w in range(4):
            of_window = [band for band in mw.bands(rate, right.kind) if band[2] == w]
            if of_window:
                # sound below some band, be it the last; or none at all
                first = of_window[rng.integers(0, len(of_window))][0] if rng.integers(4) else 0
                for i, j, _ in of_window:
                    lines[i:j] *= i < first
        granule = [left, replace(right, lines=lines.tolist())]
        frames.append(Frame([granule] * (2 if rate < 3 else 1), rate, ms=ms, intensity=True))
    return frames


@pytest.mark.parametrize("ms", [False, True])
@pytest.mark.parametrize(("block", "mixed"), KINDS)
@pytest.mark.parametrize("rate", [0, 1, 2])
def test_intensity_of_mpeg_1(rate: int, block: int, mixed: bool, ms: bool) -> None:
    check(intensity_frames(rate, block, mixed, ms, 13, range(12)))


@pytest.mark.parametrize("position", range(8))
@pytest.mark.parametrize("ms", [False, True])
def test_each_position_of_mpeg_1(position: int, ms: bool) -> None:
    right = Granule(compress=13, factors=[position] * 21)
    granule = [Granule(spectrum(1, 576), 188), right]
    got = check([Frame([granule, granule], 0, ms=ms, intensity=True)])
    loud_left, loud_right = np.sqrt((got**2).sum(1))
    if position == 7:
        assert loud_right == pytest.approx(loud_left) if ms else loud_right == 0
    else:
        assert loud_right / (loud_left + loud_right) == pytest.approx(
            1 / (1 + np.tan(position * np.pi / 12)) if position < 6 else 0, abs=1e-5
        )


LSF_INTENSITY = [2 * (36 * 4 + 6 * 3 + 2), 2 * (180 + 16 * 3 + 4 * 2 + 1), 2 * (244 + 3 * 2 + 2)]


@pytest.mark.parametrize("ms", [False, True])
@pytest.mark.parametrize(("block", "mixed"), KINDS)
@pytest.mark.parametrize("scale", [0, 1])
@pytest.mark.parametrize("compress", LSF_INTENSITY)
def test_intensity_of_the_lower_rates(compress: int, scale: int, block: int, mixed: bool, ms: bool) -> None:
    """The largest value of a factor's size is no position (ISO 13818-3, and minimp3; in mpg123 it is 7, in FFmpeg every
    value is a position); see the test below for those that all agree about."""
    check(intensity_frames(4, block, mixed, ms, compress + scale, range(8)), ())


@pytest.mark.parametrize("ms", [False, True])
@pytest.mark.parametrize(("block", "mixed"), KINDS)
@pytest.mark.parametrize("compress", [*LSF_INTENSITY, 0, 1, 2 * 36, 2 * 216, 2 * 244])
def test_positions_of_the_lower_rates_that_no_decoder_refuses(compress: int, block: int, mixed: bool, ms: bool) -> None:
    """Sizes of 0 bits too, whose 0 is a position. Mixed blocks: FFmpeg and not mpg123, which differs there."""
    frames = []
    for f in intensity_frames(4, block, mixed, ms, compress, range(6)):
        left, right = f.granules[0]
        sizes = mw.factor_sizes(4, right, True)
        legal = [min(v, max((1 << n) - 2, 0)) for v, n in zip(right.factors, sizes, strict=True)]
        right = replace(right, factors=[6 if v == 7 else v for v in legal])
        frames.append(replace(f, granules=[[left, right]]))
    check(frames, ("ffmpeg",) if mixed else ("mpg123", "ffmpeg"))


def test_big_values_at_the_limit_and_beyond() -> None:
    full = Granule(np.full(576, 2).tolist(), 180, tables=(5, 5, 5))
    check([frame([full, EMPTY])])
    for told in (289, 400, 511):
        bad = frame([replace(full, told_big=told), EMPTY])
        silence = frame([EMPTY, EMPTY])
        samples, status = decode([mw.stream([silence, bad, silence, silence])], channels=None)
        assert status.tolist() == [Status.CORRUPT]
        assert not samples.any()


def test_bits_that_run_out() -> None:
    """A granule that claims fewer bits than its lines have keeps the whole codes; lines behind are zero."""
    lines = [2, -1, 1, 2] * 20
    whole = Granule(lines, 190, tables=(5, 5, 5))
    got, cut = (
        ours(mw.stream([frame([replace(whole, told_bits=bits), EMPTY])] * 4)) for bits in (None, 2 * (7 + 2 + 6 + 2))
    )
    assert np.abs(got).max() > 0.01
    short = ours(mw.stream([frame([replace(whole, lines=lines[:8]), EMPTY])] * 4))
    assert got.shape == cut.shape == short.shape


def test_granules_of_no_bits_are_silent() -> None:
    assert not ours(mw.stream([frame([EMPTY, EMPTY])] * 4)).any()
    told = Granule(gain=255, told_big=200, compress=0)  # table 0: zeros without bits
    assert not ours(mw.stream([frame([told, told])] * 4)).any()


@pytest.mark.parametrize("blocks", [(START, SHORT), (SHORT, LONG), (LONG, STOP)])
def test_middle_and_side_of_different_blocks(blocks: tuple[int, int]) -> None:
    """Left and right then have different blocks too: their mean needs both channels."""
    left, right = (Granule(spectrum(9 + i), 190, block=block) for i, block in enumerate(blocks))
    check([Frame([[left, right]] * 2, ms=True)] * 2, peers=())
