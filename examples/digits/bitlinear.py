"""BitLinear layers and the digits classifier in PyTorch: BitNet b1.58 for training, and as released models carry it.

Needs torch. What becomes of these modules as ONNX files is `export.py`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (64, 96, 64, 10)
"""Pixels, two hidden layers, classes."""
EPS = 1e-5
"""Least scale, as in the published code of BitNet b1.58."""


def quantize_activations(x: Tensor) -> Tensor:
    """`x` on a grid of 8 bits, one scale per row: round(x·a) / a with a = 127 / max|x|."""
    a = 127.0 / x.abs().amax(-1, keepdim=True).clamp(min=EPS)
    return (x * a).round().clamp(-128, 127) / a


def ternary(w: Tensor) -> Tensor:
    """BitNet b1.58: {-1, 0, 1} times the mean of |w|, one scale per tensor."""
    s = 1.0 / w.abs().mean().clamp(min=EPS)
    return (w * s).round().clamp(-1, 1) / s


def binary(w: Tensor) -> Tensor:
    """The first BitNet: the sign of w - mean(w), times the mean of |w|."""
    return (w - w.mean()).sign() * w.abs().mean()


class BitLinear(nn.Linear):
    """A linear layer without bias that computes on quantised weights and activations, an RMSNorm in front.

    Args:
        k, n: columns (inputs) and rows (outputs) of the weights.
        levels: `ternary` or `binary`.
        straight_through: keep gradients by writing ``x + (q(x) - x).detach()``, as training needs; the value is that
            of q(x) but for the last bit.
    """

    def __init__(self, k: int, n: int, levels: str = "ternary", *, straight_through: bool = True) -> None:
        super().__init__(k, n, bias=False)
        self.norm = nn.RMSNorm(k, eps=1e-6)
        self.quantize_weights = {"ternary": ternary, "binary": binary}[levels]
        self.straight_through = straight_through

    def forward(self, input: Tensor) -> Tensor:
        """Multiply f32[…, K]; returns f32[…, N]."""
        x = self.norm(input)
        xq, wq = quantize_activations(x), self.quantize_weights(self.weight)
        if self.straight_through:
            xq, wq = x + (xq - x).detach(), self.weight + (wq - self.weight).detach()
        return F.linear(xq, wq)


class PackedBitLinear(nn.Module):
    """A BitLinear as it is released: four weights to a byte, codes of activations multiplied, scales divided out after.

    Bits 2i and 2i+1 of byte row r hold T + 1 of row i·N/4 + r.

    Args:
        trits: int8 [N, K] in {-1, 0, 1}.
        scale: mean of |w|; its reciprocal is kept.
        gain: of the RMSNorm, f32 [K].
    """

    packed: Tensor
    weight_scale: Tensor

    def __init__(self, trits: Tensor, scale: Tensor, gain: Tensor) -> None:
        super().__init__()
        self.rows = trits.shape[0]
        quarter = -(-self.rows // 4)
        codes = F.pad(trits + 1, (0, 0, 0, 4 * quarter - self.rows)).to(torch.uint8).reshape(4, quarter, -1)
        self.register_buffer("packed", codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6)
        self.register_buffer("weight_scale", (1.0 / scale).reshape(1))
        self.norm = nn.RMSNorm(trits.shape[1], eps=1e-6)
        self.norm.weight = nn.Parameter(gain)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x f32[…, K]; returns f32[…, N]."""
        x = self.norm(x)
        a = 127.0 / x.abs().amax(-1, keepdim=True).clamp(min=EPS)
        q = (x * a).round().clamp(-128, 127).to(torch.int8)
        codes = torch.cat([(self.packed & (3 << 2 * i)) >> 2 * i for i in range(4)])[: self.rows]
        return F.linear(q.to(x.dtype), codes.to(x.dtype) - 1) / (a * self.weight_scale)


class UnpackedBitLinear(nn.Module):
    """A BitLinear whose weights are {-1, 0, 1} as floats and whose scale, the mean of |w|, is multiplied in after.

    Args:
        trits: int8 [N, K] in {-1, 0, 1}.
        scale: mean of |w|.
        gain: of the RMSNorm, f32 [K].
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, trits: Tensor, scale: Tensor, gain: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", trits.to(torch.float32))
        self.register_buffer("weight_scale", scale.reshape(1))
        self.norm = nn.RMSNorm(trits.shape[1], eps=1e-6)
        self.norm.weight = nn.Parameter(gain)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x f32[…, K]; returns f32[…, N]."""
        return F.linear(quantize_activations(self.norm(x)), self.weight) * self.weight_scale


def classifier(levels: Sequence[str] = ("ternary",) * 3, *, straight_through: bool = True) -> nn.Sequential:
    """Three layers with ReLU between; `levels` says of each whether it is `ternary`, `binary` or `float`."""
    layers: list[nn.Module] = []
    for kind, k, n in zip(levels, WIDTHS[:-1], WIDTHS[1:], strict=True):
        if kind == "float":
            layers += [nn.RMSNorm(k, eps=1e-6), nn.Linear(k, n)]
        else:
            layers.append(BitLinear(k, n, kind, straight_through=straight_through))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers[:-1])


def parameters(model: nn.Module) -> dict[str, np.ndarray]:
    """The trained parameters by name."""
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def load_parameters(model: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Put arrays made by `parameters` into a model of the same layers."""
    model.load_state_dict({name: torch.from_numpy(np.array(arrays[name])) for name in model.state_dict()})


def released(model: nn.Sequential, form: type[PackedBitLinear | UnpackedBitLinear]) -> nn.Sequential:
    """The model with every BitLinear as a `form`, whose weights are codes and one scale instead of floats."""
    layers: list[nn.Module] = []
    for layer in model:
        if isinstance(layer, BitLinear):
            w = layer.weight.detach()
            scale = w.abs().mean().clamp(min=EPS)
            trits = (w * (1.0 / scale)).round().clamp(-1, 1).to(torch.int8)
            layer = form(trits, scale, layer.norm.weight.detach())
        layers.append(layer)
    return nn.Sequential(*layers).eval()
