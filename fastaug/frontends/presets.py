"""Front ends of other libraries and papers, number by number. Keyword arguments replace single numbers."""

from __future__ import annotations

from typing import Any

from fastaug.frontends.mel import LogMel

__all__ = ["cola", "librosa", "simclr_internship", "torchaudio"]


def librosa(**changes: Any) -> LogMel:
    """``power_to_db(feature.melspectrogram(y))`` of librosa 0.10 and 0.11, all defaults: 22,050 Hz, n_fft 2048."""
    settings: dict[str, Any] = {"n_fft": 2048, "hop_length": 512, "n_mels": 128, "sample_rate": 22_050}
    return LogMel(**(settings | {"log": "db", "top_db": 80.0} | changes))


def torchaudio(**changes: Any) -> LogMel:
    """``MelSpectrogram()`` and ``AmplitudeToDB()`` of torchaudio 2, all defaults: 16 kHz, n_fft 400, HTK's scale."""
    settings: dict[str, Any] = {"n_fft": 400, "hop_length": 200, "n_mels": 128, "sample_rate": 16_000}
    return LogMel(**(settings | {"mel": "htk", "pad": "reflect", "log": "db"} | changes))


def cola(**changes: Any) -> LogMel:
    """COLA's: 64 bands from 60 to 7,800 Hz of magnitudes, 25 ms windows every 10 ms at 16 kHz, ln(max(x, 1e-5)).

    Source: google-research/cola, data.py, ``extract_log_mel_spectrogram``; Saeed et al., ICASSP 2021. (Its upper limit
    of 1e8 is above what samples in [−1, 1] can give.)
    """
    settings: dict[str, Any] = {"n_fft": 1024, "win_length": 400, "hop_length": 160, "center": False, "n_mels": 64}
    settings |= {"sample_rate": 16_000, "f_min": 60.0, "f_max": 7800.0, "mel": "vggish", "power": 1.0}
    return LogMel(**(settings | {"offset": 0.0, "floor": 1e-5} | changes))


def simclr_internship(**changes: Any) -> LogMel:
    """Spectrogram SimCLR on GTZAN: 22,050 Hz, n_fft 1024, hop 512, 128 bands; scale and logarithm are ours."""
    settings: dict[str, Any] = {"n_fft": 1024, "hop_length": 512, "n_mels": 128, "sample_rate": 22_050}
    return LogMel(**(settings | changes))
