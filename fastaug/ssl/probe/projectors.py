"""The projectors of checkpoints, rebuilt from their weights: from the representation h to what was contrasted, z."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastaug.ssl.checkpoint import check_card, read_card
from fastaug.ssl.cola import cola_head
from fastaug.ssl.encoders import Projector
from fastaug.ssl.fusion.encoders import AUDIO, FUSED, SPECTROGRAM

__all__ = ["SideBySide", "load_projector", "reset"]

_FORMATS = (AUDIO, SPECTROGRAM, FUSED)  # in the order in which fused encoders put them side by side


class SideBySide(nn.Module):
    """The projectors of a fused encoder's formats, each on its own part of h: (B, sum of dims) -> (B, sum of z's).

    Args:
        projectors: in the order of the formats in h. dims: of h, of each.
    """

    def __init__(self, projectors: dict[str, nn.Module], dims: list[int]) -> None:
        super().__init__()
        self.projectors, self.dims = nn.ModuleDict(projectors), dims

    def forward(self, h: Tensor) -> Tensor:
        parts = h.split(self.dims, dim=1)
        return torch.cat([project(part) for project, part in zip(self.projectors.values(), parts, strict=True)], dim=1)


def load_projector(path: str | Path, card: dict[str, Any]) -> nn.Module:
    """The trained projector of a checkpoint, its shape read from its weights.

    CLMR's or COLA's; of a fused encoder those of its formats, `SideBySide`.

    Raises:
        ValueError: the checkpoint has none, or one of another kind, or it does not fit the encoder.
    """
    from safetensors.torch import load_file

    stored = load_file(read_card(path)[0])
    check_card(card, path, "out_dim")
    dim: int = card["out_dim"]
    if alone := _under("projector.", stored):
        return _projector(alone, dim, path)
    if fused := _under("projectors.", stored):
        return _side_by_side(fused, dim, path)
    raise ValueError(
        f"{path} holds no projector: --representation z needs one (h is what its encoder gives). There is none where "
        "it was the identity, or where trained encoders were only put side by side"
    )


def reset(projector: nn.Module) -> nn.Module:
    """A copy of a projector with fresh weights."""
    fresh = copy.deepcopy(projector)
    for module in fresh.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.reset_parameters()
    return fresh


def _under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def _side_by_side(weights: dict[str, Tensor], dim: int, path: str | Path) -> SideBySide:
    found = {name: _under(f"{name}.", weights) for name in _FORMATS}
    found = {name: own for name, own in found.items() if own}
    strange = sorted(weights.keys() - {f"{name}.{k}" for name, own in found.items() for k in own})
    if strange:
        raise ValueError(f"{path}: --representation z takes projectors of {', '.join(_FORMATS)}, not {strange[0]}")
    dims = [next(iter(own.values())).shape[-1] for own in found.values()]  # first is (dim, dim), a single one (z, dim)
    if sum(dims) != dim:
        taken = " + ".join(map(str, dims))
        raise ValueError(f"{path}: its projectors take {taken} dimensions, but its encoder gives {dim}")
    parts = zip(found.items(), dims, strict=True)
    return SideBySide({name: _projector(own, width, path) for (name, own), width in parts}, dims)


def _projector(weights: dict[str, Tensor], dim: int, path: str | Path) -> nn.Module:
    names = sorted(weights)
    if names == ["layers.weight"]:
        projector: nn.Module = Projector(dim, len(weights["layers.weight"]), "linear")
    elif names == ["layers.0.weight", "layers.2.weight"]:
        projector = Projector(dim, len(weights["layers.2.weight"]), "mlp")
    elif names == ["1.bias", "1.weight", "2.bias", "2.weight"]:
        projector = cola_head(dim, len(weights["1.bias"]))
    else:
        kinds = "CLMR's projector or COLA's"
        raise ValueError(f"{path}: --representation z takes {kinds}, not one of {', '.join(names)}")
    try:
        projector.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path}: its projector does not fit an encoder of {dim} dimensions: {error}") from error
    return projector
