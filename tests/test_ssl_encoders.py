"""SampleCNN's published size and receptive crop, the projector, and the dry run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastaug.ssl.encoders import CROP_SAMPLES, Contrastive, Projector, SampleCNN, out_dim


def test_published_parameter_count() -> None:
    assert sum(p.numel() for p in SampleCNN(22_050).parameters()) == 2_368_512


@pytest.mark.parametrize("rate", sorted(CROP_SAMPLES))
def test_a_crop_ends_as_one_frame(rate: int) -> None:
    encoder = SampleCNN(rate, width=0.125).eval()
    samples = torch.randn(2, 1, CROP_SAMPLES[rate])
    assert encoder.sequential(samples.unsqueeze(2)).shape == (2, 64, 1, 1)
    assert encoder(samples).shape == (2, encoder.out_dim) == (2, 64)


def test_longer_input_is_averaged_and_stereo_works() -> None:
    encoder = SampleCNN(8_000, width=0.125, channels=2).eval()
    assert encoder(torch.randn(1, 2, 3 * CROP_SAMPLES[8_000])).shape == (1, 64)


def test_pooling_before_the_relu_changes_nothing() -> None:
    block = SampleCNN(8_000, width=0.125).eval().sequential[1]
    conv, norm, pool, relu = block
    x = torch.randn(2, 16, 1, 90)
    assert torch.equal(block(x), pool(relu(norm(conv(x)))))


def test_kaiming_changes_the_convolutions_only() -> None:
    torch.manual_seed(0)
    plain = SampleCNN(8_000, width=0.125)
    torch.manual_seed(0)
    kaiming = SampleCNN(8_000, width=0.125, kaiming=True)
    bound = (6 / 48) ** 0.5  # sqrt(6 / fan_in), fan_in = 16 channels * kernel 3
    weights = kaiming.sequential[1][0].weight
    assert 0.95 * bound < weights.abs().max() <= bound
    assert plain.sequential[1][0].weight.abs().max() < 0.6 * bound


def test_unknown_rate_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="8000, 16000, 22050"):
        SampleCNN(44_100)
    assert SampleCNN(44_100, width=0.125, strides=(3,) * 9)(torch.randn(2, 1, 59_049)).shape == (2, 64)


@pytest.mark.parametrize(("kind", "dim", "weights"), [("identity", 12, 0), ("linear", 5, 60), ("mlp", 5, 144 + 60)])
def test_projector(kind: str, dim: int, weights: int) -> None:
    projector = Projector(12, 5, kind)
    assert projector(torch.randn(3, 12)).shape == (3, dim) == (3, projector.out_dim)
    assert sum(p.numel() for p in projector.parameters()) == weights
    with pytest.raises(ValueError, match="kind must be"):
        Projector(12, 5, "deep")


def test_contrastive_gives_representation_and_projection() -> None:
    h, z = Contrastive(nn.Flatten(), Projector(6, 2))(torch.randn(4, 1, 6))
    assert h.shape == (4, 6) and z.shape == (4, 2)


def test_dry_run_finds_the_dimension_and_leaves_no_trace() -> None:
    encoder = nn.Sequential(nn.BatchNorm1d(1), nn.Flatten(), nn.Linear(30, 7))
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    assert out_dim(encoder, torch.randn(2, 1, 30)) == 7
    assert encoder.training
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


@pytest.mark.parametrize("encoder", [nn.Identity(), nn.Linear(31, 7)])
def test_dry_run_explains_what_does_not_fit(encoder: nn.Module) -> None:
    with pytest.raises(ValueError, match="the encoder"):
        out_dim(encoder, torch.randn(2, 1, 30))
