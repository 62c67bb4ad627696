"""The ordinary (not spiking) networks of the spiking examples as PyTorch modules: what `train.py` trains.

Needs torch. `onnx_networks.py` builds the same networks as ONNX models, without torch, from the same parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm beside a shortcut, as in ResNet-18: K. He et al., 2016, arXiv:1512.03385.

    Args:
        channels, features: of the input and the output.
        stride: of the first convolution, and of the 1x1 convolution in the shortcut if the shape changes.
    """

    def __init__(self, channels: int, features: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, features, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != features:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, features, 1, stride, bias=False), nn.BatchNorm2d(features)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """f32 [N, channels, H, W] -> f32 [N, features, H/stride, W/stride]."""
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(inner + self.shortcut(x))


class Block(nn.Module):
    """A pre-norm Transformer block (A. Vaswani et al., 2017, arXiv:1706.03762): `hidden` neurons with GELU."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2, self.up, self.gelu, self.down = (
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """f32 [N, S, width] -> the same shape."""
        normed = self.norm1(x)
        mixed, _ = self.attention(normed, normed, normed, need_weights=False)
        x = x + mixed
        return x + self.down(self.gelu(self.up(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Patches, blocks, the mean over the patches, classes: A. Dosovitskiy et al., 2021, arXiv:2010.11929.

    Args:
        side, patch: of images and patches, in pixels.
        width, heads, hidden, blocks: sizes of the Transformer.
    """

    def __init__(self, side: int, patch: int, width: int, heads: int, hidden: int, blocks: int = 2) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, patch, patch)
        self.position = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """f32 [N, 1, side, side] -> f32 [N, 10]."""
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between, behind a flatten."""
    layers: list[nn.Module] = [nn.Flatten()]
    for k, n in pairwise(widths):
        layers += [nn.Linear(k, n), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(*features: int) -> nn.Sequential:
    """3x3 convolutions with batch norm, ReLU and average pooling by 2, then one linear layer over all positions."""
    layers: list[nn.Module] = []
    side = 28
    for channels, count in zip((1, *features[:-1]), features, strict=True):
        layers += [nn.Conv2d(channels, count, 3, padding=1), nn.BatchNorm2d(count), nn.ReLU(), nn.AvgPool2d(2)]
        side //= 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features[-1] * side * side, 10))


def resnet() -> nn.Sequential:
    """A stem of stride 2, two residual blocks (the second with a projected shortcut), the global mean, classes."""
    stem = [nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [Residual(16, 16, 1), Residual(16, 32, 2)]
    return nn.Sequential(*stem, *blocks, nn.AvgPool2d(7), nn.Flatten(), nn.Linear(32, 10))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "fashion_mlp": lambda: mlp(784, 512, 512, 10),
    "fashion_cnn": lambda: cnn(16, 32, 64),
    "fashion_resnet": resnet,
    "fashion_vit": lambda: VisionTransformer(28, 7, width=64, heads=4, hidden=128),
    "mnist_cnn": lambda: cnn(16, 32, 32),
    "digits_mlp": lambda: mlp(64, 128, 128, 10),
    "digits_vit": lambda: VisionTransformer(8, 2, width=32, heads=4, hidden=64),
}
"""Name -> an untrained network; what stands before the underscore is the image set."""
