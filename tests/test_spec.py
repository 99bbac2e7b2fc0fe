"""Masks and warps of spectrograms: against their definitions, torch and the CUDA kernels emulated; statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from emulation import emulate, emulate_source
from fastaug import functional as F
from fastaug._paths import csrc_dir
from fastaug.ops import spec
from fastaug.random import Keys
from fastaug.transforms import (
    Compose,
    FrequencyMask,
    RandomLinearFader,
    RandomResizeCrop,
    SpecAugment,
    SpecMixup,
    SpecNoise,
    TimeMask,
    TimeWarp,
)
from oracles import emulate_launches

ACTIVE = torch.tensor([True, True, False, True])


def spectra(rows: int = 4, channels: int = 2, bins: int = 40, frames: int = 37) -> Tensor:
    return torch.randn(rows, channels, bins, frames, generator=torch.Generator().manual_seed(bins + frames)) - 3


def bounds(bins: int = 40, frames: int = 37) -> list[Tensor]:
    """Two masks an axis: inside, at the edges, empty, overlapping, and beyond either end."""
    freq = [[3, 10], [0, bins - 1], [5, 5], [-4, bins - 2]], [[4, 0], [1, 1], [3, 6], [6, 9]]
    time = [[0, 30], [frames, 2], [1, 1], [-(1 << 62), -3]], [[5, 1 << 62], [4, 0], [1, 1], [1 << 62, 7]]
    return [torch.tensor(part) for part in (*freq, *time)]


def masked(x: Tensor, freq_start: Tensor, freq_size: Tensor, time_start: Tensor, time_size: Tensor) -> Tensor:
    """The definition, cell by cell: which are covered, bool (B, F, N)."""
    covered = torch.zeros(len(x), *x.shape[2:], dtype=torch.bool)
    for b in range(len(x)):
        for start, size in zip(freq_start[b].tolist(), freq_size[b].tolist(), strict=True):
            covered[b, max(start, 0) : max(start + size, 0)] = True
        for start, size in zip(time_start[b].tolist(), time_size[b].tolist(), strict=True):
            covered[b, :, max(start, 0) : max(start + size, 0)] = True
    return covered


@pytest.mark.parametrize("frames", [37, 116])
@pytest.mark.parametrize("fill", [0.0, -2.5, "mean"])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("lengths", [None, torch.tensor([37, 20, 5, 0])])
def test_masks_are_their_definition(frames: int, fill: float | str, inplace: bool, lengths: Tensor | None) -> None:
    x = spectra(frames=frames)
    kept = x.clone()
    got = F.mask_spectrogram(x, *bounds(frames=frames), fill, lengths=lengths, active=ACTIVE, inplace=inplace)
    covered = masked(x, *bounds(frames=frames)) & ACTIVE[:, None, None]
    value = torch.full((4,), 0.0 if fill == "mean" else float(fill), dtype=torch.float64)
    if fill == "mean":
        sound = [frames] * 4 if lengths is None else lengths.tolist()
        value = torch.stack([row[..., :n].double().mean() if n else torch.tensor(0.0) for row, n in zip(kept, sound)])
    expected = torch.where(covered[:, None], value.float()[:, None, None, None], kept)
    assert (got - expected).abs().max() < (1e-6 if fill == "mean" else 1e-30)
    assert (got.data_ptr() == x.data_ptr()) == inplace


def test_gradients_of_masks_and_warps() -> None:
    x = spectra(2, 1, 5, 7).double().float().requires_grad_()
    starts = [b[:2].clamp(0, 4) for b in bounds(5, 7)]
    for fill in (1.0, "mean"):
        for lengths in (None, torch.tensor([7, 4])):
            out = F.mask_spectrogram(x, *starts, fill, lengths=lengths)
            weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
            (gradient,) = torch.autograd.grad((out * weight).sum(), x)
            covered = masked(x, *starts)[:, None]
            n = torch.tensor([7.0, 7.0]) if lengths is None else lengths.float()
            inside = (torch.arange(7) < n[:, None])[:, None, None]
            share = ((weight * covered).sum((1, 2, 3)) / (5 * n))[:, None, None, None] * inside
            expected = weight * ~covered + (share if fill == "mean" else 0.0)
            assert (gradient - expected).abs().max() < 1e-5
    at = torch.tensor([[-1.0, 0.4, 3.0, 3.3, 6.0, 6.2, 9.0]] * 2)
    for cubic in (False, True):
        args = (at, at[:, 1:6], torch.tensor([[-2, 6]] * 2), None, cubic, torch.tensor([True, False]))
        out = spec.warp(x, *args)
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        (gradient,) = torch.autograd.grad((out * weight).sum(), x)
        # linear in x: the gradient is the adjoint, <w, A x> = <A^T w, x> for any x
        other = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
        assert float((gradient * other).sum()) == pytest.approx(
            float((spec.warp(other, *args) * weight).sum()), abs=1e-4
        )


@pytest.mark.parametrize("bins", [1, 2, 40, 64])
@pytest.mark.parametrize("frames", [1, 2, 37, 96])
def test_windows_inside_are_interpolate_of_torch(bins: int, frames: int) -> None:
    x = spectra(3, 2, bins, frames)
    rng = np.random.default_rng(bins * frames)
    for b in range(3):
        h, w = int(rng.integers(1, bins + 1)), int(rng.integers(1, frames + 1))
        i, j = int(rng.integers(0, bins - h + 1)), int(rng.integers(0, frames - w + 1))
        window = x[b : b + 1, :, i : i + h, j : j + w]
        expected = torch.nn.functional.interpolate(window.double(), (bins, frames), mode="bicubic", align_corners=True)
        got = F.resized_crop(x[b : b + 1], i, h, j, w)
        assert (got - expected).abs().max() < 3e-5  # positions are float32


def byol_a(x: Tensor, i: int, j: int, h: int, w: int) -> Tensor:
    """RandomResizeCrop of BYOL-A, as its paper and code say: zeros around, a window, bicubic."""
    bins, frames = x.shape[-2:]
    canvas = x.new_zeros(*x.shape[:-2], bins, int(frames * 1.5))
    left = (canvas.shape[-1] - frames) // 2
    canvas[..., left : left + frames] = x
    window = canvas[..., i : i + h, j : j + w]
    return torch.nn.functional.interpolate(window.double(), (bins, frames), mode="bicubic", align_corners=True)


def test_random_resize_crop_is_that_of_byol_a() -> None:
    x, crop = spectra(64, 1, 40, 37), RandomResizeCrop()
    params = crop.draw(Keys.of(5, range(64)))
    out = crop.apply(x, params)
    seen = set()
    for b in range(64):
        h = min(max(int(params["freq_scale"][b] * 40), 1), 40)
        w = min(max(int(params["time_scale"][b] * 37), 1), 55)
        i = int(params["words"][b, 0]) * (40 - h + 1) >> 32
        j = int(params["words"][b, 1]) * (55 - w + 1) >> 32
        seen.add((h < 40, w > 37, j < 9, j + w > 46))
        assert (out[b : b + 1] - byol_a(x[b : b + 1], i, j, h, w)).abs().max() < 5e-5
    assert len(seen) >= 5  # windows within and beyond the spectrogram, on either side


def test_time_warp_moves_the_point_and_keeps_the_ends() -> None:
    ramp = torch.arange(50.0).expand(4, 1, 3, 50)
    out = F.time_warp(ramp, torch.tensor([20.0, 20.0, 7.0, 40.0]), torch.tensor([5.0, -5.0, 0.0, 8.0]))
    for b, (old, new) in enumerate(((20, 25), (20, 15), (7, 7), (40, 48))):
        expected = np.interp(np.arange(50), [0, new, 49], [0, old, 49])
        assert np.abs(out[b, 0].numpy() - expected).max() < 1e-5
    assert torch.equal(out[2], ramp[2])
    short = F.time_warp(ramp, 10.0, 4.0, lengths=torch.tensor([50, 30, 30, 20]))
    assert torch.equal(short[1, 0, :, 30:], ramp[1, 0, :, 30:]) and torch.equal(short[0], short[0])
    assert np.abs(short[1, 0, 0, :30].numpy() - np.interp(np.arange(30), [0, 14, 29], [0, 10, 29])).max() < 1e-5


@pytest.mark.parametrize(("frames", "width"), [(100, 7), (100, 0.05), (11, 40), (2, 5), (1, 5)])
def test_warps_stay_inside(frames: int, width: int | float) -> None:
    x = torch.arange(float(frames)).expand(200, 1, 2, frames)
    out = TimeWarp(width=width, seed=1)(x, keys=[str(i) for i in range(200)])
    assert out.min() >= 0 and out.max() <= frames - 1
    assert (out[..., 0] == 0).all() and ((out[..., -1] - (frames - 1)).abs() < 1e-4).all()
    assert (out.diff(dim=-1) >= -1e-5).all()
    if frames > 20:
        moved = (out - x).abs().amax((1, 2, 3))
        most = width if isinstance(width, int) else round(width * frames)
        assert moved.max() <= most + 1e-4 and moved.max() > 0.8 * most and moved.min() < 0.2 * most


# Statistics.


def runs(covered: Tensor) -> list[int]:
    """Widths of the runs of True in each row of (B, n)."""
    return [sum(1 for on in row.tolist() if on) for row in covered]


@pytest.mark.parametrize(("width", "most"), [(9, 9), (0.25, 10), (0, 0), (1.0, 40), (99, 40)])
def test_widths_and_places_are_uniform(width: int | float, most: int) -> None:
    keys = [str(i) for i in range(4000)]
    x = torch.ones(4000, 1, 40, 3)
    covered = FrequencyMask(width=width, fill=0.0, seed=1)(x, keys=keys)[:, 0, :, 0] == 0
    widths = np.array(runs(covered))
    counts = np.bincount(widths, minlength=most + 1)
    assert len(counts) == most + 1
    expected = 4000 / (most + 1)
    assert (np.abs(counts - expected) < 5 * math.sqrt(expected) + 1).all()
    if most == 9:
        firsts = np.array([int(row.nonzero()[0]) for row in covered[torch.from_numpy(widths == 5)]])
        places = np.bincount(firsts, minlength=36)
        assert len(places) == 36 and places.max() < len(firsts) / 36 + 5 * math.sqrt(len(firsts) / 36)


def test_counts_are_drawn_per_example() -> None:
    drawn = SpecAugment(freq_masks=[0, 3], time_masks=range(1, 4)).draw(Keys.of(0, range(3000)))
    assert drawn["freq_words"].shape == (3000, 3, 2) and drawn["time_words"].shape == (3000, 3, 2)
    assert np.bincount(drawn["freq_count"].numpy(), minlength=4)[[1, 2]].sum() == 0
    assert all(900 < n < 1100 for n in np.bincount(drawn["time_count"].numpy())[1:])
    x = torch.ones(3000, 1, 40, 30)
    out = FrequencyMask(masks=[0, 2], width=5, fill=0.0, seed=1)(x, keys=[str(i) for i in range(3000)])
    touched = (out == 0).flatten(1).any(1).float().mean()
    assert abs(touched - 0.5 * (1 - 1 / 36)) < 0.03


def test_masks_in_hertz_and_seconds() -> None:
    centers = [60 * 1.1**k for k in range(50)]
    keys = [str(i) for i in range(2000)]
    x = torch.ones(2000, 1, 50, 100)
    out = FrequencyMask(width_hz=800.0, bin_hz=centers, fill=0.0, seed=1)(x, keys=keys)
    for row in out[:300, 0, :, 0] == 0:
        found = np.array(centers)[row.numpy()]
        assert len(found) == 0 or found[-1] - found[0] <= 800.0
    cover = (out[:, 0, :, 0] == 0).float().mean(0)  # an interval of hertz covers single high bins, many low ones
    assert cover[1:].min() > 0 and cover[45] > 0.03
    mask = TimeMask(width_seconds=0.5, hop_length=512, fill=0.0, sample_rate=22_050, seed=1)
    widths = runs(mask(x, keys=keys)[:, 0, 0] == 0)
    assert max(widths) == math.floor(0.5 * 22_050 / 512 + 0.5) == 22
    with pytest.raises(ValueError, match="sample rate"):
        TimeMask(width_seconds=0.5, hop_length=512)(x)


def test_the_fader_is_a_line_between_two_draws() -> None:
    fader = RandomLinearFader(gain=2.0)
    params = fader.draw(Keys.of(1, range(2000)))
    assert params["head"].min() > -2 and params["head"].max() < 2 and abs(params["tail"].mean()) < 0.1
    x = spectra(2000, 1, 4, 9)
    line = (fader.apply(x, params) - x)[:, 0, 2]
    expected = torch.from_numpy(np.linspace(params["head"].numpy(), params["tail"].numpy(), 9)).T
    assert (line - expected).abs().max() < 1e-5


def test_mixup_is_log_mixup_exp_of_the_bank() -> None:
    mixup, x = SpecMixup(ratio=0.4, size=5), spectra(200, 1, 6, 8)
    params = mixup.draw(Keys.of(1, range(200)))
    untouched = mixup.apply(x, params)
    assert torch.equal(untouched, x) and untouched.data_ptr() != x.data_ptr()
    bank = spectra(8, 1, 6, 8) + 1
    mixup.remember(bank[:3])
    mixup.remember(bank[3:])  # rows 3 and 4, then 5, 6, 7 over 0, 1, 2
    held = torch.stack([bank[i] for i in (5, 6, 7, 3, 4)])
    chosen = (params["partner"] * 5) >> 32
    assert set(chosen.tolist()) == set(range(5)) and params["ratio"].max() < 0.4
    share = params["ratio"].double()[:, None, None, None]
    expected = torch.log((1 - share) * x.double().exp() + share * held[chosen].double().exp())
    assert (mixup.apply(x, params) - expected).abs().max() < 1e-5
    again = SpecMixup(ratio=0.4, size=5)
    again.load_state_dict(mixup.state_dict())
    assert torch.equal(again.apply(x, params), mixup.apply(x, params))
    with pytest.raises(ValueError, match="the bank holds"):
        mixup.remember(spectra(2, 1, 6, 9))
    bad = spectra(1, 1, 6, 8)
    bad[0, 0, 0, 0] = float("nan")
    mixup.remember(bad)
    assert torch.isfinite(mixup.apply(x, params)).all()


def test_spec_noise_has_the_level_that_was_drawn() -> None:
    x = spectra(50, 1, 64, 100)
    noise = SpecNoise(std_ratio=(0.1, 0.5))
    params = noise.draw(Keys.of(2, range(50)))
    ratio = (noise.apply(x, params) - x).std((1, 2, 3)) / x.std((1, 2, 3))
    assert (ratio / params["std_ratio"] - 1).abs().max() < 0.05


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FrequencyMask(masks=-1), "masks is a number"),
        (lambda: FrequencyMask(masks=[]), "masks is a number"),
        (lambda: TimeMask(width=1.5), "share in"),
        (lambda: TimeMask(fill="median"), "fill is a number"),
        (lambda: TimeMask(width_seconds=0.1), "together"),
        (lambda: TimeMask(width_seconds=-0.1, hop_length=3), "must not be negative"),
        (lambda: FrequencyMask(width_hz=100.0), "together"),
        (lambda: FrequencyMask(width_hz=100.0, bin_hz=[3.0, 2.0]), "ascend"),
        (lambda: TimeWarp(width=0.6), "share in"),
        (lambda: SpecAugment(time_warp=-1), "time_warp"),
        (lambda: RandomResizeCrop(freq_scale=(0.0, 1.0)), "freq_scale"),
        (lambda: RandomResizeCrop(canvas=(0.5, 1.0)), "canvas"),
        (lambda: RandomLinearFader(gain=-1.0), "gain"),
        (lambda: SpecMixup(ratio=1.5), "ratio"),
        (lambda: SpecMixup(size=0), "size"),
        (lambda: SpecNoise(std_ratio=-0.1), "std_ratio"),
    ],
)
def test_arguments_that_do_not_fit(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_hertz_of_another_number_of_bins() -> None:
    mask = FrequencyMask(width_hz=100.0, bin_hz=[100.0, 200.0, 300.0])
    with pytest.raises(ValueError, match="bin_hz has 3 centres for 40 bins"):
        mask(spectra())


def test_wrong_shapes_are_named() -> None:
    x = spectra()
    none = torch.empty(4, 0, dtype=torch.int64)
    with pytest.raises(TypeError, match="float32"):
        spec.mask(x.double(), none, none, none, none)
    with pytest.raises(ValueError, match=r"\(B, C, F, N\)"):
        spec.mask(x[0], none, none, none, none)
    with pytest.raises(ValueError, match=r"time_start and time_size must have shape \(4, masks\)"):
        spec.mask(x, none, none, none[:3], none[:3])
    with pytest.raises(ValueError, match="time_at must have shape"):
        spec.warp(x, torch.zeros(4, 36))
    with pytest.raises(ValueError, match="fill"):
        spec.mask(x, none, none, none, none, "median")


def test_ops_compile_and_pass_opcheck() -> None:
    x = spectra(2, 1, 6, 9).requires_grad_()
    starts = [b[:2] for b in bounds(6, 9)]
    torch.library.opcheck(torch.ops.fastaug.spec_mask, (x, *starts, 0.0, True, None, None))
    at = torch.rand(2, 9) * 8
    torch.library.opcheck(torch.ops.fastaug.spec_warp, (x, None, None, at, None, True, None))
    chain = Compose([SpecAugment(time_warp=2), RandomResizeCrop(), RandomLinearFader()])
    params = chain.draw(Keys.of(0, range(2)))
    compiled = torch.compile(lambda y: chain.apply(y, params), backend="eager", fullgraph=True)
    assert torch.equal(compiled(x.detach()), chain.apply(x.detach(), params))


# The kernels.


@pytest.mark.parametrize(("bins", "frames"), [(40, 37), (128, 116), (64, 1), (1, 64)])
def test_kernels_equal_the_cpu(bins: int, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = spectra(4, 1 if bins == 128 else 2, bins, frames)
    reports = emulate_launches(monkeypatch, count=True)
    lengths = torch.tensor([frames, frames // 2, 0, frames])
    for active in (None, ACTIVE):
        for fill, valid in ((0.5, None), ("mean", None), ("mean", lengths)):
            mean = fill == "mean"
            args = (*bounds(bins, frames), 0.0 if mean else 0.5, mean, valid, active)
            got, expected = spec._mask_cuda(x, *args), spec._mask_cpu(x, *args)
            assert (got - expected).abs().max() <= (1e-6 if mean else 0)
            own = x.clone()
            assert spec._mask_cuda(own, *args, inplace=True).data_ptr() == own.data_ptr() and torch.equal(own, got)
        time = torch.linspace(-3, frames + 2, frames).repeat(4, 1) + torch.arange(4)[:, None] / 7
        freq = torch.linspace(1, bins - 1, bins).repeat(4, 1)
        edges = torch.tensor([[0, frames - 1], [-2, frames + 1], [1, 1], [0, 3]])
        for cubic in (False, True):
            for args in ((None, None, time, edges, cubic, active), (freq, None, time, None, cubic, active)):
                assert torch.equal(spec._warp_cuda(x, *args), spec._warp_cpu(x, *args))
    if frames > 64:
        for report in reports:
            # A position that moves off the grid reads a frame's neighbours from the next sector as well.
            assert report.ratio <= (1.5 if "warp" not in str(report) else 2.0), str(report)


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("cuda", "i / frames % bins", "i / frames"),
        ("cuda", "fa_covers(time, row, i % frames)", "fa_covers(time, 0, i % frames)"),
        ("cuda", "const bool on = active == nullptr || FA_LD(active + row) != 0;", "const bool on = true;"),
        ("cuda", "if (sound == frames)", "if (true)"),
        ("cuda", "freq.index[j] * frames", "freq.index[0] * frames"),
    ],
)
def test_broken_kernels_are_caught(file: str, right: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel's bins forgotten, another row's masks, inactive rows, padding in the mean, one line for four."""
    import oracles

    source = (csrc_dir() / "cuda" / "spec.cu").read_text().replace('"../', '"')
    assert right in source
    x, lengths = spectra(), torch.tensor([37, 20, 5, 1])
    freq = torch.linspace(0.5, 38.2, 40).repeat(4, 1)

    def agree() -> bool:
        mask = (*bounds(), 0.0, True, lengths, ACTIVE)
        warp = (freq, None, freq[:, :37] * 0.9, None, True, ACTIVE)
        close = (spec._mask_cuda(x, *mask) - spec._mask_cpu(x, *mask)).abs().max() < 1e-6
        return bool(close) and torch.equal(spec._warp_cuda(x, *warp), spec._warp_cpu(x, *warp))

    emulate_launches(monkeypatch)
    assert agree()
    broken = emulate_source(source.replace(right, wrong))
    monkeypatch.setattr(oracles, "emulate", lambda name: broken if name == "spec.cu" else emulate(name))
    assert not agree()


@pytest.mark.gpu
def test_cuda_equals_cpu() -> None:
    x = spectra(4, 1, 128, 116)
    there = [b.cuda() for b in bounds(128, 116)]
    for fill in (0.0, "mean"):
        got = F.mask_spectrogram(x.cuda(), *there, fill, active=ACTIVE.cuda()).cpu()
        assert (got - F.mask_spectrogram(x, *bounds(128, 116), fill, active=ACTIVE)).abs().max() < 1e-6
    crop = RandomResizeCrop()
    params = crop.draw(Keys.of(5, range(4)))
    assert (crop.apply(x.cuda(), params).cpu() - crop.apply(x, params)).abs().max() < 1e-4
