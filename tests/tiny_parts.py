"""A user's own file, named to recipes as `FILE:NAME`: tiny encoders, transforms and a front end."""

from __future__ import annotations

from torch import nn

import fastaug


def heard() -> nn.Module:
    """Of samples; a receptive field of 65 of them, averaged over time."""
    return nn.Sequential(
        nn.Conv1d(1, 16, 33, 4), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 32, 9, 4), nn.BatchNorm1d(32), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(),
    )  # fmt: skip


def seen(channels: int = 1, bands: int = 2) -> nn.Module:
    """Of spectrograms; averaged over time and each half of the bands."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, (3, 9), 2), nn.BatchNorm2d(32),
        nn.ReLU(), nn.AdaptiveAvgPool2d((bands, 1)), nn.Flatten(),
    )  # fmt: skip


def averaged(channels: int) -> nn.Module:
    """Of spectrograms; averaged over time and bands."""
    return seen(channels, 1)


def tiny(n_mels: int = 0) -> nn.Module:
    """Of what the recipe has."""
    return seen() if n_mels else heard()


def banded(n_mels: int = 16) -> nn.Module:
    """Of spectrograms; keeps a quarter of the bands apart."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d((n_mels // 4, 1)), nn.Flatten(),
    )  # fmt: skip


def small() -> nn.Module:
    """Of samples."""
    return nn.Sequential(
        nn.Conv1d(1, 8, 16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 16, 8, 4), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(),
    )  # fmt: skip


def dropping() -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 16, 16, 8), nn.Dropout(0.3), nn.AdaptiveAvgPool1d(1), nn.Flatten())


def forgetful() -> nn.Module:
    """Dropout and batch norm."""
    return nn.Sequential(
        nn.Conv1d(1, 8, 16, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Conv1d(8, 16, 8, 4), nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
    )  # fmt: skip


def normless() -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 16, 16, 8), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())


def spectral() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def small_logmel() -> nn.Module:
    return fastaug.LogMel(256, 128, 16, normalise=(-5.0, 3.0))


def noise() -> nn.Module:
    return fastaug.Noise(snr_db=(-12.0, 0.0))


def gain() -> nn.Module:
    return fastaug.Gain(gain_db=(-6.0, 0.0))


def halves() -> nn.Module:
    return fastaug.Gain(gain_db=-6.0)
