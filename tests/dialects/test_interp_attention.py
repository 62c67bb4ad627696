"""The numpy meaning of the decoder operations, against formulas written here a second time, token by token."""

from __future__ import annotations

import math

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp, f16, f32, i8, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Operation

from neuc.dialects import dense, ternary
from neuc.dialects.interp.core import interpret
from neuc.dialects.store import tensor_type
from neuc.dialects.ternary_types import ScaleAttr
from neuc.dialects.ternary_weights import make_weight
from neuc.dialects.weight_store import WeightStore

TOLERANCE = 1e-5
"""f32 results against f64 loops: some hundred roundings of 6e-8 each, on results of size 1 to 10."""
ELEMENTS: dict[str, Attribute] = {"float16": f16, "float32": f32, "int8": i8, "int64": i64}
RNG = np.random.default_rng(3)


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def run(make: object, *inputs: np.ndarray) -> list[np.ndarray]:
    """The results of the operation `make(*arguments)` on `inputs`."""
    types = [tensor_type(ELEMENTS[str(a.dtype)], a.shape) for a in inputs]
    function = FuncOp("main", (types, []))
    block = function.body.block
    op = make(*block.args)  # type: ignore[operator]
    assert isinstance(op, Operation)
    block.add_ops([op, ReturnOp(*op.results)])
    function.update_function_type()
    module = ModuleOp([function])
    module.verify()
    return interpret(module, list(inputs), WeightStore())


def test_rms_norm_divides_by_the_root_of_the_mean_square() -> None:
    x, gamma = random(2, 3, 5), random(5)
    (y,) = run(lambda x, g: dense.LayerNormOp(x, g, None, axis=2, eps=0.25, rms=True), x, gamma)
    for i, j in np.ndindex(2, 3):
        mean = sum(float(v) ** 2 for v in x[i, j]) / 5
        np.testing.assert_allclose(y[i, j], x[i, j] / math.sqrt(mean + 0.25) * gamma, rtol=TOLERANCE)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_is_a_product_of_complex_numbers(interleaved: bool) -> None:
    x, angles = random(3, 2, 8), random(3, 4)
    (y,) = run(lambda x, c, s: dense.RotaryOp(x, c, s, interleaved=interleaved), x, np.cos(angles), np.sin(angles))
    for token, head, i in np.ndindex(3, 2, 4):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + 4)
        turned = complex(*x[token, head, [a, b]]) * complex(math.cos(angles[token, i]), math.sin(angles[token, i]))
        np.testing.assert_allclose(y[token, head, [a, b]], [turned.real, turned.imag], atol=TOLERANCE)


