"""Training with waveform and spectrogram together: which views, which losses, which encoder.

Cross-format loss: Wang and van den Oord, "Multi-Format Contrastive Learning of Audio Representations" (2021).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from fastaug.ssl.checkpoint import check_card, load_encoder, save_model
from fastaug.ssl.config import call_with, resolve
from fastaug.ssl.encoders import Projector
from fastaug.ssl.fusion.encoders import AUDIO, SPECTROGRAM, Description, EarlyFusion, ModelFusion, TwoFormats
from fastaug.ssl.losses import nt_xent, pair_cross_entropy
from fastaug.ssl.training.accumulate import split

__all__ = [
    "MultiFormat",
    "contrast",
    "cross_format",
    "format_views",
    "fused_encoder",
    "in_parts",
    "join_checkpoints",
    "model_inputs",
    "two_views",
]

KINDS = ("separate", "decision", "joint", "early", "model", "audio", "spectrogram")


def format_views(fusion: str, waveform: Any, spectrogram: Any) -> tuple[list[Any], list[Any]]:
    """``transform`` and ``spec_transform`` of a Pipeline, one for each of its views, so that one decode serves both.

    Late fusion hears augmented samples and sees the augmented spectrograms of plain ones, two views of each; "joint"
    one of each, which are the pair; "early" and "model" take both formats of the same augmented crops.

    Args:
        fusion: one of KINDS. waveform, spectrogram: transforms, or None.
    """
    heard, seen, both = (waveform, None), (None, spectrogram), (waveform, spectrogram)
    views = {"joint": [heard, seen], "early": [both, both], "model": [both, both], "audio": [heard, heard],
             "spectrogram": [seen, seen]}.get(fusion, [heard, heard, seen, seen])  # fmt: skip
    return [samples for samples, _ in views], [spectra for _, spectra in views]


def model_inputs(fusion: str, batch: Any) -> tuple[Tensor, Tensor | None]:
    """What ``MultiFormat`` takes of a batch with the views of ``format_views``.

    Returns:
        Samples (2, B, C, T) and spectrograms (2, B, C, F, N), for "joint" (1, B, …) each; no spectrograms where the
        pipeline makes none.
    """
    samples, spectra = batch.audio, batch.spectrograms
    if len(samples) == 4 or fusion == "joint":
        half = len(samples) // 2
        samples, spectra = samples[:half], spectra[half:]
    return samples, spectra


def in_parts(samples: Tensor, spectra: Tensor | None, parts: int) -> list[tuple[Tensor, Tensor | None]]:
    """Samples and spectrograms of the parts of a batch, for ``accumulate.backward``."""
    pictures = [None] * parts if spectra is None else split(spectra, parts)
    return list(zip(split(samples, parts), pictures, strict=True))


class MultiFormat(nn.Module):
    """A fused encoder and a projector for each of its formats, as one module.

    Args:
        encoder: with a method ``formats``.
        example: samples (B, C, T), B >= 1; run once in eval mode to learn the dimensions.
        projection_dim: of each projector, an MLP.

    Takes samples (V, B, C, T) and spectrograms (V, B, C, F, N) or None; gives projections (V · formats, B, D): all
    views of the first format, then those of the next.
    """

    def __init__(self, encoder: nn.Module, example: Tensor, projection_dim: int) -> None:
        super().__init__()
        encoder.eval()
        with torch.no_grad():
            self.dims = {name: h.shape[1] for name, h in encoder.formats(example).items()}  # type: ignore[operator]
        self.encoder = encoder.train()
        self.projectors = nn.ModuleDict({name: Projector(dim, projection_dim) for name, dim in self.dims.items()})

    def forward(self, samples: Tensor, spectra: Tensor | None) -> Tensor:
        pictures = None if spectra is None else spectra.flatten(0, 1)
        found: dict[str, Tensor] = self.encoder.formats(samples.flatten(0, 1), pictures)  # type: ignore[operator]
        z = [self.projectors[name](h).unflatten(0, (len(samples), -1)) for name, h in found.items()]
        return torch.cat(z)


def cross_format(
    z_audio: Tensor, z_spectrogram: Tensor, temperature: float = 0.1, groups: Tensor | None = None
) -> Tensor:
    """Each view must find the other format of its clip among all of that format; both directions, averaged.

    Negatives are of the other format only: within one format its own marks would give the clip away.

    Args:
        z_audio, z_spectrogram: (B, D), row b of one belonging to row b of the other; need not be normalised.
        temperature: divides the cosine similarities, > 0.
        groups: int64 (B,), as for ``nt_xent``: examples of one group are not each other's negatives.

    Returns:
        The mean over this process's 2B anchors, negatives from all processes; its mean over processes is the loss of
        the joined batch, gradient included, as for ``nt_xent``.
    """
    if z_audio.ndim != 2 or z_audio.shape != z_spectrogram.shape:
        raise ValueError(
            f"cross_format: both must be (B, D), got {tuple(z_audio.shape)} and {tuple(z_spectrogram.shape)}"
        )
    there, _ = pair_cross_entropy(z_audio, z_spectrogram, temperature, groups=groups)
    back, _ = pair_cross_entropy(z_spectrogram, z_audio, temperature, groups=groups)
    return (there + back) / 2


def contrast(z: Tensor, across_formats: bool, temperature: float, groups: Tensor | None = None) -> dict[str, Tensor]:
    """Losses by name, to be added up, of projections (V, B, D) as ``MultiFormat`` gives them.

    Two views: one loss, with ``across_formats`` that of ``cross_format``. Four: one for each format; the formats share
    no weight, so the sum trains each as if alone. ``groups`` as for ``nt_xent``.
    """
    if across_formats:
        return {"joint": cross_format(z[0], z[1], temperature, groups)}
    names = ["views"] if len(z) == 2 else [AUDIO, SPECTROGRAM]
    pairs = z.unflatten(0, (-1, 2))
    return {name: nt_xent(i, j, temperature, groups=groups) for name, (i, j) in zip(names, pairs, strict=True)}


def two_views(z: Tensor) -> Tensor:
    """Projections (V, B, D) as those of two views (2, B, D'), the formats side by side: for what is watched."""
    if len(z) == 2:
        return z
    return torch.cat([nnf.normalize(z[:2], dim=2), nnf.normalize(z[2:], dim=2)], dim=2)


def fused_encoder(
    fusion: str, audio: str, spectrogram: str, logmel: dict[str, Any], **offered: Any
) -> tuple[nn.Module, Description]:
    """The encoder of a kind of fusion, and its description for a card.

    Args:
        fusion: "separate", "decision" or "joint": two encoders; "audio", "spectrogram": one of them; "early": the
            spectrogram encoder on two channels; "model": stems and trunk of ``ModelFusion``.
        audio, spectrogram: names of fastaug.ssl.encoders or module:callable. logmel: arguments of ``LogMel``.
        offered: arguments (width, sample_rate, …), of which each encoder gets those that its signature names.

    Raises:
        ValueError: another ``fusion``.
    """
    if fusion not in KINDS:
        raise ValueError(f"fusion must be one of {', '.join(KINDS)}, got {fusion!r}")

    def part(name: str, channels: int = 1) -> Description:
        _, kwargs = call_with(resolve(name, "fastaug.ssl.encoders"), channels=channels, **offered)
        return {"encoder": name, "encoder_kwargs": kwargs}

    kind: type[nn.Module] = TwoFormats
    kwargs: dict[str, Any] = {"logmel": logmel}
    if fusion == "early":
        kind, kwargs["encoder"] = EarlyFusion, part(spectrogram, channels=2)
    elif fusion == "model":
        kind, kwargs["width"] = ModelFusion, offered.get("width", 1.0)
    else:
        kwargs[AUDIO] = None if fusion == SPECTROGRAM else part(audio)
        kwargs[SPECTROGRAM] = None if fusion == AUDIO else part(spectrogram)
    return kind(**kwargs), {"encoder": f"fastaug.ssl.fusion.encoders:{kind.__name__}", "encoder_kwargs": kwargs}


def join_checkpoints(audio: str | Path, spectrogram: str | Path, folder: Path) -> Path:
    """Late fusion of two trained encoders (recipes clmr.py and simclr_spec.py), as a checkpoint in ``folder``.

    Raises:
        FileNotFoundError, ValueError: a checkpoint cannot be read, is of the other format, or the two do not hear the
            same: sample rate and crop must agree.
    """
    if not (audio and spectrogram):
        raise ValueError("give both checkpoints, of an encoder of waveforms and one of spectrograms, or neither")
    (heard, card), (seen, other) = load_encoder(audio), load_encoder(spectrogram)
    both = {AUDIO: card, SPECTROGRAM: other}
    for path, one in ((audio, card), (spectrogram, other)):
        check_card(one, path, "sample_rate", "crop_samples", "logmel", "out_dim")
    if card["logmel"] is not None or other["logmel"] is None:
        raise ValueError(f"{audio} must be an encoder of waveforms and {spectrogram} one of spectrograms")
    for key in ("sample_rate", "crop_samples"):
        if card[key] != other[key]:
            raise ValueError(f"checkpoints must agree in {key}: {card[key]} of {audio}, {other[key]} of {spectrogram}")
    parts = {name: {key: c[key] for key in ("encoder", "encoder_kwargs")} for name, c in both.items()}
    kwargs = {**parts, "logmel": other["logmel"]}
    fused = TwoFormats(**kwargs)
    weights = {f"{AUDIO}.{k}": v for k, v in heard.state_dict().items()}
    weights |= {f"{SPECTROGRAM}.{k}": v for k, v in seen.state_dict().items()}
    fused.load_state_dict(weights)
    card = {
        **other, "encoder": "fastaug.ssl.fusion.encoders:TwoFormats", "encoder_kwargs": kwargs, "logmel": None,
        "out_dim": card["out_dim"] + other["out_dim"], "fusion": "separate",
        "checkpoints": [str(audio), str(spectrogram)],
    }  # fmt: skip
    save_model(folder, nn.ModuleDict({"encoder": fused}), card)
    return folder
