"""Published CLMR checkpoints as checkpoints of ours.

The released weights come in three layouts: of the thesis' code (``encoder.convN.*``), of the later package
(``encoder.sequential.N.*``), and of its PyTorch Lightning modules (``model.encoder.sequential.N.*`` under
"state_dict"); DataParallel puts ``module.`` before all of them. The last layer, ``fc``, belongs to no representation.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastaug.ssl.checkpoint import save_model
from fastaug.ssl.encoders import CHANNELS, STRIDES, Contrastive, Projector, SampleCNN

_PREFIX = re.compile(r"^(module\.)?(model\.)?(module\.)?(?=encoder\.|projector\.)")


# What Lightning's checkpoints mention beside the weights: read as plain dicts and not looked at. Nothing else than
# these, tensors and plain containers is unpickled.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    (OrderedDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (OrderedDict, "lightning_fabric.utilities.data.AttributeDict"),
    (OrderedDict, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    (OrderedDict, "pytorch_lightning.callbacks.early_stopping.EarlyStopping"),
]


def convert_clmr(source: str | Path, out: str | Path, sample_rate: int | None = None) -> Path:
    """Write ``out``/model.safetensors from a published CLMR checkpoint; returns its path.

    Args:
        source: .pt, .ckpt or .tar as torch.save wrote it (read with ``weights_only=True``), or .safetensors.
        sample_rate: Hz, where the strides do not tell.

    Raises:
        FileNotFoundError: no such file. ValueError: it cannot be read without running code from it, has no SampleCNN in
        one of the layouts, holds weights of another name (which is named), or its strides are unknown and
        ``sample_rate`` is not given.
    """
    source = Path(source)
    state = _tensors(source)
    weights = {_encoder_name(k): v for k, v in state.items() if k.startswith("encoder.")}
    weights = {k: v[:, :, None] if v.ndim == 3 else v for k, v in weights.items() if not k.startswith("fc.")}
    encoder, kwargs = _sample_cnn(weights, source, sample_rate)
    projector = _projector(state, encoder.out_dim, source)
    card = {
        "encoder": "SampleCNN", "encoder_kwargs": kwargs, "out_dim": encoder.out_dim,
        "sample_rate": kwargs["sample_rate"], "crop_samples": 3 * math.prod(encoder.strides), "logmel": None,
        "data": "not stored in the source", "split": None, "split_protocol": "not stored in the source",
        "label": None, "classes": [],
        "converted_from": {"file": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()},
    }  # fmt: skip
    return save_model(Path(out), Contrastive(encoder, projector), card)


def _tensors(source: Path) -> dict[str, Tensor]:
    """Names from "encoder." or "projector." on, and their tensors."""
    if not source.is_file():
        raise FileNotFoundError(f"no checkpoint at {source}")
    if source.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            stored: Any = load_file(source)
        except SafetensorError as error:
            raise ValueError(f"{source}: not a readable safetensors file: {error}") from error
    else:
        try:
            with torch.serialization.safe_globals(_HARMLESS):
                stored = torch.load(source, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever the bytes make of it
            raise ValueError(f"{source}: cannot be read as weights alone: {error}") from error
    if isinstance(stored, dict):
        stored = stored.get("state_dict", stored)
    if not isinstance(stored, dict):
        raise ValueError(f"{source}: holds a {type(stored).__name__}, expected a state dict")
    found: dict[str, Tensor] = {}
    for key, value in stored.items():
        if not isinstance(value, Tensor):
            continue
        name = _PREFIX.sub("", str(key))
        if not name.startswith(("encoder.", "projector.")):
            raise ValueError(f"{source}: {key} is not of a CLMR checkpoint, which has encoder.* and projector.*")
        # Lightning's module holds the encoder twice, alone and in the model: the same weights under two names.
        if name in found and not torch.equal(found[name], value):
            raise ValueError(f"{source}: holds {name} twice, and not the same; the other is {key}")
        found[name] = value
    return found


def _encoder_name(name: str) -> str:
    """encoder.conv3.0.weight or encoder.sequential.2.0.weight -> sequential.2.0.weight"""
    name = name.removeprefix("encoder.")
    return re.sub(r"^conv(\d+)\.", lambda found: f"sequential.{int(found[1]) - 1}.", name)


def _sample_cnn(weights: dict[str, Tensor], source: Path, sample_rate: int | None) -> tuple[SampleCNN, dict[str, Any]]:
    kernels = [weights.get(f"sequential.{i}.0.weight") for i in range(len(CHANNELS) + 2)]
    if any(kernel is None or kernel.ndim != 4 for kernel in kernels):
        found = ", ".join(sorted(weights)[:4]) or "nothing under encoder."
        raise ValueError(
            f"{source}: no SampleCNN of CLMR in it: expected encoder.conv1 to conv{len(kernels)} or "
            f"encoder.sequential.0 to {len(kernels) - 1}, found {found}"
        )
    strides = tuple(kernel.shape[-1] for kernel in kernels[1:-1] if kernel is not None)
    rate = next((rate for rate, known in STRIDES.items() if known == strides), sample_rate)
    if rate is None or sample_rate not in (None, rate):
        raise ValueError(
            f"{source}: strides {strides} are those of {rate or 'no known rate'}, sample_rate={sample_rate}"
        )
    assert kernels[0] is not None
    kwargs: dict[str, Any] = {"sample_rate": rate, "width": kernels[0].shape[0] / CHANNELS[0]}
    if rate not in STRIDES:
        kwargs["strides"] = list(strides)
    encoder = SampleCNN(**kwargs)
    try:
        encoder.load_state_dict(weights)  # counters of batches may be missing, as in the oldest files
    except RuntimeError as error:
        raise ValueError(f"{source}: its weights do not fit a SampleCNN: {error}") from error
    return encoder, kwargs


def _projector(state: dict[str, Tensor], dim: int, source: Path) -> nn.Module:
    """The projection head, CLMR's two matrices; the identity where the file has none."""
    stored = {k: v for k, v in state.items() if k.startswith("projector.")}
    if not stored:
        return Projector(dim, kind="identity")
    first, last = stored.get("projector.0.weight"), stored.get("projector.2.weight")
    fits = first is not None and last is not None and first.shape == (dim, dim) and last.shape[1:] == (dim,)
    if not fits or len(stored) > 2:
        shapes = ", ".join(f"{k} {tuple(v.shape)}" for k, v in sorted(stored.items()))
        raise ValueError(f"{source}: expected projector.0.weight ({dim}, {dim}) and projector.2.weight, found {shapes}")
    assert first is not None and last is not None
    projector = Projector(dim, last.shape[0], "mlp")
    projector.load_state_dict({"layers.0.weight": first, "layers.2.weight": last})
    return projector
