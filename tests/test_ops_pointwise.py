"""fastaug.ops.pointwise: scale, echo and crop against plain torch, gradients, and the CUDA kernels emulated."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from emulation import Emulated, EmulationError, emulate, emulate_source
from fastaug import functional as F
from fastaug._paths import csrc_dir
from fastaug.ops import pointwise as ops
from oracles import check_rows, emulate_launches

LENGTHS = [1, 2, 31, 4095, 4096, 4097, 33_000]
FACTORS = torch.tensor([0.3, -1.0, 3.7, 1e-3])
OFFSETS = torch.tensor([0, 1, 29, -7])
SOME = torch.tensor([True, True, False, True])


def samples(rows: int = 4, channels: int = 2, length: int = 1000) -> Tensor:
    return torch.randn(rows, channels, length, generator=torch.Generator().manual_seed(length))


def pick(active: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    return new if active is None else torch.where(active[:, None, None], new, old)


def torch_scale(x: Tensor, factor: Tensor, clip: bool = False, active: Tensor | None = None) -> Tensor:
    y = x * factor[:, None, None]
    return pick(active, y.clamp(-1, 1) if clip else y, x)


def torch_crop(x: Tensor, starts: Tensor, length: int) -> Tensor:
    at = starts[:, None] + torch.arange(length)
    inside = (at >= 0) & (at < x.shape[-1])
    padded = torch.nn.functional.pad(x, (0, 1))
    taken = padded.gather(2, at.clamp(0, x.shape[-1])[:, None].expand(-1, x.shape[1], -1))
    return torch.where(inside[:, None], taken, 0.0)


def torch_echo(x: Tensor, offset: Tensor, dry: Tensor, wet: Tensor, active: Tensor | None = None) -> Tensor:
    delayed = torch_crop(x, -offset, x.shape[-1])
    return pick(active, dry[:, None, None] * x + wet[:, None, None] * delayed, x)


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("active", [None, SOME])
def test_equal_plain_torch_bit_by_bit(length: int, active: Tensor | None) -> None:
    x = samples(length=length)
    x[:, 0, 0] = -0.0
    for clip in (False, True):
        assert same_bits(ops.scale(x, FACTORS, clip, active), torch_scale(x, FACTORS, clip, active))
    for offset in (OFFSETS, torch.tensor([length - 1, length, length + 1, -length])):
        expected = torch_echo(x, offset, FACTORS.flip(0), FACTORS, active)
        assert same_bits(ops.echo(x, offset, FACTORS.flip(0), FACTORS, active), expected)
        for size in (0, 1, length, 2 * length + 1):
            assert same_bits(ops.crop(x, offset, size), torch_crop(x, offset, size))


def test_functions_keep_the_bits_of_their_definitions() -> None:
    """gain, delay and crop in the words of their documentation, over the ranges of the presets."""
    x = samples(length=4000)
    db = torch.tensor([-6.0, -0.1, 3.0, 12.0])
    factor = torch.pow(10.0, db.double() / 20).float()
    assert same_bits(F.gain(x, db, active=SOME), pick(SOME, x * factor[:, None, None], x))
    assert same_bits(F.gain(x, db, clip=True), (x * factor[:, None, None]).clamp(-1, 1))
    assert same_bits(F.invert_polarity(x, active=SOME), pick(SOME, -x, x))
    ms, level = torch.tensor([200.0, 33.3, 0.0, 1000.0]), torch.tensor([0.5, 0.9, 0.123, 0.7])
    delayed = torch_crop(x, -(ms.double() * 8000 / 1000).long(), 4000)
    expected = x + delayed * level[:, None, None]
    assert same_bits(F.delay(x, 8000, ms, level, halve=False, active=SOME), pick(SOME, expected, x))
    assert same_bits(F.delay(x, 8000, ms, level, active=SOME), pick(SOME, expected * 0.5, x))


def test_batches_beyond_the_caches_have_the_same_bits() -> None:
    """More than 2^22 samples are written past the caches: rows that start and end anywhere in a cache line."""
    x = samples(rows=14, channels=2, length=150_001)
    x[3, 1, 70_000:70_003] = torch.tensor([float("nan"), float("inf"), -0.0])
    factors, active = torch.linspace(-2.0, 2.0, 14), torch.arange(14) % 3 > 0
    starts = torch.tensor([0, 1, -1, 17, -33, 5, 150_001]).repeat(2)
    for clip in (False, True):
        expected = torch.cat([ops.scale(x[i : i + 1], factors[i], clip, active[i : i + 1]) for i in range(14)])
        assert same_bits(ops.scale(x, factors, clip, active), expected)
    pieces = [ops.crop(x[i : i + 1], starts[i : i + 1], 150_003) for i in range(14)]
    assert same_bits(ops.crop(x, starts, 150_003), torch.cat(pieces))


def test_a_team_smaller_than_asked_for_leaves_no_row_out() -> None:
    code = """if True:
        import torch
        from fastaug.ops import pointwise
        torch.set_num_threads(4)
        x = torch.ones(8, 1, 40_000)
        assert torch.equal(pointwise.scale(x, 2.0), 2 * x)"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_THREAD_LIMIT": "1"})


