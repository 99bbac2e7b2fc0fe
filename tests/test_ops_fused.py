"""The pointwise pass: merged parts against one part after another, bit by bit; the CUDA kernels emulated."""

from __future__ import annotations

import itertools
import random
from functools import partial

import pytest
import torch
from torch import Tensor

from emulation import Emulated, EmulationError, emulate, emulate_source
from fastaug import functional as F
from fastaug._paths import csrc_dir
from fastaug.ops import fused
from fastaug.ops.fused import Pointwise
from fastaug.ops.noise import add_noise
from oracles import emulate_launches

ROWS = 5
KEY = torch.arange(1, 3 * ROWS + 1).reshape(ROWS, 3) * 0x1234567
PARTS = ("crop", "flip", "gain", "gain clip", "noise", "noise clip")


def samples(length: int = 1000, channels: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    x = 0.5 * torch.randn(ROWS, channels, length, generator=generator)
    x[..., :1] = -0.0
    return x


def part(name: str, x: Tensor, seed: int) -> Pointwise:
    """One part with parameters of its own for every row; some rows inactive."""
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(ROWS, generator=generator) < 0.6
    if name == "crop":
        return fused.cropping(x, torch.randint(-20, x.shape[-1], (ROWS,), generator=generator), x.shape[-1] - 3)
    if name == "flip":
        return fused.flipping(x, active)
    if name.startswith("gain"):
        db = 12 * torch.randn(ROWS, generator=generator)
        return fused.scaling(x, fused.amplitude(db, x), "clip" in name, active)
    level = {"snr_db": 20 * torch.rand(ROWS, generator=generator)}
    if seed % 2:
        level = {"std_ratio": torch.rand(ROWS, generator=generator)}
    lengths = torch.randint(0, 1100, (ROWS,), generator=generator) if seed % 3 == 0 else None
    return fused.hissing(x, KEY + seed, **level, clip="clip" in name, lengths=lengths, active=active)


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


def one_by_one_and_merged(names: tuple[str, ...], run) -> tuple[Tensor, Tensor, int]:
    """The parts one after another, the same merged as far as they can be, and how many passes those were."""
    x = x_merged = samples()
    waiting, passes = None, 0
    for seed, name in enumerate(names):
        step = part(name, x, seed)
        x = run(x, step)
        joined = step if waiting is None else waiting.then(step)
        if joined is None:
            x_merged, joined, passes = run(x_merged, waiting), step, passes + 1
        waiting = joined
    return x, run(x_merged, waiting), passes + 1


@pytest.mark.parametrize("names", list(itertools.product(PARTS, repeat=2)), ids="-".join)
def test_merged_pairs_keep_the_bits(names: tuple[str, str]) -> None:
    separate, merged, passes = one_by_one_and_merged(names, fused.run)
    assert same_bits(merged, separate)
    kinds = [name.split()[0] for name in names]
    alone = kinds[1] == "crop" or kinds in (["gain", "gain"], ["noise", "noise"])
    assert passes == (2 if alone else 1)


def test_long_runs_keep_the_bits() -> None:
    dice = random.Random(3)
    saved = 0
    for _ in range(150):
        names = tuple(dice.choice(PARTS) for _ in range(dice.randint(3, 6)))
        separate, merged, passes = one_by_one_and_merged(names, fused.run)
        assert same_bits(merged, separate), names
        saved += len(names) - passes
    assert saved > 150
    clmr = ("crop", "flip", "noise", "gain clip")
    assert one_by_one_and_merged(clmr, fused.run)[2] == 1


def test_merged_passes_against_float64() -> None:
    x = samples(3000)
    db, snr = torch.linspace(-20, -1, ROWS), torch.linspace(10, 40, ROWS)
    start, flip = torch.tensor([0, 7, 500, 900, 1000]), torch.arange(ROWS) % 2 == 0
    steps = fused.cropping(x, start, 2000).then(fused.flipping(x, flip))
    steps = steps.then(fused.hissing(x, KEY, snr_db=snr)).then(fused.scaling(x, fused.amplitude(db, x), True, None))
    wide = torch.stack([x[row, :, s : s + 2000] for row, s in enumerate(start.tolist())]).double()
    wide = torch.where(flip[:, None, None], -wide, wide)
    noise = add_noise(torch.zeros(ROWS, 2, 2000), KEY, sigma=1.0).double()
    rms = wide.square().mean((1, 2)).sqrt() * 10 ** (-snr.double() / 20)
    wide = ((wide + rms[:, None, None] * noise) * 10 ** (db.double() / 20)[:, None, None]).clamp(-1, 1)
    error = (fused.run(x, steps).double() - wide).square().mean().sqrt() / wide.square().mean().sqrt()
    assert error < 1e-7


@pytest.mark.parametrize("names", [("flip",), ("gain clip",), ("noise",), ("gain", "noise clip", "flip")])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("length", [1, 15, 1000, 40_001])  # the last has two pieces
def test_in_place(names: tuple[str, ...], threads: int, length: int) -> None:
    torch.set_num_threads(threads)
    x = samples(length)
    steps = part(names[0], x, 0)
    for seed, name in enumerate(names[1:], 1):
        steps = steps.then(part(name, x, seed))
    expected, untouched = fused.run(x, steps), x.clone()
    assert same_bits(x, untouched), "wrote its input"
    mine = x.clone()
    out = fused.run(mine, steps, inplace=True)
    assert out.data_ptr() == mine.data_ptr()
    assert same_bits(out, expected)


@pytest.mark.parametrize("offset", [0, 1, 2, 7, 16, 33, 999, 1000, 5000, -1, -20, -1000, 1 << 62, -(1 << 63)])
def test_echo_in_place(offset: int) -> None:
    from fastaug.ops import pointwise

    x, active = samples(), torch.tensor([True, False, True, True, True])
    expected = pointwise.echo(x, offset, 0.7, 0.3, active)
    mine = x.clone()
    out = pointwise.echo(mine, offset, 0.7, 0.3, active, inplace=True)
    assert out.data_ptr() == mine.data_ptr()
    assert same_bits(out, expected)


def test_functions_write_into_what_they_may() -> None:
    """And only then: a copy in another dtype is the function's own, the caller's float16 never."""
    key = KEY
    calls = [
        lambda x, **k: F.invert_polarity(x, **k),
        lambda x, **k: F.gain(x, -3.0, **k),
        lambda x, **k: F.add_noise(x, key[: len(x)], snr_db=10.0, **k),
        lambda x, **k: F.delay(x, 8000, 3.0, **k),
    ]
    for call in calls:
        x = samples()
        expected = call(x)
        assert same_bits(x, samples())
        assert call(x, inplace=True).data_ptr() == x.data_ptr()
        assert same_bits(x, expected)
        half = samples().half()
        kept = half.clone()
        assert torch.equal(call(half, inplace=True), call(kept)) and torch.equal(half, kept)
        grad = samples().requires_grad_()
        assert call(grad, inplace=True).data_ptr() != grad.data_ptr()
        strided = torch.stack([samples(), samples()], -1)[..., 0]
        assert same_bits(call(strided, inplace=True), expected)


def test_rows_without_anything_to_do_are_copied_bit_by_bit() -> None:
    x = samples()
    x[2, 0, 3] = 1e-42  # a denormal
    x.view(torch.int32)[2, 0, 4] = 0x7F800001  # a signalling NaN: even that stays what it is
    off = torch.tensor([True, True, False, True, True])
    steps = fused.flipping(x, off).then(fused.hissing(x, KEY, sigma=0.1, clip=True, active=off))
    steps = steps.then(fused.scaling(x, 0.5, True, off))
    out = fused.run(x, steps)
    assert same_bits(out[2], x[2]) and not same_bits(out[3], x[3])


def test_padding_does_not_count_and_stays() -> None:
    x = samples()
    lengths = torch.tensor([1000, 500, 1, 0, 4000])
    noisy = add_noise(x, KEY, snr_db=6.0, lengths=lengths)
    for row, valid in enumerate(lengths.clamp(max=1000).tolist()):
        alone = add_noise(x[row : row + 1, :, :valid], KEY[row : row + 1], snr_db=6.0)
        # a shorter row is summed in another order
        torch.testing.assert_close(noisy[row : row + 1, :, :valid], alone, rtol=1e-6, atol=1e-6)
        assert same_bits(noisy[row, :, valid:], x[row, :, valid:])
    assert same_bits(noisy[[0, 4]], add_noise(x, KEY, snr_db=6.0)[[0, 4]])


def test_opcheck() -> None:
    x = samples(30)
    steps = part("crop", x, 0).then(part("flip", x, 1)).then(part("noise clip", x, 3)).then(part("gain", x, 4))
    flat = (x, steps.starts, steps.length, *steps.before, *steps.noise, *steps.after)
    torch.library.opcheck(torch.ops.fastaug.pointwise.default, flat)


def test_a_gradient_is_refused_not_lost() -> None:
    x = samples(30).requires_grad_()
    with pytest.raises(RuntimeError, match="no gradient"):
        fused.run(x, fused.flipping(x, None)).sum().backward()


def test_clear_errors() -> None:
    x = samples()
    with pytest.raises(ValueError, match=r"lengths must be a number or have shape \(5,\), got \(2,\)"):
        fused.hissing(x, KEY, sigma=1.0, lengths=torch.ones(2, dtype=torch.int64))
    with pytest.raises(TypeError, match="starts must be whole samples"):
        fused.cropping(x, torch.zeros(5), 3)


# --- the CUDA kernels, on the CPU ---


def level_db(reference: Tensor, got: Tensor) -> float:
    error = (reference.double() - got.double()).square().sum()
    return float("inf") if error == 0 else float(10 * torch.log10(reference.double().square().sum() / error))


@pytest.mark.parametrize("seed", range(12))
def test_kernel_equals_cpu_and_itself_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(seed)
    names = tuple(dice.choice(PARTS) for _ in range(4))
    expected = one_by_one_and_merged(names, fused.run)[1]
    emulate_launches(monkeypatch)
    separate, merged, _ = one_by_one_and_merged(names, fused.run_cuda)
    assert same_bits(merged, separate), names
    assert level_db(expected, merged) > 110


@pytest.mark.parametrize("length", [4097, 9003])
def test_kernel_accesses_are_coalesced(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = samples(length, channels=1)
    steps = fused.cropping(x, torch.arange(ROWS), length - ROWS).then(fused.flipping(x, KEY[:, 0] % 2 == 0))
    steps = steps.then(fused.hissing(x, KEY, snr_db=10.0)).then(fused.scaling(x, 0.5, True, None))
    reports = emulate_launches(monkeypatch, count=True)
    fused.run_cuda(x, steps)
    assert len(reports) == 2
    for report in reports:
        assert report.ratio <= 1.5, str(report)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("{flip_after, factor_after, active_after,", "{flip_after, factor_after, nullptr,"),
        ("fa_level_of_row({flip, factor, active, clip != 0}, row)", "FaLevel{1.0f, fa_no_limit()}"),
        ("t < sound ? fa_limit", "true ? fa_limit"),
        ("fa_overlap(begin, end, length, start)", "fa_overlap(begin, end, out_length, start)"),
        ("channels * sound, FA_LD(noise_level", "channels * out_length, FA_LD(noise_level"),
        ("end = fa_min(begin + kTile, sound)", "end = fa_min(begin + kTile, out_length)"),
        ("limit = clip_noise ? 1.0f", "limit = clip_noise ? 2.0f"),
        ("sums + 2 * row * channels * tiles", "sums + 2 * row * tiles"),
    ],
)
def test_broken_kernels_are_caught(right: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`active` forgotten, the level before the noise lost (in the sums too), noise on padding, a read beyond the end,
    padding in the level's divisor and in its sums, another limit, another row's sums."""
    source = (csrc_dir() / "cuda" / "pointwise.cu").read_text().replace('"../', '"')
    assert right in source
    x = samples(5001)
    lengths = torch.tensor([5001, 100, 4096, 5000, 9999])
    steps = fused.cropping(x, torch.tensor([0, 3, -4, 100, 5]), 5005)
    steps = steps.then(fused.scaling(x, torch.linspace(0.5, 2, ROWS), True, torch.tensor([1, 0, 1, 1, 1]).bool()))
    steps = steps.then(fused.hissing(x, KEY, snr_db=3.0, clip=True, lengths=lengths))
    steps = steps.then(fused.scaling(x, 0.7, False, torch.tensor([1, 1, 1, 0, 1]).bool()))
    expected = fused.run(x, steps)

    def agree(kernels: Emulated) -> bool:
        monkeypatch.setattr("fastaug.ops._cuda.launch", lambda file, *args: kernels.launch(*args, count=False))
        try:
            got = fused.run_cuda(x, steps)
        except EmulationError:
            return False
        return all(level_db(want, row) > 110 for want, row in zip(expected, got))

    assert agree(emulate("pointwise.cu"))
    assert not agree(emulate_source(source.replace(right, wrong)))


def on(device: str, steps: object) -> object:
    if isinstance(steps, Tensor):
        return steps.to(device)
    return type(steps)(*map(partial(on, device), steps)) if isinstance(steps, tuple) else steps


@pytest.mark.gpu
@pytest.mark.parametrize("seed", range(6))
def test_cuda_equals_cpu_and_itself_one_by_one(seed: int) -> None:
    dice = random.Random(seed)
    names = tuple(dice.choice(PARTS) for _ in range(4))
    here = one_by_one_and_merged(names, fused.run)[1]
    there = one_by_one_and_merged(names, lambda x, steps: fused.run(x.cuda(), on("cuda", steps)).cpu())
    assert same_bits(there[0], there[1])
    assert level_db(here, there[1]) > 110


def test_a_window_is_never_cut_out_in_place() -> None:
    """Its result has another length, or other samples than are there to be read."""
    x = torch.arange(16.0).reshape(2, 1, 8)
    for length in (4, 8):
        before = x.clone()
        out = fused.run(x, fused.cropping(x, 2, length), inplace=True)
        assert torch.equal(x, before) and out.shape == (2, 1, length)
        assert torch.equal(out[..., :4], x[..., 2:6])