@pytest.mark.parametrize("position", [0, 13, 29, -2, 31, 40])
def test_cache_append_writes_what_fits(position: int) -> None:
    kv, blocks, width, tokens = 2, 2, 3, 4
    caches = random(kv, blocks, width, 16).astype(np.float16), random(kv, blocks, 16, width).astype(np.float16)
    k, v = random(tokens, kv, width), random(tokens, kv, width)
    new_k, new_v = run(dense.CacheAppendOp, *caches, k, v, np.array(position))
    for place, head, i in np.ndindex(32, kv, width):
        token = place - position
        written = 0 <= token < tokens
        old_k, old_v = caches[0][head, place // 16, i, place % 16], caches[1][head, place // 16, place % 16, i]
        assert new_k[head, place // 16, i, place % 16] == (k[token, head, i].astype(np.float16) if written else old_k)
        assert new_v[head, place // 16, place % 16, i] == (v[token, head, i].astype(np.float16) if written else old_v)


def coded(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and scales of heads [..., D], one by one."""
    largest = np.maximum(np.abs(numbers).max(axis=-1, keepdims=True), np.float32(1e-5))
    a = np.float32(127) / largest
    return np.rint(numbers * a).astype(np.int8), (np.float32(1) / a)[..., 0]


@pytest.mark.parametrize("position", [0, 13, 30])
def test_int8_caches_hold_codes_then_scales(position: int) -> None:
    kv, blocks, width, tokens = 2, 2, 3, 4
    caches = [np.zeros((kv, blocks, 16 * (width + 4)), np.int8) for _ in range(2)]
    k, v, q = random(tokens, kv, width), random(tokens, kv, width), random(1, kv, width)
    held = run(dense.CacheAppendOp, *caches, k, v, np.array(position))
    last = min(position + tokens, 32) - 1
    numbers = []
    for cache, new, order in zip(held, (k, v), ((0, 1, 3, 2), (0, 1, 2, 3)), strict=True):
        flat = cache.reshape(kv, -1)
        codes = flat[:, : 32 * width].reshape(kv, blocks, *((width, 16) if order[2] == 3 else (16, width)))
        codes, scales = codes.transpose(order).reshape(kv, 32, width), flat[:, 32 * width :].view(np.float32)
        for token, head in np.ndindex(last + 1 - position, kv):
            wanted = coded(new[token, head])
            np.testing.assert_array_equal(codes[head, position + token], wanted[0])
            assert scales[head, position + token] == wanted[1]
        assert not codes[:, :position].any()
        assert not scales[:, :position].any()
        numbers.append(codes * scales[:, :, None].astype(np.float64))
    (y,) = run(lambda *a: dense.AttentionOp(*a, scale=0.5), q, *held, np.array(last))
    for head in range(kv):
        keys, values = (n[head, : last + 1] for n in numbers)
        weights = np.exp(0.5 * keys @ q[0, head].astype(np.float64))
        np.testing.assert_allclose(y[0, head], weights @ values / weights.sum(), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("position", [0, 11, 30, -3])
def test_attention_is_causal_and_grouped(position: int) -> None:
    tokens, heads, groups, width = 3, 4, 2, 5
    q, keys, values = random(tokens, heads, width), random(groups, 32, width), random(groups, 32, width)
    k_cache = np.ascontiguousarray(keys.reshape(groups, 2, 16, width).transpose(0, 1, 3, 2))
    v_cache = values.reshape(groups, 2, 16, width)
    # What lies behind the last token is not looked at.
    seen_by_all = min(max(position + tokens - 1, 0) + 1, 32)
    k_cache.transpose(0, 1, 3, 2)[:, seen_by_all // 16 :, seen_by_all % 16 :][:, :1] = np.nan
    (y,) = run(lambda *a: dense.AttentionOp(*a, scale=0.5), q, k_cache, v_cache, np.array(position))
    for token, head in np.ndindex(tokens, heads):
        seen = min(max(position + token, 0), 31) + 1
        group = head // 2
        scores = [0.5 * float(np.dot(q[token, head], keys[group, t])) for t in range(seen)]
        weights = [math.exp(s) for s in scores]
        expected = sum(w * values[group, t] for t, w in enumerate(weights)) / sum(weights)
        np.testing.assert_allclose(y[token, head], expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_lookup_scales_the_row_of_each_plane_and_clamps_ids() -> None:
    store = WeightStore()
    trits, scales = RNG.integers(-1, 2, (2, 5, 12)).astype(np.int8), np.abs(random(2, 5, 3))
    weight = make_weight("w", trits, scales, store, scale=ScaleAttr.of("group", 4))
    function = FuncOp("main", ([tensor_type(i64, [3])], []))
    block = function.body.block
    lookup = ternary.LookupOp(block.args[0], weight.result)
    block.add_ops([weight, lookup, ReturnOp(lookup.result)])
    function.update_function_type()
    module = ModuleOp([function])
    module.verify()
    (rows,) = interpret(module, [np.array([3, -7, 99])], store)
    for i, row in enumerate((3, 0, 4)):
        expected = sum(trits[p, row].astype(np.float32) * np.repeat(scales[p, row], 4) for p in range(2))
        np.testing.assert_array_equal(rows[i], expected)