def test_rows_alone_and_non_finite_samples() -> None:
    x = samples(length=20_000)  # enough for a team of threads
    check_rows(lambda x, rows, active: ops.scale(x, FACTORS[rows], True, active), x)
    check_rows(lambda x, rows, active: ops.echo(x, 5000, 0.5, 0.3, active), x)
    check_rows(lambda x, rows, active: ops.crop(x, 100, 15_000), x, same_shape=False)
    one = torch.zeros(1, 1, 6)
    one[0, 0, 1] = float("nan")
    assert ops.scale(one, 2.0, clip=True).isnan().tolist() == [[[False, True] + 4 * [False]]]
    assert ops.echo(one, 3).isnan().tolist() == [[[False, True, False, False, True, False]]]
    one[0, 0, 1] = float("inf")
    assert ops.scale(one, 2.0, clip=True)[0, 0, 1] == 1


def test_tiny_empty_and_far_away() -> None:
    for shape in ((0, 1, 5), (2, 0, 5), (2, 1, 0), (2, 1, 1)):
        x = torch.ones(shape)
        assert torch.equal(ops.scale(x, 2.0), 2 * x)
        assert torch.equal(ops.echo(x, 0, 1.0, 2.0), 3 * x)
        assert torch.equal(ops.crop(x, -1, 3), torch.nn.functional.pad(x, (1, 2))[..., :3])
    x, far = torch.ones(4, 1, 3), torch.tensor([1 << 62, -(1 << 62), (1 << 63) - 1, -(1 << 63)])
    assert torch.equal(ops.echo(x, far, 0.5, 1.0), 0.5 * x)
    assert torch.equal(ops.crop(x, far, 7), torch.zeros(4, 1, 7))


def test_clear_errors() -> None:
    x = samples()
    with pytest.raises(TypeError, match="offset must be whole samples"):
        ops.echo(x, torch.tensor([0.5] * 4))
    with pytest.raises(TypeError, match="starts must be whole samples"):
        ops.crop(x, 1.5, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"factor must be a number or have shape \(4,\), got \(3,\)"):
        ops.scale(x, torch.ones(3))
    with pytest.raises(ValueError, match="length must not be negative, got -1"):
        ops.crop(x, 0, -1)
    with pytest.raises(TypeError, match="active must be a bool tensor"):
        ops.echo(x, 1, active=torch.ones(4))


