"""A character-level Transformer with BitLinear layers (BitNet b1.58) and its float twin, as PyTorch modules.

S. Ma et al., "The Era of 1-bit LLMs", 2024, arXiv:2402.17764: an RMSNorm without gain before each product, weights
{-1, 0, 1} times their mean magnitude, activations of 8 bits. Embeddings and the last layer are float in both twins.
Needs torch. What is written to files is the business of `train_language_model.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY, CONTEXT, WIDTH, HEADS, HIDDEN, BLOCKS = 96, 64, 64, 4, 256, 2
DROPOUT = 0.05
"""The text is short: share of what blocks add that is left out while training."""
EPS = 1e-5
"""Least scale, and what is added to mean squares."""


def ternary(w: Tensor) -> tuple[Tensor, Tensor]:
    """Weights as {-1, 0, 1} and their one scale, the mean magnitude."""
    scale = w.abs().mean().clamp(min=EPS)
    return (w / scale).round().clamp(-1, 1), scale


class Product(nn.Linear):
    """A linear layer without bias behind an RMSNorm; with `bits`, weights are ternary and activations of 8 bits.

    Gradients pass through both roundings as if they were not there.
    """

    def __init__(self, inputs: int, outputs: int, *, bits: bool) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.bits = bits

    def forward(self, input: Tensor) -> Tensor:
        """Multiply f32 […, inputs]; returns f32 […, outputs]."""
        x = input * torch.rsqrt(input.square().mean(-1, keepdim=True) + EPS)
        if not self.bits:
            return F.linear(x, self.weight)
        a = 127.0 / x.abs().amax(-1, keepdim=True).clamp(min=EPS)
        levels, scale = ternary(self.weight)
        rounded = (x * a).round() / a
        return F.linear(x + (rounded - x).detach(), self.weight + (levels * scale - self.weight).detach())


class Block(nn.Module):
    """Causal attention and a perceptron with ReLU, each beside its input."""

    def __init__(self, *, bits: bool) -> None:
        super().__init__()
        self.qkv = Product(WIDTH, 3 * WIDTH, bits=bits)
        self.out = Product(WIDTH, WIDTH, bits=bits)
        self.up = Product(WIDTH, HIDDEN, bits=bits)
        self.down = Product(HIDDEN, WIDTH, bits=bits)
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """f32 [B, S, WIDTH] -> the same shape."""
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH)))
        return x + self.drop(self.down(self.up(x).relu()))


class LanguageModel(nn.Module):
    """Tokens to the logits of the tokens that follow; `bits` makes it the BitLinear one of the twins."""

    def __init__(self, *, bits: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        self.blocks = nn.Sequential(*(Block(bits=bits) for _ in range(BLOCKS)))
        self.head = Product(WIDTH, VOCABULARY, bits=False)
        for layer in self.modules():
            if isinstance(layer, Product):
                nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features))

    def forward(self, tokens: Tensor) -> Tensor:
        """i64 [B, S] -> f32 [B, S, VOCABULARY], S at most CONTEXT."""
        return self.head(self.blocks(self.embed(tokens) + self.position[: tokens.shape[1]]))
