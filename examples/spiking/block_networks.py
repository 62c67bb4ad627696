"""Two blocks that are trained as spiking ones, and their twins without spikes, as PyTorch modules on 8x8 digits.

Needs torch. `SpikeTransformer`: spike-driven self-attention (M. Yao et al., 2023, arXiv:2307.01694). `Mamba`: a
selective scan (A. Gu, T. Dao, 2023, arXiv:2312.00752) whose linear layers are fed by signed-integer spikes. What
becomes of their parameters as `spike` operations is `block_programs.py`'s business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 4
"""Time steps of the spike-driven Transformer."""
DECAY = 0.5
"""Of its membranes, each step; a spike takes the threshold, 1, off them."""
MOST = 4
"""Most unit spikes of one signed-integer spike."""
UNIT = 0.75
"""A unit is so many times a neuron's mean magnitude of input."""
LEAK = 0.0
"""How much of a signed-integer neuron's rest stays for the next token."""
TOKENS, PIXELS = 16, 4
"""An 8x8 image is 16 patches of 2x2 pixels, row by row."""


def patches(images: Tensor) -> Tensor:
    """f32 [N, 1, 8, 8] -> f32 [N, 16, 4]."""
    return F.unfold(images, 2, stride=2).transpose(1, 2)


class Fire(torch.autograd.Function):
    """[u >= 0] as 0 and 1; backwards the derivative of a steep arctangent."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return grad_outputs[0] / (1 + (torch.pi * u) ** 2)


def lif(currents: Tensor) -> Tensor:
    """Spikes of leaky integrate-and-fire neurons with soft reset; time is the first axis, of `STEPS` steps."""
    u, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        u = DECAY * u + current
        spikes.append(Fire.apply(u - 1))
        u = u - spikes[-1]
    return torch.stack(spikes)


class Normed(nn.Module):
    """A linear layer and batch norm over its features; `folded` gives them as one."""

    def __init__(self, k: int, n: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(k, n, bias=False), nn.BatchNorm1d(n)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return self.norm(y.flatten(0, -2)).reshape(y.shape)

    def folded(self) -> dict[str, Tensor]:
        """`weight` [n, k] and `bias` [n] of the layer in eval mode."""
        gain = self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()
        return {"weight": self.linear.weight * gain[:, None], "bias": self.norm.bias - self.norm.running_mean * gain}


class SpikeTransformer(nn.Module):
    """One block of spike-driven attention and one of two linear layers, shortcuts between currents, mean, classes.

    Args:
        spiking: neurons spike and attention is Q AND K, summed over tokens, through a neuron, AND V. Else neurons are
            ReLUs and attention is softmax(Q·Kᵀ/√width)·V: the twin.
        width, hidden: sizes.
    """

    def __init__(self, *, spiking: bool, width: int = 48, hidden: int = 96) -> None:
        super().__init__()
        self.spiking, self.width = spiking, width
        self.embed = Normed(PIXELS, width)
        self.position = nn.Parameter(torch.zeros(TOKENS, width))
        self.q, self.k, self.v, self.out = (Normed(width, width) for _ in range(4))
        self.up, self.down = Normed(width, hidden), Normed(hidden, width)
        self.head = nn.Linear(width, 10)
        self.rates: list[float] = []

    def neuron(self, currents: Tensor) -> Tensor:
        out = lif(currents) if self.spiking else F.relu(currents)
        self.rates.append(float((out != 0).float().mean()))
        return out

    def forward(self, images: Tensor) -> Tensor:
        """f32 [N, 1, 8, 8] -> f32 [N, 10]."""
        self.rates = []
        x = self.embed(patches(images)) + self.position
        x = x.expand(STEPS if self.spiking else 1, *x.shape)
        s = self.neuron(x)
        q, k, v = (self.neuron(part(s)) for part in (self.q, self.k, self.v))
        if self.spiking:
            mixed = self.neuron((q * k).sum(2, keepdim=True) / 2) * v
        else:
            mixed = torch.softmax(q @ k.transpose(2, 3) * self.width**-0.5, -1) @ v
        x = x + self.out(mixed)
        x = x + self.down(self.neuron(self.up(self.neuron(x))))
        return self.head(self.neuron(x).mean((0, 2)))

    def program_parameters(self) -> dict[str, Tensor]:
        """What `block_programs.py` reads: batch norms folded, positions added to the embedding's bias."""
        made: dict[str, Tensor] = {}
        for name in ("embed", "q", "k", "v", "out", "up", "down"):
            made |= {f"{name}.{part}": value for part, value in getattr(self, name).folded().items()}
        made["position"] = self.position
        return made | {"head.weight": self.head.weight, "head.bias": self.head.bias}