def gradients(function, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    inputs = [t.clone().requires_grad_() for t in tensors]
    y = function(*inputs)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return torch.autograd.grad((y * weight).sum(), inputs)


@pytest.mark.parametrize("active", [None, SOME])
def test_gradients_equal_those_of_plain_torch_in_float64(active: Tensor | None) -> None:
    x = samples(length=50)
    x[1, 0, :3] = torch.tensor([1.0, -1.0, 5.0])  # the edge of the clip belongs to the inside, as torch.clamp has it
    wet = FACTORS.flip(0)
    pairs = [
        (
            lambda op: lambda x, f: (ops.scale if op else torch_scale)(x, f, False, active),
            [x, FACTORS],
        ),
        (lambda op: lambda x, f: (ops.scale if op else torch_scale)(x, f, True, active), [x, FACTORS]),
        (lambda op: lambda x, d, w: (ops.echo if op else torch_echo)(x, OFFSETS, d, w, active), [x, FACTORS, wet]),
        (lambda op: lambda x: (ops.crop if op else torch_crop)(x, OFFSETS, 60), [x]),
    ]
    for function, inputs in pairs:
        expected = gradients(function(False), [t.double() for t in inputs])
        for got, want in zip(gradients(function(True), inputs), expected, strict=True):
            torch.testing.assert_close(got, want.float(), rtol=1e-5, atol=1e-5)
    plain = x.clone().requires_grad_()
    ops.scale(plain, FACTORS, active=active).sum().backward()  # without a gradient for the factor, x is not kept
    assert plain.grad is not None and plain.grad[0, 0, 0] == FACTORS[0]


def test_opcheck() -> None:
    x = samples(length=17).requires_grad_()
    factor, other = FACTORS.clone().requires_grad_(), FACTORS.flip(0).requires_grad_()
    for clip in (False, True):
        torch.library.opcheck(torch.ops.fastaug.scale.default, (x, factor, clip, SOME))
    torch.library.opcheck(torch.ops.fastaug.echo.default, (x, OFFSETS, factor, other, SOME))
    torch.library.opcheck(torch.ops.fastaug.crop.default, (x, OFFSETS, 23))


# --- the CUDA kernels, on the CPU ---


@pytest.mark.parametrize("length", [1, 31, 4096, 5001])
def test_kernels_are_bit_equal_to_the_cpu(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = samples(length=length)
    far = torch.tensor([length, -(1 << 63), 1 << 62, 3])
    reports = emulate_launches(monkeypatch, count=True)
    for active in (None, SOME):
        for clip in (False, True):
            assert same_bits(ops._scale_cuda(x, FACTORS, clip, active), ops.scale(x, FACTORS, clip, active))
        for offset in (OFFSETS, far):
            got = ops._echo_cuda(x, offset, FACTORS.flip(0), FACTORS, active)
            assert same_bits(got, ops.echo(x, offset, FACTORS.flip(0), FACTORS, active))
    for starts in (OFFSETS, far):
        assert same_bits(ops._crop_cuda(x, starts, 4500), ops.crop(x, starts, 4500))
    assert len(reports) == 10
    if length > 4000:
        for report in reports:
            assert report.ratio <= 1.5, str(report)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("{flip, factor, active, clip != 0}", "{flip, factor, nullptr, clip != 0}"),
        ("FA_LD(wet + row)", "FA_LD(wet)"),
        ("t >= sound.begin && t < sound.end ? FA_LD(in", "t > sound.begin && t < sound.end ? FA_LD(in"),
        ("fa_overlap(begin, end, length, start)", "fa_overlap(begin, end, out_length, start)"),
    ],
)
def test_broken_kernels_are_caught(right: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`active` forgotten, another row's levels, the first echoed sample lost, a read beyond the end."""
    source = (csrc_dir() / "cuda" / "pointwise.cu").read_text().replace('"../', '"')
    assert right in source
    x = samples(length=5001)

    def agree(kernels: Emulated) -> bool:
        monkeypatch.setattr("fastaug.ops._cuda.launch", lambda file, *args: kernels.launch(*args, count=False))
        try:
            same = [
                same_bits(ops._scale_cuda(x, FACTORS, True, SOME), ops.scale(x, FACTORS, True, SOME)),
                same_bits(
                    ops._echo_cuda(x, OFFSETS, FACTORS, FACTORS, SOME), ops.echo(x, OFFSETS, FACTORS, FACTORS, SOME)
                ),
                same_bits(ops._crop_cuda(x, OFFSETS, 6000), ops.crop(x, OFFSETS, 6000)),
            ]
        except EmulationError:
            return False
        return all(same)

    assert agree(emulate("pointwise.cu"))
    assert not agree(emulate_source(source.replace(right, wrong)))


@pytest.mark.gpu
def test_cuda_equals_cpu() -> None:
    x = samples(length=59_049)
    there = [t.cuda() for t in (x, FACTORS, OFFSETS, SOME)]
    assert torch.equal(ops.scale(there[0], there[1], True, there[3]).cpu(), ops.scale(x, FACTORS, True, SOME))
    got = ops.echo(there[0], there[2], there[1], there[1], there[3]).cpu()
    assert torch.equal(got, ops.echo(x, OFFSETS, FACTORS, FACTORS, SOME))
    assert torch.equal(ops.crop(there[0], there[2], 40_000).cpu(), ops.crop(x, OFFSETS, 40_000))
