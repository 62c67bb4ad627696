"""Meaning of the decoder operations of `dense`: rotary, cache_append, attention. Loaded by `dense.py`.

Sums over an axis add up in f64 and round once to f32; what rotary does with a pair are f32 operations, each rounded.
"""

from __future__ import annotations

import math

import numpy as np

from neuc.dialects import dense
from neuc.dialects.dense_attention import CACHE_LANES
from neuc.dialects.interp.core import Env, implements
from neuc.dialects.interp.rounding import quantize

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
    width = k.shape[2]
    (keys, key_scales), (values, value_scales) = _parts(k_cache, width), _parts(v_cache, width)
    blocks = k_cache.shape[:2]
    keys, values = keys.reshape(*blocks, width, CACHE_LANES), values.reshape(*blocks, CACHE_LANES, width)  # views
    for token in range(max(0, -start), min(len(k), k_cache.shape[1] * CACHE_LANES - start)):
        block, lane = divmod(start + token, CACHE_LANES)
        key, value = k[token], v[token]
        if key_scales is not None and value_scales is not None:
            key, key_scales[:, start + token] = quantize(key, 1)
            value, value_scales[:, start + token] = quantize(value, 1)
        keys[:, block, :, lane] = key
        values[:, block, lane, :] = value
    return [k_cache, v_cache]


def _parts(cache: Array, width: int) -> tuple[Array, Array | None]:
    """Views of a cache: its elements [KV, 16·C·D], and the scales f32 [KV, 16·C] of one of int8."""
    flat = cache.reshape(len(cache), math.prod(cache.shape[1:]))
    if cache.dtype != np.int8:
        return flat, None
    tokens = cache.shape[1] * CACHE_LANES
    return flat[:, : tokens * width], flat[:, tokens * width :].view(np.float32)


def _numbers(elements: Array, scales: Array | None) -> Array:
    """Keys or values f64 [KV, 16·C, D] from elements of this shape."""
    numbers = elements.astype(np.float64)
    return numbers if scales is None else numbers * scales[:, :, None]


@implements(dense.AttentionOp)
def _attention(op: dense.AttentionOp, args: list[Array], env: Env) -> list[Array]:
    q, k_cache, v_cache, start = args[0], args[1], args[2], int(args[3])
    (tokens, heads, width), (groups, blocks) = q.shape, k_cache.shape[:2]
    shape = (groups, blocks * CACHE_LANES, width)
    (keys, key_scales), (values, value_scales) = _parts(k_cache, width), _parts(v_cache, width)
    keys = keys.reshape(groups, blocks, width, CACHE_LANES).transpose(0, 1, 3, 2).reshape(shape)
    keys, values = _numbers(keys, key_scales), _numbers(values.reshape(shape), value_scales)
    y = np.zeros_like(q)
    for token in range(tokens):
        seen = min(max(start + token, 0), blocks * CACHE_LANES - 1) + 1
        of_group = q[token].reshape(groups, heads // groups, width)
        scores = of_group @ keys[:, :seen].transpose(0, 2, 1) * op.scale.value.data
        weights = np.exp(scores - np.max(scores, axis=-1, keepdims=True, initial=-np.inf))
        weights = weights / np.sum(weights, axis=-1, keepdims=True)
        y[token] = (weights @ values[:, :seen]).reshape(heads, width)
    return [y]
