"""Encoders of waveform and spectrogram together, joined late, early or midway, and the small parts they are made of.

A fused encoder takes samples (B, C, T), makes the log-mel spectrogram itself, and gives (B, D), so that everything made
for encoders of waveforms (probe, nearest neighbours, embeddings) takes it. While training, the spectrogram comes from
the pipeline, augmented. ``formats`` gives what is contrasted, by name; ``forward`` puts it side by side.

Late fusion: "Multi-format Contrastive Learning for Music Genre Classification".
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from fastaug.frontends import LogMel
from fastaug.ssl.checkpoint import build_encoder
from fastaug.ssl.encoders import CHANNELS, STRIDES

__all__ = [
    "AUDIO",
    "FUSED",
    "SPECTROGRAM",
    "BranchCNN",
    "Description",
    "EarlyFusion",
    "ModelFusion",
    "SpectrogramCNN",
    "TwoFormats",
    "WaveformFrames",
]

AUDIO, SPECTROGRAM, FUSED = "audio", "spectrogram", "fused"
Description = dict[str, Any]  # of an encoder, as in a card: "encoder" and "encoder_kwargs"


def _waves(c_in: int, c_out: int, kernel: int, stride: int, padding: int, pool: int = 1) -> nn.Sequential:
    """Convolution over (1, T) images, batch norm, pooling, ReLU."""
    conv = nn.Conv2d(c_in, c_out, (1, kernel), (1, stride), (0, padding))
    pooling = [nn.MaxPool2d((1, pool))] if pool > 1 else []
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), *pooling, nn.ReLU())


class BranchCNN(nn.Module):
    """The audio branch of late fusion: nine convolution blocks, batch norm, max-pool over time: (B, C, T) -> (B, D).

    D = 512 · width. One frame is 19,683 samples at 22,050 Hz (10,935 at 16,000, 10,368 at 8,000): SampleCNN without its
    last pooling and convolution, which of 5 s would use little more than the first half. Channels beyond "512 in the
    end" are those of SampleCNN.

    Args:
        sample_rate: chooses the strides; 22,050, 16,000 or 8,000 Hz.
        width: multiplies every channel count.
        channels: audio channels C.

    Raises:
        ValueError: no strides for this rate.
    """

    def __init__(self, sample_rate: int = 22_050, width: float = 1.0, channels: int = 1) -> None:
        super().__init__()
        if sample_rate not in STRIDES:
            raise ValueError(f"BranchCNN: no strides for sample_rate={sample_rate}; known are {sorted(STRIDES)} Hz")
        widths = [max(1, round(c * width)) for c in (*CHANNELS[:8], CHANNELS[-1])]
        blocks = [_waves(channels, widths[0], kernel=3, stride=3, padding=0)]
        for stride, c_in, c_out in zip(STRIDES[sample_rate][:8], widths, widths[1:]):
            blocks.append(_waves(c_in, c_out, kernel=stride, stride=1, padding=1, pool=stride))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm1d(widths[-1])
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, samples: Tensor) -> Tensor:
        return self.norm(self.blocks(samples.unsqueeze(2)).squeeze(2)).amax(2)


class SpectrogramCNN(nn.Module):
    """Four blocks of 3 x 3 convolution, batch norm, ReLU and 2 x 2 max-pool, then the mean: (B, C, F, N) -> (B, D).

    D = 512 · width. Small enough for a CPU at width 0.25.
    """

    def __init__(self, channels: int = 1, width: float = 1.0) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_pictures(a, b) for a, b in pairwise([channels, *_widths(width)])))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, spectra: Tensor) -> Tensor:
        return self.blocks(spectra).mean((2, 3))


def _widths(width: float) -> list[int]:
    return [max(1, round(c * width)) for c in (64, 128, 256, 512)]


def _pictures(c_in: int, c_out: int) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, 3, 1, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.MaxPool2d(2, ceil_mode=True), nn.ReLU())


class WaveformFrames(nn.Module):
    """A learned front end with the frames of a centred spectrogram: (B, 1, T) -> (B, 1, F, 1 + T // hop_length).

    Strided convolutions whose strides multiply to the hop, zeros half a hop to either side: frame n is about sample
    n · hop_length, as in ``LogMel``.

    Args:
        hop_length: samples between frames.
        bands: F.
        channels: of the hidden layers.
    """

    def __init__(self, hop_length: int, bands: int, channels: int = 64) -> None:
        super().__init__()
        self.hop_length = hop_length
        layers: list[nn.Module] = []
        c_in = 1
        for stride in _strides(hop_length):
            layers.append(_waves(c_in, channels, kernel=stride + 2 * (stride // 2), stride=stride, padding=stride // 2))
            c_in = channels
        layers += [nn.Conv2d(c_in, bands, 1, bias=False), nn.BatchNorm2d(bands)]  # like a normalised picture's bands
        self.layers = nn.Sequential(*layers)

    def forward(self, samples: Tensor) -> Tensor:
        hop = self.hop_length
        padded = nnf.pad(samples, (hop // 2, hop - hop // 2))
        return self.layers(padded.unsqueeze(2)).transpose(1, 2)  # (B, F, 1, N) -> (B, 1, F, N)


def _strides(hop_length: int) -> list[int]:
    """Factors of a hop, primes joined while they stay at 8 or less: 512 -> 8, 8, 8; 441 -> 3, 3, 7, 7."""
    factors, rest, prime = [1], hop_length, 2
    while rest > 1:
        while rest % prime:
            prime += 1
        rest //= prime
        if factors[-1] * prime <= 8:
            factors[-1] *= prime
        else:
            factors.append(prime)
    return factors


class TwoFormats(nn.Module):
    """Late fusion: two encoders, their representations side by side. Either may be left out.

    Args:
        audio, spectrogram: descriptions of the two encoders, as in a card; None for one format alone.
        logmel: arguments of the ``LogMel`` that the spectrogram encoder needs.
    """

    def __init__(
        self, audio: Description | None, spectrogram: Description | None, logmel: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        if audio is None and spectrogram is None:
            raise ValueError("TwoFormats: needs an audio encoder, a spectrogram encoder, or both")
        self.audio = build_encoder(audio) if audio else None
        self.spectrogram = build_encoder(spectrogram) if spectrogram else None
        if self.spectrogram is not None:
            self.spectrogram.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.logmel = LogMel(**(logmel or {}))

    def formats(self, samples: Tensor, spectra: Tensor | None = None) -> dict[str, Tensor]:
        """h of each format: "audio" of ``samples``, "spectrogram" of ``spectra``, by default those of the samples."""
        found = {}
        if self.audio is not None:
            found[AUDIO] = self.audio(samples)
        if self.spectrogram is not None:
            found[SPECTROGRAM] = self.spectrogram(self.logmel(samples) if spectra is None else spectra)
        return found

    def forward(self, samples: Tensor, spectra: Tensor | None = None) -> Tensor:
        return torch.cat(list(self.formats(samples, spectra).values()), dim=1)


class EarlyFusion(nn.Module):
    """One encoder on two channels: a learned front end of the waveform, and the log-mel, at one frame rate.

    Args:
        encoder: description of an encoder of (B, 2, F, N).
        logmel: arguments of ``LogMel``; its hop and bands are those of the learned front end.
    """

    def __init__(self, encoder: Description, logmel: dict[str, Any]) -> None:
        super().__init__()
        self.logmel = LogMel(**logmel)
        self.frames = WaveformFrames(self.logmel.hop_length, self.logmel.n_mels)
        self.encoder = build_encoder(encoder)

    def formats(self, samples: Tensor, spectra: Tensor | None = None) -> dict[str, Tensor]:
        """{"fused": h} of samples and spectrograms of the same crops."""
        return {FUSED: self(samples, spectra)}

    def forward(self, samples: Tensor, spectra: Tensor | None = None) -> Tensor:
        spectra = self.logmel(samples) if spectra is None else spectra
        return self.encoder(torch.cat([self.frames(samples), spectra], dim=1))


class ModelFusion(nn.Module):
    """Two stems, then one trunk for both, trained as one: (B, 1, T) -> (B, 512 · width).

    Each stem is a block of ``SpectrogramCNN``, the waveform's behind a learned front end with the log-mel's frames;
    the trunk is the other three, on the channels of both.

    Args:
        logmel: arguments of ``LogMel``.
        width: multiplies every channel count.
    """

    def __init__(self, logmel: dict[str, Any], width: float = 1.0) -> None:
        super().__init__()
        self.logmel = LogMel(**logmel)
        widths = _widths(width)
        self.frames = WaveformFrames(self.logmel.hop_length, self.logmel.n_mels)
        self.audio_stem, self.spectrogram_stem = _pictures(1, widths[0]), _pictures(1, widths[0])
        self.trunk = nn.Sequential(*(_pictures(a, b) for a, b in pairwise([2 * widths[0], *widths[1:]])))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def formats(self, samples: Tensor, spectra: Tensor | None = None) -> dict[str, Tensor]:
        """{"fused": h} of samples and spectrograms of the same crops."""
        return {FUSED: self(samples, spectra)}

    def forward(self, samples: Tensor, spectra: Tensor | None = None) -> Tensor:
        spectra = self.logmel(samples) if spectra is None else spectra
        both = torch.cat([self.audio_stem(self.frames(samples)), self.spectrogram_stem(spectra)], dim=1)
        return self.trunk(both).mean((2, 3))
