"""Encoders of spectrograms: ResNet-18, ResNet-50 and EfficientNet-B0, with timm's parameter names.

He et al., "Deep Residual Learning" (2016), in the version of torchvision and timm (stride in the 3x3 convolution of a
bottleneck). Tan and Le, "EfficientNet" (2019), table 1, without stochastic depth.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

__all__ = ["EfficientNetB0", "ResNet18", "ResNet50", "load_weights"]


class _Basic(nn.Module):
    expansion = 1

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(c_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(nnf.relu(self.bn1(self.conv1(x)))))
        return nnf.relu(y + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(c_in, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = nnf.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(nnf.relu(self.bn2(self.conv2(y)))))
        return nnf.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(c_in: int, c_out: int, stride: int) -> nn.Module | None:
    if c_in == c_out and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))


class _ResNet(nn.Module):
    def __init__(self, block: type[_Basic] | type[_Bottleneck], depths: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        c_in = 64
        for i, depth in enumerate(depths):
            layers = []
            for j in range(depth):
                layers.append(block(c_in, 64 << i, 2 if i > 0 and j == 0 else 1))
                c_in = (64 << i) * block.expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*layers))
        self.out_dim = c_in
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, spectra: Tensor) -> Tensor:
        x = nnf.max_pool2d(nnf.relu(self.bn1(self.conv1(spectra))), 3, 2, 1)
        for i in range(4):
            x = getattr(self, f"layer{i + 1}")(x)
        return x.mean((2, 3))


class ResNet18(_ResNet):
    """(B, C, F, N) -> (B, 512). 11,170,240 parameters with one channel.

    Args:
        channels: C of the spectrograms.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__(_Basic, (2, 2, 2, 2), channels)


class ResNet50(_ResNet):
    """(B, C, F, N) -> (B, 2048). 23,501,760 parameters with one channel.

    Args:
        channels: C of the spectrograms.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__(_Bottleneck, (3, 4, 6, 3), channels)


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv_expand(nnf.silu(self.conv_reduce(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class _Separable(nn.Module):
    """The first stage's block: depthwise, squeeze-excite, pointwise."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(c_in, c_in, kernel, stride, kernel // 2, groups=c_in, bias=False)
        self.bn1 = nn.BatchNorm2d(c_in)
        self.se = _SqueezeExcite(c_in, c_in // 4)
        self.conv_pw = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(nnf.silu(self.bn1(self.conv_dw(x))))
        return self.bn2(self.conv_pw(y))


class _InvertedResidual(nn.Module):
    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = c_in * expand
        self.conv_pw = nn.Conv2d(c_in, wide, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv_dw = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.se = _SqueezeExcite(wide, c_in // 4)
        self.conv_pwl = nn.Conv2d(wide, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = nnf.silu(self.bn1(self.conv_pw(x)))
        y = self.se(nnf.silu(self.bn2(self.conv_dw(y))))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.residual else y


#: Stages after the first: blocks, kernel, stride, channels.
_STAGES = ((2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320))


class EfficientNetB0(nn.Module):
    """(B, C, F, N) -> (B, 1280). 4,006,972 parameters with one channel.

    Args:
        channels: C of the spectrograms.
        pool: "mean", or "max" as in COLA, over bins and frames.
    """

    out_dim = 1280

    def __init__(self, channels: int = 1, pool: str = "mean") -> None:
        super().__init__()
        if pool not in ("mean", "max"):
            raise ValueError(f'EfficientNetB0: pool must be "mean" or "max", got {pool!r}')
        self.pool = pool
        self.conv_stem = nn.Conv2d(channels, 32, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        stages: list[nn.Module] = [nn.Sequential(_Separable(32, 16, 3, 1))]
        c_in = 16
        for count, kernel, stride, c_out in _STAGES:
            blocks = []
            for i in range(count):
                blocks.append(_InvertedResidual(c_in, c_out, kernel, stride if i == 0 else 1, expand=6))
                c_in = c_out
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(c_in, self.out_dim, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(self.out_dim)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0.0, (2.0 / fan_out) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, spectra: Tensor) -> Tensor:
        x = self.blocks(nnf.silu(self.bn1(self.conv_stem(spectra))))
        x = nnf.silu(self.bn2(self.conv_head(x)))
        return x.mean((2, 3)) if self.pool == "mean" else x.amax((2, 3))


class BandCNN(nn.Module):
    """A small encoder that learns within minutes on a CPU: (B, C, F, N) -> (B, 4 * width * ceil(F / 16)).

    Four 3 x 3 convolutions of stride 2, batch norm, ReLU; the mean over time, each band's features kept apart, since in
    music where a sound lies in frequency says what it is. The deeper networks of this file need far more steps.

    Args:
        channels: C of the spectrograms.
        n_mels: their bands F.
        width: channels of the first convolution; the others have 2, 4 and 4 times as many.
    """

    def __init__(self, channels: int = 1, n_mels: int = 64, width: int = 16) -> None:
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width, 4 * width]
        self.blocks = nn.Sequential(*(
            nn.Sequential(nn.Conv2d(c_in, c_out, 3, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())
            for c_in, c_out in pairwise(widths)
        ))  # fmt: skip
        self.out_dim = widths[-1] * -(-n_mels // 16)

    def forward(self, spectra: Tensor) -> Tensor:
        features: Tensor = self.blocks(spectra)
        return features.mean(-1).flatten(1)


def load_weights(encoder: nn.Module, path: str | Path) -> None:
    """Put weights of timm or torchvision into an encoder of one channel or more, e.g. ImageNet's.

    A classifier is left out. Where the file's first convolution has three channels and the encoder's one, its weights
    are summed over the channels, as timm does: the response to a grey image stays.

    Args:
        path: a .safetensors file, or a state dict saved by torch (read with ``weights_only=True``).

    Raises:
        FileNotFoundError: there is no such file. ValueError: other weights are missing, left over, or of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    state = {k: v for k, v in state.items() if not k.startswith(("fc.", "classifier.", "head."))}
    own = encoder.state_dict()
    for name in ("conv1.weight", "conv_stem.weight"):
        if name in state and name in own and state[name].shape[1] == 3 and own[name].shape[1] == 1:
            state[name] = state[name].sum(1, keepdim=True)
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    other = [f"{k} {tuple(v.shape)}" for k, v in state.items() if k in own and own[k].shape != v.shape]
    if missing or extra or other:
        raise ValueError(
            f"{path} does not fit {type(encoder).__name__}: missing {missing[:3]}, left over {extra[:3]}, "
            f"of another shape {other[:3]}"
        )
    encoder.load_state_dict(state)
