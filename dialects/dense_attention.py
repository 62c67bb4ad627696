"""The `dense` operations of decoders: rotary, and attention over caches of keys and values.

Caches are laid out for vectors of 16 keys: keys are [KV, C, D, 16], so that 16 scores need no sum across lanes, values
are [KV, C, 16, D]. Key number t is in block t // 16, lane t % 16. Registered by `dense.py`.

Caches of int8 are [KV, C, 16·(D + 4)] bytes: of each head first all codes, [C, D, 16] of keys and [C, 16, D] of values,
and behind them a scale f32 for each of the 16·C tokens.
"""

from __future__ import annotations

from xdsl.dialects.builtin import Float32Type, FloatAttr, TensorType, UnitAttr, f16, f32, i8, i64
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense_attrs import DenseOp, flag
from neuc.dialects.dims import Dim

CACHE_LANES = 16
"""Keys of one block of a cache."""
SCALE_BYTES = 4
"""Bytes of the scale of a token in a cache of int8."""
_LANES = Dim.of(CACHE_LANES)


@irdl_op_definition
class RotaryOp(DenseOp):
    """Each pair (a, b) of x f32 [S, H, D] turned by its angle: (a·cos − b·sin, b·cos + a·sin); cos, sin f32 [S, D/2].

    Pair i is (x[i], x[i + D/2]), as Hugging Face has them; with `interleaved` (x[2i], x[2i + 1]), as llama.cpp does.
    Su et al., RoFormer, 2021.
    """

    name = "dense.rotary"
    x = operand_def(TensorType)
    cos = operand_def(TensorType)
    sin = operand_def(TensorType)
    interleaved = opt_prop_def(UnitAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, cos: SSAValue, sin: SSAValue, *, interleaved: bool = False) -> None:
        properties = {"interleaved": flag(interleaved)}
        super().__init__(operands=[x, cos, sin], result_types=[x.type], properties=properties)

    def verify_(self) -> None:
        tokens, heads, width = _dims("x", self.x, 3)
        if width.is_static and width.value % 2:
            raise VerifyException(f"x has heads of {width} elements, which do not make pairs")
        for name, value in (("cos", self.cos), ("sin", self.sin)):
            shapes.check(name, value, (tokens, width // 2), f32)
        shapes.check_element("x", self.x, f32)
        shapes.check("result", self.result, (tokens, heads, width), f32)


@irdl_op_definition
class CacheAppendOp(DenseOp):
    """The caches with keys k and values v, f32 [S, KV, D], of the tokens position … position + S − 1 written into them.

    `k_cache` f16 or f32 [KV, C, D, 16], `v_cache` [KV, C, 16, D] of the same type, or both int8 [KV, C, 16·(D + 4)];
    `position` i64 []. Tokens that would lie outside the 16·C places are left out. A program that is given the same
    array as input and output for a cache writes the new tokens alone. The D elements of a head become int8 as
    `ternary.quantize` makes them: a = 127 / max(max abs x, 1e-5), code = round_half_even(x·a), scale = 1/a.
    """

    name = "dense.cache_append"
    k_cache = operand_def(TensorType)
    v_cache = operand_def(TensorType)
    k = operand_def(TensorType)
    v = operand_def(TensorType)
    position = operand_def(TensorType)
    new_k = result_def(TensorType)
    new_v = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, k_cache: SSAValue, v_cache: SSAValue, k: SSAValue, v: SSAValue, position: SSAValue) -> None:
        super().__init__(operands=[k_cache, v_cache, k, v, position], result_types=[k_cache.type, v_cache.type])

    def verify_(self) -> None:
        tokens, heads, width = _dims("k", self.k, 3)
        _verify_caches(self.k_cache, self.v_cache, self.position, width)
        for name, value in (("k", self.k), ("v", self.v)):
            shapes.check(name, value, (tokens, heads, width), f32)
        shapes.check("k_cache", self.k_cache, (heads, *_dims("k_cache", self.k_cache, None)[1:]))
        held = shapes.element(self.k_cache)
        shapes.check("new k_cache", self.new_k, shapes.dims(self.k_cache), held)
        shapes.check("new v_cache", self.new_v, shapes.dims(self.v_cache), held)


@irdl_op_definition
class AttentionOp(DenseOp):
    """result[s, h] = Σ_t softmax_t(scale · q[s, h]·key[t]) · value[t], t from 0 to position + s; all f32 [S, H, D].

    Head h reads the keys and values of cache head h // (H / KV). Queries before the caches' beginning see key 0 alone,
    those after their end all keys. Caches are those of `dense.cache_append`.
    """

    name = "dense.attention"
    q = operand_def(TensorType)
    k_cache = operand_def(TensorType)
    v_cache = operand_def(TensorType)
    position = operand_def(TensorType)
    scale = prop_def(FloatAttr[Float32Type])
    result = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, q: SSAValue, k_cache: SSAValue, v_cache: SSAValue, position: SSAValue, *, scale: float) -> None:
        super().__init__(
            operands=[q, k_cache, v_cache, position],
            result_types=[q.type],
            properties={"scale": FloatAttr(scale, f32)},
        )

    def verify_(self) -> None:
        tokens, heads, width = _dims("q", self.q, 3)
        groups = _verify_caches(self.k_cache, self.v_cache, self.position, width)
        if heads.is_static and groups.is_static and (groups.value < 1 or heads.value % groups.value):
            raise VerifyException(f"{heads} heads of q are no multiple of the {groups} heads of the caches")
        shapes.check_element("q", self.q, f32)
        shapes.check("result", self.result, (tokens, heads, width), f32)


def _dims(name: str, value: SSAValue, rank: int | None) -> tuple[Dim, ...]:
    found = shapes.dims(value)
    if rank is None:
        if not found:
            raise VerifyException(f"{name} is a scalar, expected […, D]")
    elif len(found) != rank:
        raise VerifyException(f"{name} has rank {len(found)}, should have {rank}")
    return found


def _verify_caches(k_cache: SSAValue, v_cache: SSAValue, position: SSAValue, width: Dim) -> Dim:
    """KV, after checking shapes and types of both caches, for heads of `width` elements, and of the position."""
    held = shapes.element(k_cache)
    if held not in (f16, f32, i8):
        raise VerifyException(f"k_cache holds {held}, must hold f16, f32 or i8")
    heads, blocks, *_ = _dims("k_cache", k_cache, 3 if held == i8 else 4)
    if held == i8:
        shapes.check("k_cache", k_cache, (heads, blocks, (width + SCALE_BYTES) * CACHE_LANES))
        shapes.check("v_cache", v_cache, (heads, blocks, (width + SCALE_BYTES) * CACHE_LANES), held)
    else:
        shapes.check("k_cache", k_cache, (heads, blocks, width, _LANES))
        shapes.check("v_cache", v_cache, (heads, blocks, _LANES, width), held)
    shapes.check("position", position, (), i64)
    return heads
