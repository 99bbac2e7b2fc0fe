"""ResNet and EfficientNet: parameter names, sizes and outputs of timm 1.0.31."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fastaug.ssl.spectrogram_encoders import BandCNN, EfficientNetB0, ResNet18, ResNet50, load_weights

CLASSES = {"resnet18": ResNet18, "resnet50": ResNet50, "efficientnet_b0": EfficientNetB0}
#: What timm.create_model(name, in_chans=1, num_classes=0) gives for the same weights and input: five values of the
#: second row, and the root mean square of all.
GOLDEN = {
    "resnet18": ([673443.8125, 906242.8125, 1434928.0, 148823.57812, 1659072.625], 1155025.0216306422),
    "resnet50": ([1087.53894, 356.85336, 0.0, 0.0, 0.0], 1565.1035039289407),
    "efficientnet_b0": ([-0.25423, 0.00032, 1.10913, -0.25802, 0.67216], 0.9472315637174695),
}
PARAMETERS = {"resnet18": 11_170_240, "resnet50": 23_501_760, "efficientnet_b0": 4_006_972}


def filled(model: nn.Module) -> nn.Module:
    """The model with weights that a formula gives."""
    state = model.state_dict()
    for number, (name, value) in enumerate(sorted(state.items())):
        if not value.is_floating_point():
            continue
        wave = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * 0.7 + number).reshape(value.shape)
        if name.endswith("running_var"):
            value.copy_(1 + 0.2 * wave)
        elif value.dim() == 4:
            value.copy_(wave * (2.0 / value[0].numel()) ** 0.5)
        elif name.endswith("weight"):
            value.copy_(1 + 0.2 * wave)
        else:
            value.copy_(0.1 * wave)
    return model.eval()


def spectra() -> torch.Tensor:
    return torch.sin(torch.arange(2 * 64 * 96, dtype=torch.float64) * 0.013).float().reshape(2, 1, 64, 96)


@pytest.mark.parametrize("name", CLASSES)
@torch.no_grad()
def test_outputs_are_those_of_timm(name: str) -> None:
    model = filled(CLASSES[name]())
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    out = model(spectra())
    values, rms = GOLDEN[name]
    assert out.shape == (2, model.out_dim)
    assert float(out.double().square().mean().sqrt()) == pytest.approx(rms, rel=1e-4)
    assert out[1, :5].tolist() == pytest.approx(values, rel=1e-3, abs=1e-3 * rms)


@pytest.mark.parametrize("name", CLASSES)
def test_names_are_those_of_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    assert set(timm.create_model(name, in_chans=1, num_classes=0).state_dict()) == set(CLASSES[name]().state_dict())


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_of_three_channels_and_with_a_classifier(name: str, suffix: str, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    colour = filled(CLASSES[name](channels=3))
    state = {**colour.state_dict(), "fc.weight": torch.ones(10, 4), "classifier.bias": torch.ones(10)}
    path = tmp_path / f"weights.{suffix}"
    safetensors.save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    grey = CLASSES[name]()
    load_weights(grey, path)
    x = spectra()
    with torch.no_grad():
        expected = colour(x.expand(-1, 3, -1, -1))
        assert (grey.eval()(x) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no weights"):
        load_weights(ResNet18(), tmp_path / "none.pth")
    torch.save(ResNet50().state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not fit ResNet18"):
        load_weights(ResNet18(), tmp_path / "other.pth")


def test_pooling_of_cola() -> None:
    with pytest.raises(ValueError, match="pool"):
        EfficientNetB0(pool="sum")
    mean, most = filled(EfficientNetB0()), filled(EfficientNetB0(pool="max"))
    with torch.no_grad():
        assert (most(spectra()) >= mean(spectra())).all()


@pytest.mark.parametrize("name", CLASSES)
def test_a_step_of_training_changes_every_weight(name: str) -> None:
    model = CLASSES[name]().train()
    before = {k: v.clone() for k, v in model.named_parameters()}
    model(torch.randn(4, 1, 64, 64)).square().sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert all(not torch.equal(before[k], v) for k, v in model.named_parameters())


@pytest.mark.parametrize("n_mels", [16, 40, 64])
def test_the_small_encoder_keeps_bands_apart(n_mels: int) -> None:
    encoder = BandCNN(n_mels=n_mels).eval()
    x = torch.zeros(2, 1, n_mels, 50)
    x[1, :, -8:] = 3.0  # only the highest bands differ
    h = encoder(x)
    assert h.shape == (2, encoder.out_dim)
    changed = (h[0] != h[1]).view(64, -1).any(0)
    assert changed[-1] and (n_mels < 64 or not changed[0])
