"""Meaning of the decoder operations of `dense`: rotary, cache_append, attention. Loaded by `dense.py`.

Sums over an axis add up in f64 and round once to f32; what rotary does with a pair are f32 operations, each rounded.
"""

from __future__ import annotations

import numpy as np

from neuc.dialects import dense
from neuc.dialects.dense_attention import CACHE_LANES
from neuc.dialects.interp.core import Env, implements

Array = np.ndarray


@implements(dense.RotaryOp)
def _rotary(op: dense.RotaryOp, args: list[Array], env: Env) -> list[Array]:
    x, cos, sin = args[0], args[1][:, None], args[2][:, None]
    half = x.shape[-1] // 2
    first, second = (
        (slice(0, None, 2), slice(1, None, 2)) if op.interleaved is not None else (slice(half), slice(half, None))
    )
    a, b = x[..., first], x[..., second]
    y = np.empty_like(x)
    y[..., first] = a * cos - b * sin
    y[..., second] = b * cos + a * sin
    return [y]


@implements(dense.CacheAppendOp)
def _cache_append(op: dense.CacheAppendOp, args: list[Array], env: Env) -> list[Array]:
    k_cache, v_cache, (k, v), start = args[0].copy(), args[1].copy(), args[2:4], int(args[4])
    for token in range(max(0, -start), min(len(k), k_cache.shape[1] * CACHE_LANES - start)):
        block, lane = divmod(start + token, CACHE_LANES)
        k_cache[:, block, :, lane] = k[token]
        v_cache[:, block, lane, :] = v[token]
    return [k_cache, v_cache]


@implements(dense.AttentionOp)
def _attention(op: dense.AttentionOp, args: list[Array], env: Env) -> list[Array]:
    q, k_cache, v_cache, start = args[0], args[1], args[2], int(args[3])
    (tokens, heads, width), (groups, blocks) = q.shape, k_cache.shape[:2]
    keys = k_cache.transpose(0, 1, 3, 2).reshape(groups, blocks * CACHE_LANES, width).astype(np.float64)
    values = v_cache.reshape(groups, blocks * CACHE_LANES, width).astype(np.float64)
    y = np.zeros_like(q)
    for token in range(tokens):
        seen = min(max(start + token, 0), blocks * CACHE_LANES - 1) + 1
        of_group = q[token].reshape(groups, heads // groups, width)
        scores = of_group @ keys[:, :seen].transpose(0, 2, 1) * op.scale.value.data
        weights = np.exp(scores - np.max(scores, axis=-1, keepdims=True, initial=-np.inf))
        weights = weights / np.sum(weights, axis=-1, keepdims=True)
        y[token] = (weights @ values[:, :seen]).reshape(heads, width)
    return [y]
