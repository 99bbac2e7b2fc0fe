"""Encoders for raw audio, and the projection head that contrastive losses are applied to.

``SampleCNN``: Lee et al., "Sample-level Deep Convolutional Neural Networks for Music Auto-tagging" (2017), in the
variant that CLMR (Spijkervet and Burgoyne, 2021) trains.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastaug.ssl.spectrogram_encoders import BandCNN, EfficientNetB0, ResNet18, ResNet50

__all__ = [
    "CROP_SAMPLES",
    "STRIDES",
    "BandCNN",
    "Contrastive",
    "EfficientNetB0",
    "Projector",
    "ResNet18",
    "ResNet50",
    "SampleCNN",
    "out_dim",
]

# Strides after the stem that bring the crop of each rate down to one frame.
STRIDES: dict[int, tuple[int, ...]] = {
    22_050: (3, 3, 3, 3, 3, 3, 3, 3, 3),
    16_000: (3, 3, 3, 3, 3, 3, 5, 2, 2),
    8_000: (3, 3, 3, 2, 2, 4, 4, 2, 2),
}
CROP_SAMPLES: dict[int, int] = {22_050: 59_049, 16_000: 43_740, 8_000: 20_736}
CHANNELS = (128, 128, 256, 256, 256, 256, 256, 256, 512)


class SampleCNN(nn.Module):
    """Eleven convolutions straight on the waveform: (B, C, T) -> (B, D), D = 512 * width.

    2,368,512 parameters at width 1 with one channel. A crop of ``CROP_SAMPLES[sample_rate]`` (2.6 to 2.7 s) ends as one
    frame; longer inputs end as several, which are averaged.

    Args:
        sample_rate: chooses the strides; 22,050, 16,000 or 8,000 Hz.
        width: multiplies every channel count.
        channels: audio channels C.
        kaiming: Kaiming-uniform convolution weights (the thesis); False keeps PyTorch's default (the released code).
        strides: pooling of the nine blocks, for any other rate.
    """

    def __init__(
        self,
        sample_rate: int = 22_050,
        width: float = 1.0,
        channels: int = 1,
        kaiming: bool = False,
        strides: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if strides is None and sample_rate not in STRIDES:
            known = ", ".join(map(str, sorted(STRIDES)))
            raise ValueError(
                f"SampleCNN: no strides for sample_rate={sample_rate}; known are {known} Hz, or pass strides="
            )
        strides = tuple(strides or STRIDES[sample_rate])
        if len(strides) != len(CHANNELS):
            raise ValueError(f"SampleCNN: strides must have {len(CHANNELS)} entries, got {len(strides)}")
        if not width > 0:
            raise ValueError(f"SampleCNN: width must be > 0, got {width}")
        self.strides = strides
        widths = [max(1, round(c * width)) for c in CHANNELS]
        self.out_dim = widths[-1]
        blocks = [_block(channels, widths[0], kernel=3, stride=3, padding=0)]
        for stride, c_in, c_out in zip(strides, [widths[0], *widths[:-1]], widths):
            blocks.append(_block(c_in, c_out, kernel=stride, pool=stride))
        blocks.append(_block(widths[-1], widths[-1], kernel=3))
        self.sequential = nn.Sequential(*blocks)
        if kaiming:
            self.apply(_kaiming)
        # Weights in channels-last order make the whole stack run in it: half the time of 1-D layers on CPUs.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, samples: Tensor) -> Tensor:
        return self.sequential(samples.unsqueeze(2)).mean(dim=(2, 3))  # convolutions over (1, T) images


def _block(c_in: int, c_out: int, kernel: int, stride: int = 1, padding: int = 1, pool: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, (1, kernel), (1, stride), (0, padding))
    pooling = [nn.MaxPool2d((1, pool))] if pool > 1 else []  # before the ReLU: the same result at a third of the work
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), *pooling, nn.ReLU())


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")


class Projector(nn.Module):
    """The head between the representation h (kept) and z (contrasted, thrown away): (B, in_dim) -> (B, out_dim).

    kind "identity": z = h; "linear": one matrix; "mlp": in_dim -> in_dim, ReLU, -> out_dim. No biases, as in CLMR.
    """

    def __init__(self, in_dim: int, out_dim: int = 64, kind: str = "mlp") -> None:
        super().__init__()
        if kind == "identity":
            self.layers: nn.Module = nn.Identity()
            out_dim = in_dim
        elif kind == "linear":
            self.layers = nn.Linear(in_dim, out_dim, bias=False)
        elif kind == "mlp":
            first, last = nn.Linear(in_dim, in_dim, bias=False), nn.Linear(in_dim, out_dim, bias=False)
            self.layers = nn.Sequential(first, nn.ReLU(), last)
        else:
            raise ValueError(f'Projector: kind must be "identity", "linear" or "mlp", got {kind!r}')
        self.out_dim = out_dim

    def forward(self, h: Tensor) -> Tensor:
        return self.layers(h)


class Contrastive(nn.Module):
    """Encoder and projector as one module, so that DistributedDataParallel sees a single forward: x -> (h, z)."""

    def __init__(self, encoder: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return h, self.projector(h)


@torch.no_grad()
def out_dim(encoder: nn.Module, example: Tensor) -> int:
    """D of an encoder's (B, D) output, found by running ``example`` once in eval mode; its state is left as it was."""
    was_training = encoder.training
    encoder.eval()
    try:
        h = encoder(example)
    except Exception as error:
        raise ValueError(f"the encoder cannot take input of shape {tuple(example.shape)}: {error}") from error
    finally:
        encoder.train(was_training)
    if not isinstance(h, Tensor) or h.ndim != 2 or len(h) != len(example):
        got = tuple(h.shape) if isinstance(h, Tensor) else type(h).__name__
        raise ValueError(f"the encoder must map {tuple(example.shape)} to ({len(example)}, D), got {got}")
    return h.shape[1]