class IntegerSpikes(nn.Module):
    """Signed-integer spiking neurons: u = leak·rest + x/unit, s = sign(u)·min(`MOST`, ⌊|u| + 1/4⌋), rest = u − s.

    s is the sum of unit spikes that fire while |u| ≥ 3/4. Backwards the rounding is left out. Time is axis 1.
    Units follow the inputs in training, and stay what they were then.

    Args:
        features: neurons, each with a unit of its own.
    """

    unit: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("unit", torch.full((features,), 0.5))
        self.rate = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """f32 [N, tokens, features] -> integers times unit, the same shape."""
        if self.training:
            self.unit.lerp_(UNIT * x.detach().abs().mean((0, 1)).clamp(min=1e-3), 0.1)
        rest, spikes = torch.zeros_like(x[:, 0]), []
        for current in (x / self.unit).unbind(1):
            u = LEAK * rest + current
            s = u.sign() * (u.abs() + 0.25).floor().clamp(max=MOST)
            spikes.append(u.clamp(-MOST, MOST) + (s - u.clamp(-MOST, MOST)).detach())
            rest = (u - s).detach()
        out = torch.stack(spikes, 1)
        self.rate = float(out.detach().abs().mean())
        return out * self.unit


class Mamba(nn.Module):
    """Embedding, one selective-scan block with a shortcut, the mean over tokens, classes.

    Args:
        spiking: signed-integer spikes go into the linear layers `into`, `select` and `out`; else numbers: the twin.
        width, inner, state, rank: sizes as in the paper; the convolution looks at 4 tokens.
    """

    def __init__(self, *, spiking: bool, width: int = 32, inner: int = 64, state: int = 8, rank: int = 4) -> None:
        super().__init__()
        self.state, self.rank = state, rank
        self.embed, self.norm = nn.Linear(PIXELS, width), nn.RMSNorm(width, eps=1e-5)
        self.position = nn.Parameter(0.02 * torch.randn(TOKENS, width))
        self.into, self.conv = nn.Linear(width, 2 * inner), nn.Conv1d(inner, inner, 4, padding=3, groups=inner)
        self.select, self.step = nn.Linear(inner, rank + 2 * state, bias=False), nn.Linear(rank, inner)
        self.decay = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(inner, 1))
        self.skip, self.out, self.head = nn.Parameter(torch.ones(inner)), nn.Linear(inner, width), nn.Linear(width, 10)
        spikes: Callable[[int], nn.Module] = IntegerSpikes if spiking else lambda _: nn.Identity()
        self.spikes1, self.spikes2, self.spikes3 = spikes(width), spikes(inner), spikes(inner)

    def forward(self, images: Tensor) -> Tensor:
        """f32 [N, 1, 8, 8] -> f32 [N, 10]."""
        x = self.embed(patches(images)) + self.position
        inner, gate = self.into(self.spikes1(self.norm(x))).chunk(2, -1)
        inner = F.silu(self.conv(inner.transpose(1, 2))[..., :TOKENS].transpose(1, 2))
        step, b, c = self.select(self.spikes2(inner)).split([self.rank, self.state, self.state], -1)
        mixed = self.scan(inner, F.softplus(self.step(step)), b, c) * F.silu(gate)
        return self.head((x + self.out(self.spikes3(mixed))).mean(1))

    def scan(self, x: Tensor, step: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Token after token: h = exp(−step·exp(decay))·h + step·x·b; y = h·c + skip·x."""
        h, made = torch.zeros(len(x), x.shape[2], self.state), []
        for t in range(x.shape[1]):
            h = torch.exp(-step[:, t, :, None] * self.decay.exp()) * h + (step * x)[:, t, :, None] * b[:, t, None]
            made.append((h * c[:, t, None]).sum(-1) + self.skip * x[:, t])
        return torch.stack(made, 1)

    def program_parameters(self) -> dict[str, Tensor]:
        """What `block_programs.py` reads."""
        return dict(self.state_dict())


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "spike_transformer": lambda: SpikeTransformer(spiking=True),
    "spike_transformer_twin": lambda: SpikeTransformer(spiking=False),
    "spike_mamba": lambda: Mamba(spiking=True),
    "spike_mamba_twin": lambda: Mamba(spiking=False),
}
"""Name -> an untrained network."""
